"""A Service that asks for the proxy beside a mode: what the mode still writes for it, and what leads to the proxy."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from msgspec import structs

from rulegen.backends.table import BACKENDS, LAYOUTS
from rulegen.compiler.services.compile import Compiled, compile_model, printed
from rulegen.compiler.services.ordering import DeleteConntrackEntries, tasks
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.tables import TABLES
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.language import RestoreRules
from rulegen.languages.listeners.language import ChangeProxy
from rulegen.languages.nftables.state import NftChain, chain_key
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.model.services.stale_flows import Flow
from rulegen.net import Family, Protocol, parse_address
from rulegen.ownership import nftables as names
from tests.kernels.nodekernel import NodeKernel

NAME = "rulegen.io/proxy-mode"
FACTS = HostFacts(interfaces=(Interface("eth0", ((parse_address("192.168.50.10"), 24),)),))
MODES = [mode for mode, backend in BACKENDS.items() if not backend.needs.has_proxy]
CLUSTER_IP, VIP = "10.96.0.9", "203.0.113.10"


def compiled(
    mode: str,
    asked: str | None = "userspace",
    protocol: str = "TCP",
    facts: HostFacts = FACTS,
    others: tuple[tuple[str, str, str | None], ...] = (),
    **fields,
) -> Compiled:
    """Return the objects for Service `web`, and for others: name, ClusterIP, and the mode that each asks for."""
    services = {
        ObjectName("demo", name): service(name, address, asking, protocol, **fields)
        for name, address, asking in (("web", CLUSTER_IP, asked), *others)
    }
    world = ClusterSnapshot(services=services)
    return compile_model(resolve(world, Options(mode=mode, node_name="node1"), facts), mode, counts=False)


def service(name: str, address: str, asked: str | None, protocol: str, **fields) -> ServiceInput:
    is_first = address == CLUSTER_IP
    ingress = (k.LoadBalancerIngress(ip=VIP),) if is_first else ()
    return ServiceInput(
        service=k.Service(
            metadata=k.ObjectMeta(name=name, namespace="demo", annotations={NAME: asked} if asked else {}),
            spec=k.ServiceSpec(
                type="LoadBalancer" if is_first else "ClusterIP",
                cluster_ip=address,
                ip_families=("IPv4",),
                ports=(k.ServicePort(name="p", port=80, node_port=30080 * is_first, protocol=protocol),),
                **fields,
            ),
            status=k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress)),
        ),
        slices=(
            k.EndpointSlice(
                metadata=k.ObjectMeta(name=f"{name}-1", namespace="demo", labels={"kubernetes.io/service-name": name}),
                address_type="IPv4",
                endpoints=(k.SliceEndpoint(addresses=("10.244.2.1",), node_name="node1"),),
                ports=(k.SlicePort(name="p", port=8080, protocol=protocol),),
            ),
        ),
    )


def led(wanted: Compiled) -> list[str]:
    """Return which frontends the proxy knows."""
    return sorted(key.name for key in wanted.objects("listeners") if key.kind.name == "FRONTEND")


def texts(wanted: Compiled) -> list[str]:
    return [repr(each) for each in printed(wanted)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("asked", [None, "iptables", "Userspace"])
def test_a_service_that_does_not_ask_changes_nothing(mode, asked):
    wanted = compiled(mode, asked)
    assert texts(wanted) == texts(compiled(mode, None))
    assert wanted.requested == frozenset()
    warnings = [text for text in wanted.model.warnings if NAME in text]
    assert [text.partition(":")[0] for text in warnings] == ["Service demo/web"] * (asked is not None)
    assert all(text.endswith("the mode of the node serves it") for text in warnings)


def test_a_host_without_the_proxy_serves_it_in_its_mode():
    wanted = compiled("nftables", facts=replace(FACTS, has_proxy=False))
    assert texts(wanted) == texts(compiled("nftables", None))
    assert any(f'["{NAME}"]: haproxy or iptables is not installed' in text for text in wanted.model.warnings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_the_proxy_gets_all_that_leads_to_the_cluster_pool(mode, protocol):
    wanted = compiled(mode, protocol=protocol)
    assert led(wanted) == ["*:30080", f"{CLUSTER_IP}:80", f"{VIP}:80"]
    assert wanted.requested >= {"listeners", "routes"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fields", "frontends"),
    [
        ({"external_traffic_policy": "Local"}, [f"{CLUSTER_IP}:80"]),
        ({"internal_traffic_policy": "Local"}, ["*:30080", f"{VIP}:80"]),
        ({"load_balancer_source_ranges": ("198.51.100.0/24",)}, ["*:30080", f"{CLUSTER_IP}:80"]),
        ({"protocol": "SCTP"}, []),
    ],
)
def test_what_the_kernel_decides_stays_with_the_mode(mode, fields, frontends):
    assert led(compiled(mode, **fields)) == frontends


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nftables_lets_packets_for_the_proxy_pass(layout):
    tables = TABLES.with_layout(layout)
    model = compiled("nftables").model
    union = compile_model(model, "nftables", counts=False, tables=tables).unions[Family.IPV4]["nftables"].objects()
    plain = compile_model(compiled("nftables", None).model, "nftables", counts=False, tables=tables)
    before = plain.unions[Family.IPV4]["nftables"].objects()
    table = names.LAYOUTS[layout].table
    for name in (names.SERVICES, names.CLUSTER_IPS_CHECK):
        chain, plain_chain = union[chain_key(table, name)], before[chain_key(table, name)]
        assert isinstance(chain, NftChain)
        assert isinstance(plain_chain, NftChain)
        assert chain.rules[1:] == plain_chain.rules
    changed = {key for key in union.keys() | before.keys() if union.get(key) != before.get(key)}
    assert len(changed) == 2, "the Service itself stays as it is"


def test_ipvs_serves_only_what_it_cannot_take_from_the_proxy():
    of = {protocol: compiled("ipvs", protocol=protocol).objects("ipvs") for protocol in ("TCP", "UDP")}
    assert of["TCP"] == compiled("ipvs", None).objects("ipvs")
    assert of["UDP"] == {}


PLAIN, BESIDE = (("iptables", None), ("nftables", None)), (("iptables", "userspace"), ("nftables", "userspace"))
ALONE = ("userspace", None)
STAYS, COMES = ("api", "10.96.0.8", "userspace"), ("new", "10.96.0.7", "userspace")
MOVES = [pair for pair in permutations((*PLAIN, *BESIDE, ALONE), 2) if not set(pair) <= set(PLAIN)]


def gets_mark(node: NodeKernel) -> bool:
    """Whether a datagram to the Service is marked for the proxy."""
    mangle = node.kernels[Family.IPV4].tables["mangle"]
    is_led = any(rule.endswith("-j KUBE-PORTALS-CONTAINER") for rule in mangle["PREROUTING"])
    return is_led and any(CLUSTER_IP in rule and "TPROXY" in rule for rule in mangle["KUBE-PORTALS-CONTAINER"])


def translators(node: NodeKernel) -> dict[str, bool]:
    """Return what translates a datagram to the Service, each with whether it does so if the datagram has a mark."""
    nat = node.kernels[Family.IPV4].tables["nat"]
    leads = any(CLUSTER_IP in rule and "-j KUBE-SVC-" in rule for rule in nat.get("KUBE-SERVICES", ()))
    jumps = [rule for rule in nat["PREROUTING"] if rule.endswith("-j KUBE-SERVICES")] if leads else []
    passing = "meta mark & 0x00002000 != 0x00000000 return"
    return {jump: "! --mark 0x2000/0x2000" not in jump for jump in jumps} | {
        f"nftables {key.table}": passing not in map(str, chain.rules)
        for key, chain in node.tables[Family.IPV4].items()
        if key.name == names.SERVICES and isinstance(chain, NftChain)
    }


@pytest.mark.parametrize(("before", "after"), MOVES, ids=lambda move: "-".join(filter(None, move)))
def test_a_packet_with_a_mark_is_never_translated_during_a_move(before, after):
    node = NodeKernel()
    node.write(plan_node(compiled(*before, protocol="UDP"), node.observed(Family.IPV4), FACTS))
    wanted = compiled(*after, protocol="UDP")
    for piece in node.pieces(plan_node(wanted, node.observed(Family.IPV4), FACTS)):
        piece()
        translates = translators(node)
        assert not any(translates.values()) if gets_mark(node) else translates
    assert plan_node(wanted, node.observed(Family.IPV4), FACTS).is_empty


def test_ipvs_serves_a_service_before_it_leaves_the_proxy_whatever_else_changes():
    node = NodeKernel()
    for asked, others in (("userspace", (STAYS,)), (None, (STAYS, COMES))):
        plan = plan_node(compiled("ipvs", asked, "UDP", others=others), node.observed(Family.IPV4), FACTS)
        was_marked = gets_mark(node)
        for piece in node.pieces(plan):
            piece()
            is_bound = any(str(key.address) == CLUSTER_IP for key in node.addresses)
            serves = is_bound and any(str(key.frontend.address) == CLUSTER_IP for key in node.servers)
            assert gets_mark(node) or serves or not was_marked
    assert not gets_mark(node)


@pytest.mark.parametrize("mode", MODES)
def test_datagrams_leave_the_proxy_before_it_goes_and_what_it_answered_last_is_forgotten(mode):
    client, service = parse_address("10.244.1.9"), parse_address(CLUSTER_IP)
    flow = Flow(
        protocol=Protocol.UDP,
        orig_src=client,
        orig_sport=5353,
        orig_dst=service,
        orig_dport=80,
        reply_src=service,
        reply_sport=80,
        reply_dst=client,
        reply_dport=5353,
    )
    node, served = NodeKernel(), compiled(mode, protocol="UDP")
    node.write(plan_node(served, node.observed(Family.IPV4), FACTS))
    there = structs.replace(node.observed(Family.IPV4), flows=(flow,))
    there = structs.replace(there, states={**there.states, ("listeners", None): served.objects("listeners")})
    works = [task.work for task in tasks(plan_node(compiled(mode, None, "UDP"), there, FACTS))]
    last = [type(work) for work in works if isinstance(work, DeleteConntrackEntries | ChangeProxy)]
    assert last == [DeleteConntrackEntries, ChangeProxy, DeleteConntrackEntries]
    removes = [isinstance(work, RestoreRules) and "-X KUBE-PORTALS-ESTABLISHED" in work.text for work in works]
    assert removes.index(True) > [type(work) for work in works].index(ChangeProxy), (
        "open connections need it until then"
    )
