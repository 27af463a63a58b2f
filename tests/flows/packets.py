"""Packets through the text of iptables-save: all ways that a packet can take, each with its exact odds.

It shares no code with the compiler. Three-valued (Kleene) matching: what cannot be told is UNKNOWN, and a rule whose
match is UNKNOWN fails the test that meets it; nothing is silently taken for a no.

    PREROUTING ─ routing ┬─ INPUT                        (to an address of this node)
                         └─ FORWARD ─────┐
    OUTPUT ──────────────────────────────┴─ POSTROUTING  (and INPUT too, if it is to an address of this node)
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from tests.flows.saved import TARGETS, Match, Rule, Saved, UnknownRuleError

Address = IPv4Address | IPv6Address
Odds = Fraction | int  # exact, and an int wherever nothing is left to chance, which is ten times as fast
DEEPEST = 16

TABLES = {  # the tables that have a hook, in order of their priority there
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "nat"),
    "FORWARD": ("mangle", "filter"),
    "OUTPUT": ("raw", "mangle", "nat", "filter"),
    "POSTROUTING": ("mangle", "nat"),
}


class Truth(enum.Enum):
    """Whether a condition holds."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, value: bool | None) -> Truth:
        return cls.UNKNOWN if value is None else cls.YES if value else cls.NO

    def opposite(self) -> Truth:
        return {Truth.YES: Truth.NO, Truth.NO: Truth.YES}.get(self, self)


class Disposition(NamedTuple):
    """Where a packet ended.

    Attributes:
        word: DNAT, REJECT, DROP, ACCEPT (a rule of the filter table lets it pass), NONE (no rule decides).
        endpoint: For DNAT, address and port.
        masqueraded: Whether its source was rewritten.
    """

    word: str
    endpoint: str = ""
    masqueraded: bool = False


