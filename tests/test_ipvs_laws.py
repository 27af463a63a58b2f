"""The laws in ipvs mode, and between modes: random worlds, and a node's kernel in memory that really executes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.plan import plan_cleanup, plan_node
from rulegen.compiler.tables import TABLES
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.addresses.state import BOUND, AddressKey
from rulegen.languages.ipset.script import TEMPORARY
from rulegen.languages.ipset.state import SetValue
from rulegen.languages.iptables.ruleset import read_rule, target
from rulegen.languages.ipvs.state import (
    Forwarding,
    Frontend,
    RealServer,
    RealServerKey,
    VirtualServer,
    VirtualServerKey,
)
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, Protocol, parse_address, parse_network
from rulegen.ownership import ipsets, nftables
from rulegen.ownership.virtual_servers import DEVICE
from tests.backends.nftables.nft_packets import NftPackets, Packet
from tests.kernels.nodekernel import NodeKernel
from tests.sizes import examples
from tests.strategies.services import NODE, worlds

NODE_ADDRESS = parse_address("192.168.50.10")
FACTS = HostFacts(
    interfaces=(
        Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128))),
        Interface("eth0", ((NODE_ADDRESS, 24), (parse_address("fd00:50::10"), 64))),
    )
)
CIDRS = (parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56"))
FOREIGN = {
    VirtualServerKey(Frontend.of(Protocol.TCP, parse_address("192.0.2.200"), 80)): VirtualServer("wlc"),
    RealServerKey(
        Frontend.of(Protocol.TCP, parse_address("192.0.2.200"), 80), parse_address("192.0.2.201"), 80
    ): RealServer(forwarding=Forwarding.ROUTE),
    VirtualServerKey(Frontend.of(Protocol.TCP, NODE_ADDRESS, 8443)): VirtualServer("rr"),
}
"""Virtual servers of others: one on an address of this very node."""
FOREIGN_SET = ("cali40", (SetValue("hash:net", "inet"), {"10.0.0.0/8": ""}))

quick = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
ways = st.sampled_from((("ipvs", False), ("ipvs", False), ("ipvs", True), ("iptables", False), ("nftables", False)))
"""Modes, and whether with strict semantics."""


def compiled(world: ClusterSnapshot, way: tuple[str, bool] = ("ipvs", False)) -> Compiled:
    mode, is_strict = way
    semantics = Semantics.STRICT if is_strict else Semantics.KUBE_PROXY
    options = Options(mode=mode, node_name=NODE, cluster_cidrs=CIDRS, ipvs_semantics=semantics)
    return compile_model(resolve(world, options, FACTS), mode, counts=False, tables=TABLES.with_layout("flat"))


def shared_kernel() -> NodeKernel:
    node = NodeKernel()
    node.servers.update(FOREIGN)
    name, held = FOREIGN_SET
    node.sets[name] = (held[0], dict(held[1]))
    for kernel in node.kernels.values():
        kernel.tables["nat"]["POSTROUTING"].append("-m set --match-set cali40 src -j MASQUERADE")
    return node


def is_foreign_whole(node: NodeKernel) -> bool:
    name, held = FOREIGN_SET
    return FOREIGN.items() <= node.servers.items() and node.sets.get(name) == held


def apply(node: NodeKernel, wants: Compiled, chunk: int | None = None) -> None:
    node.write(plan_node(wants, node.observed(), FACTS), chains_per_commit=chunk)


def surplus(node: NodeKernel, wants: Compiled) -> list[str]:
    """Return what a plan still holds."""
    return [f"{item.action} {item.name}" for item in plan_node(wants, node.observed(), FACTS).items]


@quick
@given(worlds(), ways, worlds(), ways, st.sampled_from((None, 3)))
def test_apply_then_plan_is_empty_from_any_world_and_mode(before, way, after, other, chunk):
    node = shared_kernel()
    apply(node, compiled(before, way), chunk)
    assert surplus(node, compiled(before, way)) == []
    apply(node, compiled(after, other), chunk)
    assert surplus(node, compiled(after, other)) == []
    assert is_foreign_whole(node)


@quick
@given(worlds(), ways, worlds(), ways, st.integers(0, 2**32), st.data())
def test_apply_completes_interrupted_and_repairs_damaged(before, way, after, other, seed, data):
    node = shared_kernel()
    apply(node, compiled(before, way))
    pieces = list(node.pieces(plan_node(compiled(after, other), node.observed(), FACTS)))
    for piece in pieces[: data.draw(st.integers(0, len(pieces)))]:
        piece()
    damage(node, random.Random(seed))
    apply(node, compiled(after, other))
    assert surplus(node, compiled(after, other)) == []
    assert is_foreign_whole(node)


def damage(node: NodeKernel, chance: random.Random) -> None:
    """Edit by hand: take objects of each sort away, change some, put others in our places."""
    ours = [key for key in node.servers if key not in FOREIGN]
    if ours and chance.random() < 0.7:
        key = chance.choice(ours)
        match chance.randrange(3):
            case 0 if isinstance(key, RealServerKey):
                del node.servers[key]
            case 1 if isinstance(key, RealServerKey):
                node.servers[key] = RealServer(7, Forwarding.ROUTE)
            case 2:
                node.servers[VirtualServerKey(key.frontend)] = VirtualServer("lc", 60)
    filled = [name for name, (_, entries) in node.sets.items() if name.startswith("KUBE-") and entries]
    if chance.random() < 0.2:
        node.sets[TEMPORARY] = (SetValue(chance.choice(("hash:ip", "hash:ip,port")), "inet6"), {"fd00::1": ""})
    for name in filled:
        value, entries = node.sets[name]
        match chance.randrange(6):
            case 0:
                entries.pop(chance.choice(sorted(entries)))
            case 1 if value.type == "bitmap:port":
                entries["31999"] = ""
            case 2:
                node.sets[name] = (SetValue(value.type, value.family, value.range, frozenset({"comment"})), entries)
            case 3 if chance.random() < 0.3:
                node.sets[name] = (SetValue("hash:mac"), {})
            case 4 if value.is_hash:
                node.sets[name] = (replace(value, maxelem=max(len(entries), 1)), entries)
    for objects in node.tables.values():
        for entry in [entry for entry in objects if entry.is_element and chance.random() < 0.15]:
            del objects[entry]
    for key in sorted(node.addresses):
        if chance.random() < 0.2:
            del node.addresses[key]
    if DEVICE in node.devices and chance.random() < 0.3:
        node.addresses[AddressKey.whole(DEVICE, parse_address("203.0.113.250"))] = BOUND
    for kernel in node.kernels.values():
        for chains in kernel.tables.values():
            for chain, rules in chains.items():
                if chain.startswith("KUBE-") and rules and chance.random() < 0.15:
                    rules.pop(chance.randrange(len(rules)))


@quick
@given(worlds(), ways, worlds(), ways)
def test_connections_work_after_every_piece(before, way, after, other):
    node = shared_kernel()
    apply(node, compiled(before, way))
    old, goal = delivered(node), NodeKernel()
    apply(goal, compiled(after, other))
    new = delivered(goal)
    right = set().union(*new.values()) if new else set()
    for number, piece in enumerate(node.pieces(plan_node(compiled(after, other), node.observed(), FACTS))):
        piece()
        now = delivered(node)
        for frontend in old.keys() & new.keys():
            assert now.get(frontend), f"{frontend} leads nowhere after piece {number}: {piece}"
            assert now[frontend] <= old[frontend] | right


def delivered(node: NodeKernel) -> dict[tuple[str, str, int], set[str]]:
    """Return by address, protocol and port where new connections from outside can end, IPv4."""
    nat = node.kernels[Family.IPV4].tables["nat"]
    endpoints = _by_nftables(node)
    if not any("KUBE-SERVICES" in rule for rule in nat["PREROUTING"]):
        return endpoints
    bound = {str(key.address) for key in node.addresses} | {str(NODE_ADDRESS)}
    for key, value in node.servers.items():
        if isinstance(key, RealServerKey) and key not in FOREIGN and isinstance(value, RealServer) and value.weight:
            frontend = key.frontend
            if frontend.family is Family.IPV4 and str(frontend.address) in bound:
                where = str(frontend.address), frontend.protocol.lower(), frontend.port
                if not _is_refused(node, frontend):
                    endpoints.setdefault(where, set()).add(f"{key.address}:{key.port}")
    for rule in nat.get("KUBE-SERVICES", ()):
        parsed = read_rule(rule)
        if "--dport" in parsed.spec:  # iptables mode: nat comes before IPVS
            ends = set(_ends(nat, target(parsed)))
            endpoints[parsed.spec.split("/")[0][3:], parsed.spec.split(" -p ")[1].split()[0], _port(parsed.spec)] = ends
    for rule in nat.get("KUBE-NODEPORTS", ()):
        parsed = read_rule(rule)
        if any("KUBE-NODEPORTS" in jump for jump in nat.get("KUBE-SERVICES", ())):
            protocol = parsed.spec.split("-p ")[1].split()[0]
            endpoints[str(NODE_ADDRESS), protocol, _port(parsed.spec)] = set(_ends(nat, target(parsed)))
    return {frontend: ends for frontend, ends in endpoints.items() if ends}


def _by_nftables(node: NodeKernel) -> dict[tuple[str, str, int], set[str]]:
    """Return where the table of layout flat leads connections; it translates them before IPVS sees them."""
    objects = node.tables[Family.IPV4]
    if not objects:
        return {}
    packets, local = NftPackets(objects), frozenset({str(NODE_ADDRESS)})
    frontends = {key.element for key in objects if key.is_element and key.name in nftables.FLAT.service_ips}
    ports = {key.element for key in objects if key.is_element and key.name == nftables.SERVICE_NODE_PORTS}
    endpoints = {}
    for address, protocol, port in (*frontends, *((str(NODE_ADDRESS), *each) for each in ports)):
        ends = packets.outcomes(Packet("192.0.2.77", address, protocol, port, local))
        reached = {end.removesuffix(" masqueraded") for end in ends if end not in {"drop", "reject", "passed"}}
        if reached:
            endpoints[address, protocol, int(port)] = reached
    return endpoints


def _is_refused(node: NodeKernel, frontend: Frontend) -> bool:
    """Whether KUBE-IPVS-FILTER refuses new connections to a frontend."""
    rules = node.kernels[Family.IPV4].tables["filter"]
    if not any("KUBE-IPVS-FILTER" in rule for rule in rules["INPUT"]):
        return False
    entry = f"{frontend.address},{frontend.protocol.lower()}:{frontend.port}"
    for rule in rules.get("KUBE-IPVS-FILTER", ()):
        name = rule.partition("--match-set ")[2].split(" ")[0]
        entries = node.sets[name][1]
        looked_up = str(frontend.address) if name == ipsets.IPVS_IPS else entry
        if looked_up in entries or (name == ipsets.HEALTH_CHECK_NODE_PORT and str(frontend.port) in entries):
            return "REJECT" in rule
    return False


def _port(spec: str) -> int:
    return int(spec.split("--dport ")[1].split(maxsplit=1)[0])


def _ends(nat: dict[str, list[str]], chain: str) -> Iterator[str]:
    for rule in nat.get(chain, ()):
        parsed = read_rule(rule)
        if target(parsed) == "DNAT":
            yield parsed.spec.rpartition(" ")[2]
        elif target(parsed) in nat:
            yield from _ends(nat, target(parsed))


@quick
@given(worlds(), ways)
def test_cleanup_leaves_nothing_of_ours_and_all_of_others(world, way):
    node = shared_kernel()
    clean = node.dump()
    apply(node, compiled(world, way))
    for mode in (way[0], "ipvs"):
        own = set(FACTS.addresses(Family.IPV4)) | set(FACTS.addresses(Family.IPV6))
        node.write(plan_cleanup(mode, node.observed(), own))
    assert node.dump() == clean


@quick
@given(worlds(), worlds(), st.data())
def test_real_servers_with_connections_end_them_first(before, after, data):
    node = shared_kernel()
    apply(node, compiled(before))
    servers = [key for key in node.servers if isinstance(key, RealServerKey) and key not in FOREIGN]
    node.connections = {key: data.draw(st.sampled_from((0, 3)), label=str(key)) for key in servers}
    wants = compiled(after)
    apply(node, wants)
    assert surplus(node, wants) == []
    desired = wants.objects("ipvs")
    for key in servers:
        stays = (
            key.frontend.protocol is Protocol.TCP
            and node.connections[key] > 0
            and VirtualServerKey(key.frontend) in desired
        )
        if key not in desired:
            assert (key in node.servers) == stays
            assert not stays or node.servers[key] == RealServer(0)
    node.connections = dict.fromkeys(servers, 0)
    apply(node, wants)
    assert {key: value for key, value in node.servers.items() if key not in FOREIGN} == desired
    assert plan_node(wants, node.observed(), FACTS).draining == ()
