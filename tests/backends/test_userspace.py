"""Which connections the rules of userspace mode lead to the proxy, and which stay with the kernel."""

from __future__ import annotations

import pytest

from rulegen.backends.userspace.service import translated
from rulegen.compiler.services.compile import compile_model
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.routes.state import LocalRouteKey, MarkRuleKey
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import ConnectionProxy
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_address, parse_network

INTERFACE = Interface("eth0", ((parse_address("192.168.50.10"), 24), (parse_address("fd00:50::10"), 64)))
FACTS = HostFacts(interfaces=(INTERFACE,), ipv6=True)
TO_PROXY = {
    Family.IPV4: "-j DNAT --to-destination 192.168.50.10:10261",
    Family.IPV6: "-j TPROXY --on-port 10261 --on-ip :: --tproxy-mark 0x2000/0x2000",
}
TO_RELAY = {Family.IPV4: TO_PROXY[Family.IPV6].replace("::", "0.0.0.0"), Family.IPV6: TO_PROXY[Family.IPV6]}
TABLE = {Family.IPV4: "nat", Family.IPV6: "mangle"}
CLUSTER_IP = {Family.IPV4: "10.96.0.9/32", Family.IPV6: "fd00:10:96::9/128"}
VIP = {Family.IPV4: "203.0.113.10/32", Family.IPV6: "fd00:99::10/128"}
POD = {Family.IPV4: "10.244.2.1", Family.IPV6: "fd00:10:244::1"}
PODS = {Family.IPV4: "10.244.0.0/16", Family.IPV6: "fd00:10:244::/56"}
RANGES = {Family.IPV4: "198.51.100.0/24", Family.IPV6: "2001:db8::/32"}


class Node:
    """The rules of a node that serves one Service, by chain."""

    def __init__(self, family: Family, *, protocol: str = "TCP", here: bool = True, ready: bool = True, **fields):
        service = k.Service(
            metadata=k.ObjectMeta(name="web", namespace="demo"),
            spec=k.ServiceSpec(
                type="LoadBalancer",
                cluster_ip=str(parse_network(CLUSTER_IP[family]).network_address),
                ip_families=(family.value,),
                ports=(k.ServicePort(name="p", port=80, node_port=30080, protocol=protocol),),
                health_check_node_port=30900 if fields.get("external_traffic_policy") == "Local" else 0,
                **fields,
            ),
            status=k.ServiceStatus(
                load_balancer=k.LoadBalancerStatus(
                    ingress=(k.LoadBalancerIngress(ip=str(parse_network(VIP[family]).network_address)),)
                )
            ),
        )
        endpoints = (k.SliceEndpoint(addresses=(POD[family],), node_name="node1" if here else "node2"),)
        slice_ = k.EndpointSlice(
            metadata=k.ObjectMeta(name="web-1", namespace="demo", labels={"kubernetes.io/service-name": "web"}),
            address_type=family.value,
            endpoints=endpoints if ready else (),
            ports=(k.SlicePort(name="p", port=8080, protocol=protocol),),
        )
        world = ClusterSnapshot(
            services={ObjectName("demo", "web"): ServiceInput(service=service, slices=(slice_,))},
            nodes={"node1": k.Node(metadata=k.ObjectMeta(name="node1"))},
        )
        cidrs = tuple(map(parse_network, PODS.values()))
        options = Options(mode="userspace", node_name="node1", cluster_cidrs=cidrs)
        self.compiled = compile_model(resolve(world, options, FACTS, FACTS.families), "userspace", counts=False)
        self.family = family

    def chain(self, table: str, start: str) -> list[str]:
        """Return the rules of the chains whose names begin so; without the node's own jumps."""
        rules = []
        for fragment in self.compiled.rules(self.family):
            for name, own in fragment.exact.items():
                rules += [r.spec for r in own if name.table == table and name.chain.startswith(start)]
            for block in fragment.blocks:
                rules += [r.spec for r in block.rules if block.name == ChainName(table, start)]
        return rules

    def proxied(self, chain: str) -> list[str]:
        return self.chain(TABLE[self.family], chain)


@pytest.fixture(params=list(Family), ids=str)
def family(request) -> Family:
    return request.param


