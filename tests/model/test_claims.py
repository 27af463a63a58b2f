"""If two Services claim the same address and port, the older one keeps it, and a warning names both."""

from __future__ import annotations

import dataclasses

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.conflicts import Claims
from rulegen.model.services.document import model_document
from rulegen.model.services.ir import Semantics
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import parse_address, parse_network

OPTIONS = Options(node_name="node1")


def service(name, *, ip, created, external=(), node_port=0, port=80):
    spec = k.ServiceSpec(
        type="NodePort",
        cluster_ip=ip,
        ports=(k.ServicePort(name="http", port=port, node_port=node_port),),
        external_ips=external,
    )
    metadata = k.ObjectMeta(name=name, namespace="shop", creation_timestamp=created)
    return ObjectName("shop", name), ServiceInput(service=k.Service(metadata=metadata, spec=spec))


def model(*services):
    return resolve(ClusterSnapshot(services=dict(services)), OPTIONS, HostFacts())


def frontends(model, name):
    port = model.services[ObjectName("shop", name)].ports[0]
    return str(port.cluster_ip), [str(a) for a in port.external_ips], port.node_port


def test_the_older_service_keeps_what_both_claim():
    old = service("zeta", ip="10.96.0.1", created="2026-01-01T00:00:00Z", external=("203.0.113.1",), node_port=30080)
    new = service(
        "alpha",
        ip="10.96.0.2",
        created="2026-02-01T00:00:00Z",
        external=("203.0.113.1", "203.0.113.2"),
        node_port=30080,
    )
    decisions = model(old, new)
    assert frontends(decisions, "zeta") == ("10.96.0.1", ["203.0.113.1"], 30080)
    assert frontends(decisions, "alpha") == ("10.96.0.2", ["203.0.113.2"], 0)
    warnings = [warning for warning in decisions.warnings if "claimed" in warning]
    assert len(warnings) == 2
    assert all("shop/alpha" in warning and "shop/zeta" in warning for warning in warnings)


def test_without_age_is_youngest_and_names_decide_between_equals():
    decisions = model(
        service("b", ip="10.96.0.1", created=None),
        service("a", ip="10.96.0.1", created=None),
        service("c", ip="10.96.0.1", created="2026-01-01T00:00:00Z"),
    )
    assert [frontends(decisions, name)[0] for name in "abc"] == ["None", "None", "10.96.0.1"]


def test_another_port_or_protocol_is_no_conflict():
    decisions = model(
        service("a", ip="10.96.0.1", created=None, external=("203.0.113.1",), port=80),
        service("b", ip="10.96.0.2", created=None, external=("203.0.113.1",), port=81),
    )
    assert not [warning for warning in decisions.warnings if "claimed" in warning]


def test_both_keep_their_claims_if_configured_with_a_warning():
    services = dict([service("a", ip="10.96.0.1", created=None), service("b", ip="10.96.0.1", created=None)])
    decisions = resolve(
        ClusterSnapshot(services=services), Options(node_name="node1", oldest_claim_wins=False), HostFacts()
    )
    assert [frontends(decisions, name)[0] for name in "ab"] == ["10.96.0.1", "10.96.0.1"]
    assert [warning for warning in decisions.warnings if "claimed" in warning]


def balanced(name, *, at, created, health, node_port, protocol="TCP", dual=False):
    """A load balancer Service with externalTrafficPolicy Local, which has a health check port."""
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip=f"10.96.0.{at}",
        cluster_ips=(f"10.96.0.{at}", f"fd00:10:96::{at}") if dual else (f"10.96.0.{at}",),
        ip_families=("IPv4", "IPv6") if dual else ("IPv4",),
        ports=(k.ServicePort(name="game", port=80, node_port=node_port, protocol=protocol),),
        external_traffic_policy="Local",
        health_check_node_port=health,
    )
    metadata = k.ObjectMeta(name=name, namespace="shop", creation_timestamp=created)
    slice_ = k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"{name}-1", namespace="shop", labels={"kubernetes.io/service-name": name}),
        address_type="IPv4",
        endpoints=(k.SliceEndpoint(addresses=(f"10.244.1.{at}",), node_name="node1"),),
        ports=(k.SlicePort(name="game", port=8080, protocol=protocol),),
    )
    return ObjectName("shop", name), ServiceInput(service=k.Service(metadata=metadata, spec=spec), slices=(slice_,))


OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
HEALTH_CONFLICTS = [
    # case                               old: health, node port  new: health, node port  kept by the old, by the new
    ("health on an older node port", (30901, 30500), (30500, 30501), (30901, 30500), (0, 30501)),
    ("node port on an older health port", (30500, 30501), (30902, 30500), (30500, 30501), (30902, 0)),
    ("health on an older health port", (30500, 30501), (30500, 30502), (30500, 30501), (0, 30502)),
    ("all three", (30500, 30501), (30500, 30500), (30500, 30501), (0, 0)),
    ("nothing", (30901, 30500), (30902, 30501), (30901, 30500), (30902, 30501)),
]


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(("old", "new", "kept_by_old", "kept_by_new"), [c[1:] for c in HEALTH_CONFLICTS])
def test_a_health_check_port_is_claimed_as_a_node_port_is(mode, old, new, kept_by_old, kept_by_new):
    services = dict(
        [
            balanced("zeta", at=1, created=OLD, health=old[0], node_port=old[1]),
            balanced("alpha", at=2, created=NEW, health=new[0], node_port=new[1]),
        ]
    )
    decisions = resolve(ClusterSnapshot(services=services), Options(node_name="node1", mode=mode), HostFacts())
    for name, kept in (("zeta", kept_by_old), ("alpha", kept_by_new)):
        port = decisions.services[ObjectName("shop", name)].ports[0]
        assert (port.health_check_node_port, port.node_port) == kept
    warnings = [warning for warning in decisions.warnings if "claimed" in warning]
    assert len(warnings) == sum(before != after for before, after in zip(new, kept_by_new, strict=True))
    assert all("shop/alpha" in warning and "shop/zeta" in warning for warning in warnings)
    assert all(("healthCheckNodePort" in warning) for warning in warnings)


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_a_health_check_gives_way_to_its_services_own_node_port(mode):
    services = dict([balanced("web", at=1, created=OLD, health=30500, node_port=30500, dual=True)])
    decisions = resolve(ClusterSnapshot(services=services), Options(node_name="node1", mode=mode), HostFacts())
    for port in decisions.services[ObjectName("shop", "web")].ports:
        assert (port.health_check_node_port, port.node_port) == (0, 30500)
    assert [w for w in decisions.warnings if "shop/web" in w and "30500/TCP" in w and "its own node port" in w]


def test_a_health_check_is_no_conflict_with_a_node_port_of_udp():
    services = dict([balanced("web", at=1, created=OLD, health=30500, node_port=30500, protocol="UDP")])
    decisions = resolve(ClusterSnapshot(services=services), OPTIONS, HostFacts())
    port = decisions.services[ObjectName("shop", "web")].ports[0]
    assert (port.health_check_node_port, port.node_port) == (30500, 30500)
    assert not [warning for warning in decisions.warnings if "30500" in warning]


def test_all_keep_their_health_check_ports_if_configured():
    services = dict(
        [
            balanced("a", at=1, created=OLD, health=30500, node_port=30500),
            balanced("b", at=2, created=NEW, health=30500, node_port=30501),
        ]
    )
    decisions = resolve(
        ClusterSnapshot(services=services), Options(node_name="node1", oldest_claim_wins=False), HostFacts()
    )
    assert [decisions.services[ObjectName("shop", name)].ports[0].health_check_node_port for name in "ab"] == [
        30500
    ] * 2
    assert sum("30500/TCP" in warning for warning in decisions.warnings) == 2


