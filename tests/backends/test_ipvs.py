"""What a Service comes to in ipvs mode where kube-proxy's corpus does not reach: strict semantics, the node itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.ordering import Parameter, tasks
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.tables import LANGUAGES
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.addresses.state import Links
from rulegen.languages.ipset.state import EntryKey
from rulegen.languages.iptables.language import RestoreRules
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.ipvs.state import RealServerKey, Timeouts, VirtualServerKey
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.options import DetectLocalMode, Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_address, parse_network
from tests.kernels.nodekernel import NodeKernel
from tests.kernels.observed import observing

FACTS = HostFacts(interfaces=(Interface("eth0", ((parse_address("192.168.50.10"), 24),)),), ipv6=False)
OPTIONS = {"node_name": "node1", "cluster_cidrs": (parse_network("10.244.0.0/16"),)}
VIP, CLUSTER_IP = "203.0.113.10", "10.96.0.9"


def compiled(*, local: bool, semantics: str = "strict", mode: str = "ipvs", **fields) -> Compiled:
    """Return what a load balanced Service with both policies Local comes to; its one endpoint is here or elsewhere."""
    service = k.Service(
        metadata=k.ObjectMeta(name="web", namespace="demo"),
        spec=k.ServiceSpec(
            type="LoadBalancer",
            cluster_ip=CLUSTER_IP,
            ports=(k.ServicePort(name="http", port=80, node_port=30080),),
            internal_traffic_policy="Local",
            external_traffic_policy="Local",
            health_check_node_port=30900,
        ),
        status=k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=(k.LoadBalancerIngress(ip=VIP),))),
    )
    endpoint_slice = k.EndpointSlice(
        metadata=k.ObjectMeta(name="web-1", namespace="demo", labels={"kubernetes.io/service-name": "web"}),
        address_type="IPv4",
        endpoints=(k.SliceEndpoint(addresses=("10.244.2.1",), node_name="node1" if local else "node2"),),
        ports=(k.SlicePort(name="http", port=8080),),
    )
    world = ClusterSnapshot(
        services={ObjectName("demo", "web"): ServiceInput(service=service, slices=(endpoint_slice,))},
        nodes={"node1": k.Node(metadata=k.ObjectMeta(name="node1"))},
    )
    options = Options(mode=mode, ipvs_semantics=Semantics(semantics), **{**OPTIONS, **fields})
    return compile_model(resolve(world, options, FACTS, FACTS.families), mode, counts=False)


def reached(wants: Compiled) -> dict[str, int]:
    """Return by address how many real servers a virtual server has."""
    servers = wants.objects("ipvs")
    counts = {str(key.frontend.address): 0 for key in servers if isinstance(key, VirtualServerKey)}
    for key in servers:
        counts[str(key.frontend.address)] += isinstance(key, RealServerKey)
    return counts


def policy_rules(wants: Compiled) -> list[str]:
    chain = ChainName("filter", "KUBE-IPVS-POLICY")
    blocks = [block for fragment in wants.rules(Family.IPV4) for block in fragment.blocks if block.name == chain]
    return sorted(rule.spec for block in blocks for rule in block.rules)


def test_with_local_endpoints_strict_is_as_kube_proxy_has_it():
    wants = compiled(local=True)
    assert reached(wants) == {VIP: 1, CLUSTER_IP: 1, "192.168.50.10": 1}
    assert policy_rules(wants) == []
    assert wants.objects("ipset") == compiled(local=True, semantics="kube-proxy").objects("ipset")


def test_strict_without_local_endpoints_serves_node_and_pods():
    wants = compiled(local=False)
    assert reached(wants) == {VIP: 1, CLUSTER_IP: 0, "192.168.50.10": 1}
    elsewhere = "! -s 10.244.0.0/16 -d {}/32 -p tcp -m tcp --dport {} -m addrtype ! --src-type LOCAL -j DROP"
    assert policy_rules(wants) == [
        elsewhere.format("192.168.50.10", 30080),
        elsewhere.format(VIP, 80),
        f"-d {CLUSTER_IP}/32 -p tcp -m tcp --dport 80 -j DROP",
    ]
    entries = {key.name for key in wants.objects("ipset") if isinstance(key, EntryKey)}
    assert not {name for name in entries if "LOCAL" in name}, "who may come is masqueraded"


def test_kube_proxy_semantics_fall_back_to_all_endpoints():
    wants = compiled(local=False, semantics="kube-proxy")
    assert reached(wants) == {VIP: 1, CLUSTER_IP: 1, "192.168.50.10": 1}
    assert policy_rules(wants) == []


def test_pods_recognised_by_an_interface_pass_by_it():
    wants = compiled(local=False, detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cbr0")
    assert f"-d {VIP}/32 ! -i cbr0 -p tcp -m tcp --dport 80 -m addrtype ! --src-type LOCAL -j DROP" in policy_rules(
        wants
    )


@pytest.mark.parametrize(("semantics", "is_open"), [("kube-proxy", False), ("strict", True)])
def test_strict_health_checks_work_without_node_port_addresses(semantics, is_open):
    wants = compiled(local=True, semantics=semantics, node_port_networks=(parse_network("172.31.0.0/16"),))
    assert (EntryKey("KUBE-HEALTH-CHECK-NODE-PORT", "30900") in wants.objects("ipset")) is is_open


def test_route_localnet_is_reset_before_its_rule_is_deleted():
    node = NodeKernel()
    before = compiled(local=True, mode="iptables")
    node.write(plan_node(before, node.observed(Family.IPV4), FACTS))
    facts = HostFacts(interfaces=FACTS.interfaces, sysctls={"net.ipv4.conf.all.route_localnet": "1"}, ipv6=False)
    work = [task.work for task in tasks(plan_node(compiled(local=True), node.observed(Family.IPV4), facts))]
    closed = work.index(Parameter("net.ipv4.conf.all.route_localnet", "0"))
    assert closed < next(at for at, step in enumerate(work) if isinstance(step, RestoreRules))


@pytest.mark.parametrize(
    ("kernel", "expected"), [("4.0.9", None), ("4.1.0", "0"), ("5.8.18-generic", "0"), ("5.9.0", None), ("", None)]
)
def test_connections_are_not_put_off_by_kernels_that_would(kernel, expected):
    options = Options(mode="ipvs", ipvs_strict_arp=True, **OPTIONS)
    model = resolve(ClusterSnapshot(), options, HostFacts(kernel=kernel))
    assert model.sysctls.get("net.ipv4.vs.conn_reuse_mode") == expected
    assert {name: model.sysctls[name] for name in ("net.ipv4.vs.conntrack", "net.ipv4.conf.all.arp_announce")} == {
        "net.ipv4.vs.conntrack": "1",
        "net.ipv4.conf.all.arp_announce": "2",
    }


def test_timeouts_that_are_not_asked_for_stay():
    options = Options(mode="ipvs", ipvs_timeouts=(700, 0, 200), **OPTIONS)
    wants = compile_model(resolve(ClusterSnapshot(), options, FACTS, FACTS.families), "ipvs", counts=False)
    observed = observing(rulesets={}, sets={}, servers={}, links=Links(), timeouts=Timeouts(900, 120, 300))
    plan = plan_node(wants, observed, FACTS)
    (change,) = plan.changes("ipvs", None)
    assert change.after == (700, 120, 200)
    again = observing(rulesets={}, timeouts=Timeouts(700, 120, 200))
    assert plan_node(wants, again, FACTS).changes("ipvs", None) == ()


@pytest.mark.parametrize("mode", ["ipvs", "iptables"])
@pytest.mark.parametrize(
    ("address", "external"),
    [
        ("239.1.1.1", "239.2.2.2"),
        ("255.255.255.255", "255.255.255.255"),
        ("0.0.0.0", "0.1.2.3"),
        ("0.0.0.0", "ff05::1"),
    ],
)
def test_impossible_addresses_affect_only_themselves(mode, address, external):
    """The kernel refuses them, and behind a refused write nothing is written."""
    good, hostile = whole(mode), whole(mode, address, external)
    assert {f: good.rules(f) for f in Family} == {f: hostile.rules(f) for f in Family}
    assert [good.objects(language) for language in LANGUAGES] == [hostile.objects(language) for language in LANGUAGES]
    assert sum("is ignored" in warning for warning in hostile.model.warnings) == 2


def test_broadcast_addresses_are_no_real_servers():
    assert whole("ipvs", "192.168.50.255").objects("ipvs") == whole("ipvs").objects("ipvs")
    assert any("192.168.50.255" in warning for warning in whole("ipvs", "192.168.50.255").model.warnings)
    first = "192.168.50.0"
    assert whole("ipvs", first, kernel="5.10.0").objects("ipvs") == whole("ipvs").objects("ipvs")
    assert whole("ipvs", first, kernel="6.1.0").objects("ipvs") != whole("ipvs").objects("ipvs")


def whole(mode: str, address: str = "", external: str = "", kernel: str = "") -> Compiled:
    """Return what a Service with an external IP comes to, which has another endpoint and external IP besides."""
    service = k.Service(
        metadata=k.ObjectMeta(name="web", namespace="demo"),
        spec=k.ServiceSpec(
            cluster_ip=CLUSTER_IP,
            ports=(k.ServicePort(port=80),),
            external_ips=("203.0.113.7", *([external] if external else [])),
        ),
    )
    addresses = ("10.244.2.1", *([address] if address else []))
    endpoint_slice = k.EndpointSlice(
        metadata=k.ObjectMeta(name="web-1", namespace="demo", labels={"kubernetes.io/service-name": "web"}),
        address_type="IPv4",
        endpoints=tuple(k.SliceEndpoint(addresses=(text,), node_name="node1") for text in addresses),
        ports=(k.SlicePort(name="", port=8080),),
    )
    world = ClusterSnapshot(
        services={ObjectName("demo", "web"): ServiceInput(service=service, slices=(endpoint_slice,))}
    )
    facts = replace(FACTS, ipv6=True, kernel=kernel)
    return compile_model(resolve(world, Options(mode=mode, **OPTIONS), facts), mode, counts=False)


@pytest.mark.parametrize("semantics", ["strict", "kube-proxy"])
def test_an_older_service_keeps_its_frontend_from_a_node_port(semantics):
    """Else the endpoints of both would be in one; on the node's other addresses it is as it was."""

    def service(name, number, created, endpoint, **fields):
        port = k.ServicePort(port=fields.pop("port", 80), node_port=fields.pop("node_port", 0))
        spec = k.ServiceSpec(type="LoadBalancer", cluster_ip=f"10.96.0.{number}", ports=(port,))
        slice_ = k.EndpointSlice(
            metadata=k.ObjectMeta(name=f"{name}-1", namespace="demo", labels={"kubernetes.io/service-name": name}),
            address_type="IPv4",
            endpoints=(k.SliceEndpoint(addresses=(endpoint,)),),
            ports=(k.SlicePort(name="", port=8080),),
        )
        metadata = k.ObjectMeta(name=name, namespace="demo", creation_timestamp=created)
        status = k.ServiceStatus(load_balancer=k.LoadBalancerStatus(**fields))
        built = k.Service(metadata=metadata, spec=spec, status=status)
        return ObjectName("demo", name), ServiceInput(service=built, slices=(slice_,))

    own, second = (parse_address(text) for text in ("192.168.50.10", "10.77.0.10"))
    facts = replace(FACTS, interfaces=(Interface("eth0", ((own, 24), (second, 16))),))
    vip = (k.LoadBalancerIngress(ip=str(own)),)
    services = dict(
        [
            service("old", 1, "2026-01-01T00:00:00Z", "10.244.2.1", port=30080, ingress=vip),
            service("new", 2, "2026-02-01T00:00:00Z", "10.244.2.2", node_port=30080),
        ]
    )
    options = Options(mode="ipvs", external_ip_semantics=Semantics(semantics), **OPTIONS)
    wants = compile_model(resolve(ClusterSnapshot(services=services), options, facts), "ipvs", counts=False)
    behind = {
        (str(key.frontend.address), str(key.address))
        for key in wants.objects("ipvs")
        if isinstance(key, RealServerKey) and key.frontend.port == 30080
    }
    mixed = {("192.168.50.10", "10.244.2.2")} if semantics == "kube-proxy" else set()
    expected = {("192.168.50.10", "10.244.2.1"), ("10.77.0.10", "10.244.2.2"), ("10.96.0.1", "10.244.2.1")}
    assert behind == expected | mixed