def test_connections_to_the_cluster_pool_go_to_the_proxy_from_anywhere(family):
    node = Node(family)
    to = TO_PROXY[family]
    assert node.proxied("KUBE-PORTALS-CONTAINER") == [
        f"-d {CLUSTER_IP[family]} -p tcp -m tcp --dport 80 {to}",
        f"-d {VIP[family]} -p tcp -m tcp --dport 80 {to}",
    ]
    assert node.proxied("KUBE-NODEPORT-CONTAINER") == [f"-p tcp -m tcp --dport 30080 {to}"]
    assert node.chain("nat", "KUBE-SEP-") == []


def test_a_host_without_an_address_redirects_to_the_one_of_the_interface():
    proxy = ConnectionProxy(port=10261, mark=0x2000, table=10261)
    assert translated(proxy) == "-j REDIRECT --to-ports 10261"


@pytest.mark.parametrize(("of_family", "protocol"), [(Family.IPV6, "tcp"), (Family.IPV6, "udp"), (Family.IPV4, "udp")])
def test_packets_of_the_node_itself_are_led_to_where_tproxy_works(of_family, protocol):
    node = Node(of_family, protocol=protocol.upper())
    to_portal = f"-p {protocol} -m {protocol} --dport 80 -j MARK --set-xmark 0x2000/0x2000"
    assert node.chain("mangle", "KUBE-PORTALS-HOST") == [
        f"-d {CLUSTER_IP[of_family]} {to_portal}",
        f"-d {VIP[of_family]} {to_portal}",
    ]
    assert {
        LocalRouteKey(of_family, 10261),
        MarkRuleKey(of_family, 10261, 10261, 0x2000),
    } <= set(node.compiled.objects("routes"))


def test_nobody_reaches_the_listener_whom_no_portal_led_there(family):
    led = {
        Family.IPV4: "-p tcp -m tcp --dport 10261 -m conntrack --ctstate DNAT -j ACCEPT",
        Family.IPV6: "-p tcp -m mark --mark 0x2000/0x2000 -j ACCEPT",
    }
    rules = Node(family).chain("filter", "KUBE-NODEPORT-NON-LOCAL")
    assert rules == [
        led[family],
        "-p tcp -m tcp --dport 10261 -j DROP",
        "-p udp -m mark --mark 0x2000/0x2000 -j ACCEPT",
        "-p udp -m udp --dport 10261 -j DROP",
    ]


def test_the_mark_of_a_packet_does_not_come_from_elsewhere(family):
    """A packet that arrives with the mark loses it before a portal may set it; else it would pass the firewall."""
    rules = Node(family).chain("mangle", "KUBE-PORTALS-ESTABLISHED")
    cleared = {Family.IPV4: ["udp"], Family.IPV6: ["udp", "tcp"]}[family]
    assert rules[: len(cleared)] == [f"-p {protocol} -j MARK --set-xmark 0x0/0x2000" for protocol in cleared]
    jumps = Node(family).chain("mangle", "PREROUTING")
    untranslated = "-m conntrack ! --ctstate DNAT"
    assert jumps[:2] == ["-j KUBE-PORTALS-ESTABLISHED", f"{untranslated} -j KUBE-PORTALS-CONTAINER"]


def test_datagrams_to_the_cluster_pool_go_to_the_relay_from_anywhere(family):
    node = Node(family, protocol="UDP")
    to = TO_RELAY[family]
    assert node.chain("mangle", "KUBE-PORTALS-CONTAINER") == [
        f"-d {address} -p udp -m udp --dport 80 {to}" for address in (CLUSTER_IP[family], VIP[family])
    ]
    assert node.chain("mangle", "KUBE-NODEPORT-CONTAINER") == [f"-p udp -m udp --dport 30080 {to}"]
    assert node.chain("nat", "KUBE-SEP-") == []


def test_sctp_stays_with_the_rules_of_iptables_mode(family):
    node = Node(family, protocol="SCTP")
    assert node.chain("mangle", "KUBE-PORTALS-CONTAINER") == node.proxied("KUBE-NODEPORT-CONTAINER") == []
    assert any("-p sctp" in rule for rule in node.chain("nat", "KUBE-SERVICES"))
    assert any("-j DNAT" in rule for rule in node.chain("nat", "KUBE-SEP-"))


