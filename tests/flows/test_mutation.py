"""Every rule is there for a packet: take one away, or turn a condition round, and some packet ends elsewhere.

This measures the flow tests themselves: what a broken compiler could write without any packet ending elsewhere is
listed here, with the reason.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.net import Family, family_of, parse_address, parse_network
from tests.flows.packets import Outcome, Packet, Simulator, agree, outcome
from tests.flows.saved import Rule, Saved, UnknownRuleError
from tests.flows.scenes import NODE_ADDRESSES, POD_NETWORKS, known_connections, packets, simulators
from tests.flows.specification import Site, counted, expected, stays_s
from tests.sizes import sampled
from tests.strategies.services import NODE

HERE = Path(__file__).parent
BOUND = ("198.51.100.8", "203.0.113.11", "203.0.113.31", "2001:db8:7::8", "2001:db8:9::11", "2001:db8:9::31")
LOCAL = frozenset(map(parse_address, (*NODE_ADDRESSES, *BOUND)))
SITES = {
    "pods by network": Site(node=NODE, local=LOCAL, pod_networks=POD_NETWORKS),
    "pods by interface": Site(
        node=NODE,
        local=LOCAL,
        pod_interface="cni0",
        localhost_node_ports=False,
        node_port_networks=(parse_network("192.168.50.0/24"), parse_network("fd00:50::/64")),
    ),
    "masquerade all": Site(
        node=NODE, local=LOCAL, pod_networks=POD_NETWORKS, masquerade_all=True, localhost_node_ports=False
    ),
}
IPV4, IPV6 = Family
BOTH = (IPV4, IPV6)


class Excuse(NamedTuple):
    """Mutants that no packet notices, and why that is well."""

    pattern: str
    reason: str
    sites: tuple[str, ...] = tuple(SITES)
    families: tuple[Family, ...] = BOTH


EXCUSES = (
    Excuse(
        "drop: filter -A OUTPUT .* -j KUBE-FIREWALL$",
        "what leaves for a loopback address comes in again, and meets the same jump in INPUT",
    ),
    Excuse("drop: filter -A INPUT .* -j KUBE-FIREWALL$", "the chain is empty: ::1 needs no guard", families=(IPV6,)),
    Excuse(
        "drop: filter -A INPUT .* -j KUBE-FIREWALL$",
        "the chain is empty: 127.0.0.1 is not opened for node ports",
        sites=("pods by interface", "masquerade all"),
        families=(IPV4,),
    ),
    Excuse('drop: nat -A KUBE-FW-[^ ]+ -m comment --comment "[^"]+"$', "no condition, no target: it only says why"),
    Excuse(
        '(drop|negate -s): nat -A KUBE-SEP-[^ ]+ -m comment --comment "demo/(dns:(tcp|udp|sctp)|agent) to itself" ',
        "all that comes here is marked already: the ClusterIP's and, with the policy Cluster, all external traffic",
        sites=("masquerade all",),
    ),
)


class Mutant(NamedTuple):
    """What was done to which rule."""

    deed: str
    chain: tuple[str, str]
    index: int
    rule: Rule
    mutated: tuple[Rule, ...]

    def __str__(self) -> str:
        return f"{self.deed}: {self.chain[0]} {self.rule.text}"


class Flow(NamedTuple):
    """A packet, on a node that forwards what nobody speaks of or on one that does not, and where it must end.

    Attributes:
        names: Under which it must be counted.
        stays: Whether the client's next packet must go where this one went.
        looked: The chains that it meets: a change of any other is nothing to it.
        words: How a rule would name it.
    """

    forwards: bool
    packet: Packet
    end: Outcome
    names: set[str]
    stays: bool
    looked: frozenset[tuple[str, str]]
    words: tuple[str, ...]


class Watched(dict[tuple[str, str], list[Rule]]):
    """Chains, and which of them were looked at."""

    def __init__(self, chains: Mapping[tuple[str, str], list[Rule]]) -> None:
        super().__init__(chains)
        self.looked: set[tuple[str, str]] = set()

    def get(self, key, default=()):
        self.looked.add(key)
        return super().get(key, default)


@cache
def rich_world() -> ClusterSnapshot:
    world = read_world([Source("rich.yaml", (HERE / "rich.yaml").read_bytes())])
    assert (world.rejected, world.warnings) == ((), ())
    return world


def mutants(saved: Saved) -> Iterator[Mutant]:
    for chain, rules in saved.rules.items():
        for index, rule in enumerate(rules):
            yield Mutant("drop", chain, index, rule, ())
            for at, match in enumerate(rule.matches):
                if match.word in {"--set", "--nfacct-name"}:  # deeds, not conditions
                    continue
                if match.value == Fraction(1, 2):  # the opposite of a half is a half
                    continue
                turned = replace(match, negated=not match.negated)
                matches = (*rule.matches[:at], turned, *rule.matches[at + 1 :])
                yield Mutant(f"negate {match.word}", chain, index, rule, (replace(rule, matches=matches),))


def mutate(saved: Saved, mutant: Mutant) -> Saved:
    rules = saved.rules[mutant.chain]
    changed = [*rules[: mutant.index], *mutant.mutated, *rules[mutant.index + 1 :]]
    return Saved({**saved.rules, mutant.chain: changed}, saved.policies)


def nodes(saved: Saved) -> dict[bool, Simulator]:
    """Return the node that forwards what nobody speaks of, and the one that does not."""
    policies = {True: saved.policies, False: {**saved.policies, ("filter", "FORWARD"): "DROP"}}
    return {forwards: Simulator(Saved(saved.rules, policy), LOCAL) for forwards, policy in policies.items()}


def flows(site: Site, saved: Saved, family: Family) -> list[Flow]:
    """Return all flows in one family, shuffled, so that those which meet a mutant do so early."""
    results = []
    for packet in (*packets(rich_world(), site), *known_connections(site)):
        if family_of(packet.destination) is not family:
            continue
        words = f" {packet.source}/", f" {packet.destination}/", f"--dport {packet.port} "
        names = counted(rich_world(), site, packet)
        stays = stays_s(rich_world(), site, packet) is not None
        for forwards in (True, False):
            watched = Watched(saved.rules)
            end = expected(rich_world(), replace(site, forwards=forwards), packet)
            flow = Flow(forwards, packet, end, names, stays, frozenset(), words)
            assert not is_astray(nodes(Saved(watched, saved.policies)), flow), flow
            results.append(flow._replace(looked=frozenset(watched.looked)))
    random.Random(1).shuffle(results)
    return results


def is_astray(by_policy: Mapping[bool, Simulator], flow: Flow) -> bool:
    """Whether the packet ends elsewhere, is counted wrong, leaves with a mark on it, or nobody can tell."""
    simulator = by_policy[flow.forwards]
    try:
        ways = simulator.ways(flow.packet)
        if not agree(outcome(ways), flow.end):
            return True
        if any(w.packet.counted != flow.names or (w.packet.masqueraded and w.packet.mark) for w in ways):
            return True
        if not flow.stays:
            return False
        again = [(w, simulator.outcome(replace(flow.packet, seen=w.packet.seen))) for w in ways if w.packet.seen]
    except UnknownRuleError:
        return True
    return any(then != {way.disposition: 1} for way, then in again)


def survivors(saved: Saved, tried: Iterable[Flow]) -> Iterator[str]:
    for mutant in mutants(saved):
        by_policy = nodes(mutate(saved, mutant))
        if not any(is_astray(by_policy, flow) for flow in likely_first(mutant, tried)):
            yield str(mutant)


def likely_first(mutant: Mutant, tried: Iterable[Flow]) -> list[Flow]:
    """Return the flows that meet the chain of a mutant, those that its rule names first: it saves time."""
    text = f"{mutant.rule.text} "
    met = [flow for flow in tried if mutant.chain in flow.looked]
    return sorted(met, key=lambda flow: -sum(word in text for word in flow.words))


@pytest.mark.parametrize(("site", "family"), sampled(list(product(SITES, BOTH))))
@pytest.mark.slow
def test_no_rule_can_go_unnoticed(site: str, family: Family):
    saved = simulators(rich_world(), SITES[site], counts=True)[family].saved
    tried = flows(SITES[site], saved, family)
    excuses = [excuse for excuse in EXCUSES if site in excuse.sites and family in excuse.families]
    unnoticed = list(survivors(saved, tried))
    unexcused = [text for text in unnoticed if not any(re.search(e.pattern, text) for e in excuses)]
    assert not unexcused
    idle = [e.pattern for e in excuses if not any(re.search(e.pattern, text) for text in unnoticed)]
    assert not idle, "these excuse nothing"