def test_a_health_check_returns_when_the_older_service_goes():
    claims = Claims()
    services = dict(
        [
            balanced("zeta", at=1, created=OLD, health=30900, node_port=30500),
            balanced("alpha", at=2, created=NEW, health=30500, node_port=30501),
        ]
    )
    decided = resolve(
        ClusterSnapshot(services=services), Options(node_name="node1", oldest_claim_wins=False), HostFacts()
    )
    zeta, alpha = ObjectName("shop", "zeta"), ObjectName("shop", "alpha")
    claims.put(alpha, decided.services[alpha], NEW)
    assert claims.put(zeta, decided.services[zeta], OLD) == {alpha}
    assert claims.settled(alpha, [].append).ports[0].health_check_node_port == 0
    assert claims.put(zeta, None) == {alpha}
    assert claims.settled(alpha, [].append).ports[0].health_check_node_port == 30500


NODE, NODE6 = "192.168.50.10", "fd00:50::10"
FACTS = HostFacts(
    interfaces=(
        Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128))),
        Interface("eth0", ((parse_address(NODE), 24), (parse_address(NODE6), 64))),
    ),
    root_ports=frozenset({("TCP", 10250), ("TCP", 443), ("UDP", 53)}),
)


def exposed(name, *, at, created, port=80, protocol="TCP", external=(), vips=(), node_port=0, health=0):
    """A Service of both families with external addresses."""
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip=f"10.96.0.{at}",
        cluster_ips=(f"10.96.0.{at}", f"fd00:10:96::{at}"),
        ip_families=("IPv4", "IPv6"),
        ports=(k.ServicePort(name="http", port=port, node_port=node_port, protocol=protocol),),
        external_ips=external,
        external_traffic_policy="Local" if health else "Cluster",
        health_check_node_port=health,
    )
    ingress = tuple(k.LoadBalancerIngress(ip=vip) for vip in vips)
    status = k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress))
    metadata = k.ObjectMeta(name=name, namespace="shop", creation_timestamp=created)
    return ObjectName("shop", name), ServiceInput(service=k.Service(metadata=metadata, spec=spec, status=status))


def decided(*services, mode="iptables", semantics="strict", facts=FACTS, **fields):
    chosen = Options(node_name="node1", mode=mode, external_ip_semantics=Semantics(semantics), **fields)
    return resolve(ClusterSnapshot(services=dict(services)), chosen, facts)


def external(model, name):
    return {str(a) for p in model.services[ObjectName("shop", name)].ports for a in p.load_balancer_ips}


def naming(model, *words):
    return [warning for warning in model.warnings if all(word in warning for word in words)]


BOTH = pytest.mark.parametrize("mode", ["iptables", "ipvs"])
MEETINGS = [
    # what the node's address meets        protocol, port of the younger, how the older has it
    ("a node port", "TCP", 30080, {"node_port": 30080}),
    ("a node port of UDP", "UDP", 30053, {"node_port": 30053, "protocol": "UDP"}),
    ("a health check", "TCP", 30900, {"node_port": 30080, "health": 30900}),
]


@BOTH
@pytest.mark.parametrize(("protocol", "port", "older"), [case[1:] for case in MEETINGS])
def test_an_older_node_port_keeps_the_nodes_addresses_if_strict(mode, protocol, port, older):
    old = exposed("old", at=1, created=OLD, **older)
    new = exposed("new", at=2, created=NEW, port=port, protocol=protocol, vips=(NODE, NODE6, "203.0.113.1"))
    strict, like = (decided(old, new, mode=mode, semantics=each) for each in ("strict", "kube-proxy"))
    assert external(strict, "new") == {"203.0.113.1"}
    assert external(like, "new") == {"203.0.113.1", NODE, NODE6}
    for decisions, then in ((strict, "the older Service keeps it"), (like, "shop/new may get its connections")):
        for address in (NODE, NODE6):
            (warning,) = naming(decisions, "shop/old", "shop/new", f"{address} port {port}/{protocol}")
            assert then in warning
    assert strict.services[ObjectName("shop", "old")] == like.services[ObjectName("shop", "old")]