@pytest.mark.parametrize(("mode", "protocol", "is_told"), [
    ("userspace", "SCTP", True), ("userspace", "UDP", False), ("userspace", "TCP", False), ("iptables", "SCTP", False),
])  # fmt: skip
def test_it_is_told_that_rules_serve_a_port_of_sctp(mode, protocol, is_told):
    service = k.Service(
        metadata=k.ObjectMeta(name="web", namespace="demo"),
        spec=k.ServiceSpec(
            cluster_ip="10.96.0.9", cluster_ips=("10.96.0.9",), ports=(k.ServicePort(port=80, protocol=protocol),)
        ),
    )
    world = ClusterSnapshot(services={ObjectName("demo", "web"): ServiceInput(service=service, slices=())})
    model = resolve(world, Options(mode=mode), FACTS)
    wanted = ["Service demo/web: port 80/SCTP is served by the rules of the kernel: the proxy supports no SCTP"]
    assert [text for text in model.warnings if "SCTP" in text] == wanted * is_told


def test_policy_local_leads_outside_to_local_endpoints_and_inside_to_the_proxy(family):
    node = Node(family, external_traffic_policy="Local")
    to = TO_PROXY[family]
    decided = node.proxied("KUBE-EXT-")
    assert decided[:2] == [f"-s {PODS[family]} -p tcp {to}", f"-p tcp -m addrtype --src-type LOCAL {to}"]
    outside = node.chain("nat", "KUBE-EXT-")
    assert outside[-1].startswith("-j KUBE-SVL-")
    if family is Family.IPV6:
        assert outside[:2] == ["-m mark --mark 0x2000/0x2000 -j ACCEPT", "-m addrtype --src-type LOCAL -j ACCEPT"]
    assert not any(to in rule for rule in node.proxied("KUBE-NODEPORT-CONTAINER"))


def test_policy_local_without_a_local_endpoint_drops_what_comes_from_outside(family):
    node = Node(family, external_traffic_policy="Local", here=False)
    unless = " -m mark ! --mark 0x2000/0x2000" if family is Family.IPV6 else ""
    assert f"-d {VIP[family]} -p tcp -m tcp --dport 80{unless} -j DROP" in node.chain(
        "filter", "KUBE-EXTERNAL-SERVICES"
    )
    assert len(node.proxied("KUBE-EXT-")) == 2
    assert not any("KUBE-SVL-" in rule for rule in node.chain("nat", "KUBE-EXT-"))


def test_the_local_pool_of_the_cluster_ip_stays_with_the_kernel(family):
    node = Node(family, internal_traffic_policy="Local")
    assert [rule for rule in node.proxied("KUBE-PORTALS-CONTAINER") if CLUSTER_IP[family] in rule] == []
    (jump,) = [rule for rule in node.chain("nat", "KUBE-SERVICES") if CLUSTER_IP[family] in rule]
    assert "-j KUBE-SVL-" in jump


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_source_ranges_are_checked_before_the_proxy(family, policy):
    node = Node(family, load_balancer_source_ranges=tuple(RANGES.values()), external_traffic_policy=policy)
    (portal,) = [rule for rule in node.proxied("KUBE-PORTALS-CONTAINER") if VIP[family] in rule]
    assert "-j KUBE-FW-" in portal
    assert [rule.partition(" -j KUBE-EXT-")[0] for rule in node.proxied("KUBE-FW-")] == [f"-s {RANGES[family]}", ""]
    unless = " -m mark ! --mark 0x2000/0x2000" if family is Family.IPV6 else ""
    assert node.chain("filter", "KUBE-PROXY-FIREWALL") == [f"-d {VIP[family]} -p tcp -m tcp --dport 80{unless} -j DROP"]


def test_without_endpoints_the_kernel_refuses(family):
    node = Node(family, ready=False)
    assert node.proxied("KUBE-PORTALS-CONTAINER") == node.proxied("KUBE-NODEPORT-CONTAINER") == []
    assert any(CLUSTER_IP[family] in rule and "-j REJECT" in rule for rule in node.chain("filter", "KUBE-SERVICES"))