Outcome = Mapping[Disposition, Odds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection, or one that conntrack has an opinion about.

    Attributes:
        protocol: tcp, udp or sctp.
        source: None where it is not known (any more).
        interface: Where it came in; empty for a packet that this node sends; None where nobody knows.
        state: What conntrack calls its connection.
        seen: What `recent` remembers: (list, address) to seconds ago; None where nobody knows.
        rewritten: Address and port that it was sent to, behind DNAT.
        counted: Names under which nfacct has counted it.
    """

    protocol: str
    source: Address | None
    destination: Address
    port: int
    interface: str | None = "eth0"
    state: str = "NEW"
    mark: int = 0
    seen: Mapping[tuple[str, Address], int] | None = field(default_factory=dict)
    rewritten: tuple[Address, int] | None = None
    masqueraded: bool = False
    counted: frozenset[str] = frozenset()

    @property
    def states(self) -> set[str]:
        return {self.state, "DNAT"} if self.rewritten else {self.state}

    @property
    def endpoint(self) -> str:
        host = f"[{self.destination}]" if self.destination.version == 6 else str(self.destination)
        return f"{host}:{self.port}"


class End(NamedTuple):
    """One way through a chain: its odds, the verdict (empty: it came out at the bottom), and the packet."""

    odds: Odds
    verdict: str
    packet: Packet


@dataclass(frozen=True, slots=True)
class Way:
    """One way through the node so far; `word` is set where it has ended."""

    odds: Odds
    packet: Packet
    word: str = ""
    is_accepted: bool = False

    @property
    def disposition(self) -> Disposition:
        if self.word:
            return Disposition(self.word)
        if self.packet.rewritten:
            return Disposition("DNAT", self.packet.endpoint, self.packet.masqueraded)
        return Disposition("ACCEPT" if self.is_accepted else "NONE", "", self.packet.masqueraded)


@dataclass(frozen=True, slots=True)
class Simulator:
    """The rules of one family on a node with these addresses."""

    saved: Saved
    local: frozenset[Address]

    def outcome(self, packet: Packet) -> Outcome:
        """Return where a packet ends that takes the whole path."""
        return outcome(self.ways(packet))

    def ways(self, packet: Packet) -> list[Way]:
        """Return all ways of a packet through the hooks; a packet without interface is this node's own."""
        start = [Way(1, packet)]
        if packet.interface == "":
            sent = self.hook("POSTROUTING", self.hook("OUTPUT", start))
            looped = [way if way.word else replace(way, packet=replace(way.packet, interface="lo")) for way in sent]
            return [w for way in looped for w in (self.hook("INPUT", [way]) if self._arrives(way) else [way])]
        routed = self.hook("PREROUTING", start)
        arriving = self.hook("INPUT", [way for way in routed if self._arrives(way)])
        passing = self.hook("FORWARD", [way for way in routed if not self._arrives(way)])
        return [*arriving, *self.hook("POSTROUTING", passing)]

    def _arrives(self, way: Way) -> bool:
        return self.is_local(way.packet.destination)

    def is_local(self, address: Address) -> bool:
        """Whether an address is one of this node; all loopback addresses are."""
        return address in self.local or address.is_loopback

    def hook(self, hook: str, ways: Iterable[Way]) -> list[Way]:
        """Take ways through the built-in chains of a hook."""
        for table in TABLES[hook]:
            ways = self.through(table, hook, ways)
        return list(ways)

    def through(self, table: str, chain: str, ways: Iterable[Way]) -> list[Way]:
        """Take ways through one chain; ways that have ended, and for nat those of known connections, pass by it."""
        passed = []
        for way in ways:
            if way.word or (table == "nat" and way.packet.state != "NEW"):
                passed.append(way)
                continue
            for odds, verdict, packet in self.walk(table, chain, way.packet):
                said = verdict or self.saved.policies.get((table, chain), "")
                is_accepted = way.is_accepted or (table == "filter" and verdict == "ACCEPT")
                word = said if said in {"DROP", "REJECT"} else ""
                passed.append(Way(way.odds * odds, packet, word, is_accepted))
        return passed

    def walk(self, table: str, chain: str, packet: Packet, depth: int = 0) -> Iterator[End]:
        """Yield the ends of a packet in a chain; a chain that is not there is passed by."""
        if depth > DEEPEST:
            raise UnknownRuleError(f"{table} {chain}: jumps never end")
        here = [(1, packet)]
        for rule in self.saved.rules.get((table, chain), ()):
            further = []
            for odds, at in here:
                chance = self.chance(rule, at)
                if chance < 1:
                    further.append((odds * (1 - chance), at))
                if chance > 0:
                    for part, verdict, after in self._take(table, rule, self._noted(rule, at), depth):
                        share = odds * chance * part
                        if verdict == "CONTINUE":
                            further.append((share, after))
                        else:
                            yield End(share, "" if verdict == "RETURN" else verdict, after)
            here = further
        yield from (End(odds, "", at) for odds, at in here)

    def _take(self, table: str, rule: Rule, packet: Packet, depth: int) -> Iterator[End]:
        """Yield what the target of a rule does with a packet that fits."""
        match rule.target:
            case "ACCEPT" | "DROP" | "REJECT" | "RETURN":
                yield End(1, rule.target, packet)
            case "MARK":
                value, mask = rule.value
                yield End(1, "CONTINUE", replace(packet, mark=(packet.mark & ~mask) ^ value))
            case "DNAT":
                host, _, port = rule.value.rpartition(":")
                address = ip_address(host.strip("[]"))
                sent_to = (packet.destination, packet.port)
                after = replace(packet, destination=address, port=int(port), rewritten=sent_to)
                yield End(1, "ACCEPT", after)
            case "MASQUERADE":
                yield End(1, "ACCEPT", replace(packet, source=None, masqueraded=True))
            case "":
                yield End(1, "CONTINUE", packet)
            case chain if chain not in TARGETS:
                for odds, verdict, after in self.walk(table, chain, packet, depth + 1):
                    yield End(odds, verdict or "CONTINUE", after)
            case other:
                raise UnknownRuleError(f"{rule.text}: nobody says what {other} does")

    def chance(self, rule: Rule, packet: Packet) -> Odds:
        """Return how likely a rule fits a packet; a rule of which it cannot be told fails the test."""
        chance, doubt = 1, False
        for match in rule.matches:
            if match.word == "--probability":
                chance *= 1 - match.value if match.negated else match.value
                continue
            truth = self.truth(match, packet)
            if (truth.opposite() if match.negated else truth) is Truth.NO:
                return 0
            doubt = doubt or truth is Truth.UNKNOWN
        if doubt:
            raise UnknownRuleError(f"{rule.text}: cannot be told for {packet}")
        return chance

    def truth(self, match: Match, packet: Packet) -> Truth:
        """Return whether a condition holds, its negation aside."""
        value = match.value
        match match.word:
            case "-s":
                return Truth.of(None if packet.source is None else packet.source in value)
            case "-d":
                return Truth.of(packet.destination in value)
            case "-i":
                return Truth.of(None if packet.interface is None else _is_interface(packet.interface, value))
            case "-p":
                return Truth.of(packet.protocol == value)
            case "--dport":
                return Truth.of(packet.port == value)
            case "--dst-type":
                return Truth.of(self.is_local(packet.destination))
            case "--src-type":
                return Truth.of(None if packet.source is None else self.is_local(packet.source))
            case "--mark":
                return Truth.of(packet.mark & value[1] == value[0])
            case "--ctstate":
                return Truth.of(bool(packet.states & value))
            case "--rcheck":
                return Truth.of(_was_seen(packet, *value))
            case "--set" | "--nfacct-name":
                return Truth.YES
            case word:
                raise UnknownRuleError(f"nobody says when {word} holds")

    @staticmethod
    def _noted(rule: Rule, packet: Packet) -> Packet:
        """Do what conditions do by the way: put the source on a list, count the packet."""
        for match in rule.matches:
            if match.word == "--set":
                packet = replace(packet, seen={**(packet.seen or {}), (match.value[0], packet.source): 0})
            elif match.word == "--nfacct-name":
                packet = replace(packet, counted=packet.counted | {match.value})
        return packet


def _is_interface(name: str, pattern: str) -> bool:
    return bool(name) and (name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern)


def _was_seen(packet: Packet, name: str, seconds: int) -> bool | None:
    if packet.seen is None or packet.source is None:
        return None
    ago = packet.seen.get((name, packet.source))
    return ago is not None and ago <= seconds


def outcome(ways: Iterable[Way]) -> Outcome:
    """Return the odds of every disposition."""
    odds: dict[Disposition, Odds] = defaultdict(int)
    for way in ways:
        odds[way.disposition] += way.odds
    return dict(odds)


def agree(first: Outcome, other: Outcome, within: float = 1e-8) -> bool:
    """Whether two outcomes are the same, odds up to the 31 bits that the kernel draws."""
    return first.keys() == other.keys() and all(abs(first[end] - other[end]) <= within for end in first)