@BOTH
def test_a_younger_node_port_leaves_an_older_external_address(mode):
    old = exposed("old", at=1, created=OLD, port=30080, vips=(NODE,))
    new = exposed("new", at=2, created=NEW, node_port=30080)
    strict, like = (decided(old, new, mode=mode, semantics=each) for each in ("strict", "kube-proxy"))
    for decisions, but in ((strict, {parse_address(NODE)}), (like, set())):
        assert external(decisions, "old") == {NODE}
        excepted = [port.node_port_except for port in decisions.services[ObjectName("shop", "new")].ports]
        assert excepted == [but, set()]
        written = next(each for each in model_document(decisions)["services"] if each["name"] == "shop/new")
        assert [port["node_port_except"] for port in written["ports"]] == [[*map(str, but)], []]
        assert all(port.node_port == 30080 for port in decisions.services[ObjectName("shop", "new")].ports)
        assert len(naming(decisions, "shop/old", "shop/new", NODE)) == 1


@BOTH
@pytest.mark.parametrize(
    ("vip", "port", "protocol"),
    [
        (NODE, 30080, "UDP"),
        (NODE, 30081, "TCP"),
        ("203.0.113.1", 30080, "TCP"),
    ],
)
def test_another_port_protocol_or_address_is_no_conflict(mode, vip, port, protocol):
    old = exposed("old", at=1, created=OLD, node_port=30080)
    new = exposed("new", at=2, created=NEW, port=port, protocol=protocol, vips=(vip,))
    decisions = decided(old, new, mode=mode)
    assert external(decisions, "new") == {vip}
    assert not naming(decisions, "shop/new", "shop/old")


@BOTH
def test_no_conflict_on_an_address_without_node_ports(mode):
    old = exposed("old", at=1, created=OLD, node_port=30080)
    new = exposed("new", at=2, created=NEW, port=30080, vips=(NODE,))
    decisions = decided(old, new, mode=mode, node_port_networks=(parse_network("10.0.0.0/8"),))
    assert external(decisions, "new") == {NODE}
    assert not naming(decisions, "shop/new", "shop/old")


@BOTH
@pytest.mark.parametrize(
    ("port", "protocol", "who"),
    [(10250, "TCP", "the kubelet"), (443, "TCP", "a program"), (53, "UDP", "a program")],
)
def test_programs_keep_their_ports_if_strict(mode, port, protocol, who):
    new = exposed("new", at=2, created=NEW, port=port, protocol=protocol, vips=(NODE, NODE6, "203.0.113.1"))
    strict, like = (decided(new, mode=mode, semantics=each) for each in ("strict", "kube-proxy"))
    assert external(strict, "new") == {"203.0.113.1"}
    assert external(like, "new") == {"203.0.113.1", NODE, NODE6}
    for decisions in (strict, like):
        assert len(naming(decisions, "shop/new", f"port {port}/{protocol}", f"{who} of this node listens there")) == 2


def test_our_own_health_check_is_no_program_of_the_node():
    facts = dataclasses.replace(FACTS, root_ports=frozenset({("TCP", 30900)}))
    old = exposed("old", at=1, created=OLD, port=30900, vips=(NODE,))
    new = exposed("new", at=2, created=NEW, node_port=30080, health=30900)
    decisions = decided(old, new, facts=facts)
    assert external(decisions, "old") == {NODE}
    assert not naming(decisions, "listens")


def test_a_cluster_ip_is_kept_although_a_program_listens_on_it():
    """NodeLocal DNSCache has the ClusterIP of DNS on its own interface and listens on it."""
    cache = Interface("nodelocaldns", ((parse_address("10.96.0.1"), 32),))
    facts = dataclasses.replace(FACTS, interfaces=(*FACTS.interfaces, cache))
    decisions = decided(exposed("dns", at=1, created=OLD, port=53, protocol="UDP", node_port=30053), facts=facts)
    assert [str(port.cluster_ip) for port in decisions.services[ObjectName("shop", "dns")].ports] == [
        "10.96.0.1",
        "fd00:10:96::1",
    ]
    assert not naming(decisions, "shop/dns")


def test_the_cost_of_many_equal_claims_is_not_quadratic():
    claims, looks = Claims(guards_node=True), 0
    service = decided(exposed("one", at=1, created=OLD, vips=("203.0.113.1",))).services[ObjectName("shop", "one")]
    for number in range(2000):
        looks += len(claims.put(ObjectName("shop", f"s{number}"), service, OLD))
    assert looks <= 2 * 2000
