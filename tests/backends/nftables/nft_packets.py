"""Executes the rules of nftables objects for one packet: where new connections end, and with which probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from rulegen.languages.nftables import expressions as e
from rulegen.languages.nftables import statements as s
from rulegen.languages.nftables.state import ElementValue, NamedSet, NftChain, NftKey, NftValue, chain_key, set_key
from rulegen.net import Address, Network, parse_address

ENDS = {"drop", "reject", "dnat", "masquerade"}
WHOLE = Fraction(1)


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection."""

    source: str
    target: str
    protocol: str
    port: str
    local: frozenset[str]
    interface: str = "eth0"
    mark: int = 0
    translated: bool = False


Ends = dict[str, Fraction]
"""The probability of each end of a connection."""
Branch = tuple[Fraction, Packet, str]
"""A possible course: its probability, the packet, and what a rule decided; empty for nothing."""


class NftPackets:
    """The rules of one table."""

    def __init__(self, objects: Mapping[NftKey, NftValue]) -> None:
        self._objects = objects
        (self._table,) = {key.table for key in objects}
        self._elements: dict[str, dict[tuple[str, ...], ElementValue]] = {}
        bases: dict[str, list[tuple[int, NftChain]]] = {}
        for key, value in objects.items():
            if isinstance(value, ElementValue):
                self._elements.setdefault(key.name, {})[key.element] = value
            elif isinstance(value, NftChain) and value.base is not None:
                bases.setdefault(value.base.hook, []).append((value.base.priority, value))
        self._bases = {hook: [chain for _, chain in sorted(of, key=lambda each: each[0])] for hook, of in bases.items()}

    def outcomes(self, packet: Packet, *, is_sent_here: bool = False) -> Ends:
        """Return the probability of each end of a connection, such as `10.0.0.1:80 masqueraded`, `drop` or `passed`."""
        ends: Ends = {}
        for branch in self._hook("output" if is_sent_here else "prerouting", packet):
            is_local = branch[1].target in packet.local
            after = [] if is_sent_here else ["input" if is_local else "forward"]
            for end, share in self._rest(branch, [*after, *([] if is_local else ["postrouting"])]):
                ends[end] = ends.get(end, Fraction(0)) + share
        return ends

    def _rest(self, branch: Branch, hooks: list[str]) -> Iterator[tuple[str, Fraction]]:
        share, packet, verdict = branch
        if verdict in {"drop", "reject"}:
            yield verdict, share
        elif not hooks:
            where = f"{packet.target}:{packet.port}" if packet.translated else "passed"
            yield f"{where} masqueraded" if verdict == "masquerade" else where, share
        else:
            for part, passed, decided in self._hook(hooks[0], packet):
                yield from self._rest((share * part, passed, decided), hooks[1:])

    def _hook(self, hook: str, packet: Packet) -> list[Branch]:
        branches: list[Branch] = [(WHOLE, packet, "")]
        for chain in self._bases[hook]:
            branches = [
                (share * part, after, decided or verdict)
                for share, before, verdict in branches
                for part, after, decided in (
                    [(WHOLE, before, "")] if verdict in {"drop", "reject"} else self._chain(chain, before)
                )
            ]
        return branches

    def _chain(self, chain: NftChain, packet: Packet, at: int = 0) -> Iterator[Branch]:
        if at == len(chain.rules):
            yield WHOLE, packet, ""
            return
        for share, after, verdict in self._rule(chain.rules[at].statements, packet):
            if verdict in {"", "break"}:
                rest = self._chain(chain, after, at + 1)
            elif verdict == "return":
                rest = iter([(WHOLE, after, "")])
            elif verdict in ENDS:
                rest = iter([(WHOLE, after, verdict)])
            else:
                rest = self._follow(chain, at, after, verdict)
            for part, last, end in rest:
                yield share * part, last, end

    def _follow(self, chain: NftChain, at: int, packet: Packet, verdict: str) -> Iterator[Branch]:
        code, _, name = verdict.partition(" ")
        target = self._objects[chain_key(self._table, name)]
        assert isinstance(target, NftChain), f"no chain {name}"
        for share, after, end in self._chain(target, packet):
            if end or code == "goto":
                yield share, after, end
            else:
                for part, last, decided in self._chain(chain, after, at + 1):
                    yield share * part, last, decided

    def _rule(self, statements: tuple[s.NftStatement, ...], packet: Packet) -> Iterator[Branch]:
        if not statements:
            yield WHOLE, packet, ""
            return
        for share, after, verdict in self._statement(statements[0], packet):
            if verdict:
                yield share, after, verdict
            else:
                for part, last, end in self._rule(statements[1:], after):
                    yield share * part, last, end

    def _statement(self, statement: s.NftStatement, packet: Packet) -> Iterator[Branch]:
        match statement:
            case s.Compare():
                yield WHOLE, packet, "" if self._holds(statement, packet) else "break"
            case e.VerdictCode():
                yield WHOLE, packet, str(statement)
            case s.VerdictLookup(key, target):
                for share, value in self._values(key, packet):
                    data = self._looked_up(target, value)
                    yield share, packet, "break" if data is None else str(data)
            case s.Assign(e.Meta("mark"), value):
                ((_, (mark,)),) = self._values(value, packet)
                yield WHOLE, replace(packet, mark=int(mark)), ""
            case s.RejectPacket():
                yield WHOLE, packet, "reject"
            case s.MasqueradeSource():
                yield WHOLE, packet, "masquerade"
            case s.Dnat(e.MapLookup(key, target)):
                choices = [(share, self._looked_up(target, value)) for share, value in self._values(key, packet)]
                if all(data is None for _, data in choices):
                    yield WHOLE, packet, "break"  # the rule is for another number of endpoints
                    return
                for share, data in choices:
                    assert data is not None, f"no endpoint of some numbers: {key}"
                    host, port = data if isinstance(data, tuple) else (str(part) for part in data.parts)
                    yield share, replace(packet, target=host, port=port, translated=True), "dnat"
            case s.Dnat(to, port):
                yield WHOLE, replace(packet, target=str(to), port=str(port), translated=True), "dnat"
            case s.UpdateSet(set=reference):
                assert set_key(self._table, reference.name) in self._objects
                yield WHOLE, packet, ""
            case _:
                raise AssertionError(f"not executed: {statement}")

    def _holds(self, whole: s.Compare, packet: Packet) -> bool:
        ((_, value),) = self._values(whole.left, packet)
        match whole.right:
            case e.SetReference(name):
                known = self._objects[set_key(self._table, name)]
                assert isinstance(known, NamedSet)
                is_equal = value in self._elements.get(name, {})
            case e.AnonymousSet(members):
                is_equal = any(_is_in(value[0], str(member)) for member in members)
            case e.Bits(bits):
                is_equal = int(value[0]) == bits
            case right:
                is_equal = _is_in(value[0], str(right))
        return is_equal is (whole.operator != "!=")

    def _looked_up(self, target: Any, value: tuple[str, ...]) -> Any:
        if isinstance(target, e.SetReference):
            known = self._objects[set_key(self._table, target.name)]
            assert isinstance(known, NamedSet)
            typed = zip(known.key, value, strict=True)
            element = tuple(f"0x{int(part):08x}" if type_ == "mark" else part for type_, part in typed)
            mapped = self._elements.get(target.name, {}).get(element)
            return None if mapped is None else mapped.data
        (number,) = value
        for key, data in target.items:
            first, dash, last = str(key).partition("-")
            if int(first) <= int(number) <= int(last if dash else first):
                return data
        return None

    def _values(self, expression: e.Expression, packet: Packet) -> Iterator[tuple[Fraction, tuple[str, ...]]]:
        match expression:
            case e.Concat(parts):
                shares: list[tuple[Fraction, tuple[str, ...]]] = [(WHOLE, ())]
                for each in parts:
                    more = list(self._values(each, packet))
                    shares = [(share * part, (*value, *new)) for share, value in shares for part, new in more]
                yield from shares
            case e.Numgen("random", modulus, offset):
                for number in range(offset, offset + modulus):
                    yield Fraction(1, modulus), (str(number),)
            case _:
                yield WHOLE, (_value(expression, packet),)


def _value(expression: e.Expression, packet: Packet) -> str:
    match expression:
        case e.Payload(field="saddr"):
            return packet.source
        case e.Payload(field="daddr"):
            return packet.target
        case e.Payload(field="dport"):
            return packet.port
        case e.Meta("l4proto"):
            return packet.protocol
        case e.Meta("mark"):
            return str(packet.mark)
        case e.Meta("iifname"):
            return packet.interface
        case e.Ct("state"):
            return "new"
        case e.Ct("status"):
            return "dnat" if packet.translated else "none"
        case e.Fib((field,), "type"):
            return "local" if (packet.source if field == "saddr" else packet.target) in packet.local else "unicast"
        case e.Bits(bits):
            return str(bits)
        case e.Bitwise(operator, left, right):
            first, second = int(_value(left, packet)), int(_value(right, packet))
            return str({"&": first & second, "|": first | second, "^": first ^ second}[operator])
        case _:
            raise AssertionError(f"not executed: {expression}")


def _is_in(value: str, text: str) -> bool:
    if text.startswith('"'):
        name = text.strip('"')
        return value.startswith(name[:-1]) if name.endswith("*") else value == name
    try:
        address = parse_address(value)
    except ValueError:
        return value == text
    member: Address | Network | tuple[Address, Address] = e.addresses_of(text)
    if isinstance(member, tuple):
        return int(member[0]) <= int(address) <= int(member[1])
    return address == member if isinstance(member, Address) else address in member
