"""Each gap of a configuration on a node gives a warning, and changes no rule."""

from __future__ import annotations

import pytest

from rulegen.compiler.services.incremental import ServiceRules
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from rulegen.kube.proxyconfig.reading import read_config
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_address

V4, V6 = "192.0.2.10", "2001:db8::10"
FACTS = HostFacts(
    interfaces=(
        Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128))),
        Interface("eth0", ((parse_address(V4), 24), (parse_address(V6), 64), (parse_address("fe80::10"), 64))),
    )
)
OPEN_V4 = "node ports answer on every IPv4 address"
OPEN_V6 = "node ports answer on every IPv6 address"
CLOSED_V4 = "node ports do not answer in IPv4"
CLOSED_V6 = "node ports do not answer in IPv6"
NO_PODS_V4 = "this node's pods cannot be recognised in IPv4"
NO_PODS_V6 = "this node's pods cannot be recognised in IPv6"
NODE_CIDR = {"detectLocalMode": "NodeCIDR"}
BOTH = "10.244.0.0/16,fd00:10:244::/56"
PODS_V4, PODS_V6 = "10.244.1.0/24", "fd00:10:244:1::/64"

CASES = [
    # the Node's addresses, its pod CIDRs, the configuration, what the warnings say
    ([V4], [], {"clusterCIDR": "10.244.0.0/16"}, []),
    ([V4, V6], [], {"clusterCIDR": BOTH}, []),
    ([V4], [], {"clusterCIDR": "fd00:10:244::/56"}, [NO_PODS_V4]),
    ([V6], [], {"clusterCIDR": "10.244.0.0/16"}, [NO_PODS_V6]),
    ([V4, V6], [], {"clusterCIDR": "10.244.0.0/16"}, [NO_PODS_V6]),
    ([V6, V4], [], {"clusterCIDR": "fd00:10:244::/56"}, [NO_PODS_V4]),
    ([], [], {"clusterCIDR": "fd00:10:244::/56"}, [NO_PODS_V4]),
    ([], [], {"clusterCIDR": "fd00:10:244::/56", "bindAddress": V6}, []),
    ([V4], [PODS_V4], NODE_CIDR, []),
    ([V4, V6], [PODS_V4, PODS_V6], NODE_CIDR, []),
    ([V4], [], NODE_CIDR, [NO_PODS_V4]),
    ([V4, V6], [], NODE_CIDR, [NO_PODS_V4, NO_PODS_V6]),
    ([V4, V6], [PODS_V4], NODE_CIDR, [NO_PODS_V6]),
    ([V4], [PODS_V6], NODE_CIDR, [NO_PODS_V4]),
    ([V4], [], {"nodePortAddresses": ["192.0.2.0/24"]}, []),
    ([V4, V6], [], {"nodePortAddresses": ["192.0.2.0/24", "2001:db8::/64"]}, []),
    ([V4, V6], [], {"nodePortAddresses": ["192.0.2.0/24"]}, [OPEN_V6]),
    ([V4, V6], [], {"nodePortAddresses": ["2001:db8::/64"]}, [OPEN_V4]),
    ([V4], [], {"nodePortAddresses": ["2001:db8::/64"]}, [OPEN_V4]),
    ([V4], [], {"nodePortAddresses": ["203.0.113.0/24"]}, [CLOSED_V4]),
    ([V4, V6], [], {"nodePortAddresses": ["203.0.113.0/24", "2001:db8:9::/64"]}, [CLOSED_V4, CLOSED_V6]),
    ([V4], [], {"nodePortAddresses": ["203.0.113.0/24", "192.0.2.0/24"]}, []),
    ([V4], [], {"nodePortAddresses": ["primary"]}, []),
    (["203.0.113.5"], [], {"nodePortAddresses": ["primary"]}, [CLOSED_V4]),
]
ALL = (OPEN_V4, OPEN_V6, CLOSED_V4, CLOSED_V6, NO_PODS_V4, NO_PODS_V6)


def node(addresses, cidrs=(), name="node-a"):
    addresses_ = tuple(k.NodeAddress(type="InternalIP", address=address) for address in addresses)
    return k.Node(
        metadata=k.ObjectMeta(name=name),
        spec=k.NodeSpec(pod_cidrs=tuple(cidrs)),
        status=k.NodeStatus(addresses=addresses_),
    )


def options(**fields):
    config, unknown = read_config({"apiVersion": API_VERSION, "kind": KIND, "hostnameOverride": "node-a", **fields}, "")
    assert not unknown
    return Options.of(config)


def cluster_of(*objects):
    cluster = Cluster()
    for each in objects:
        name = ObjectName(each.metadata.namespace, each.metadata.name)
        cluster.apply_event(Changed(type(each), Decoded(each, ""), name))
    return cluster


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(("addresses", "cidrs", "fields", "expected"), CASES)
def test_the_plan_and_the_agent_warn_about_each_gap(mode, addresses, cidrs, fields, expected):
    node_, chosen = node(addresses, cidrs), options(mode=mode, **fields)
    planned = resolve(ClusterSnapshot(nodes={"node-a": node_}), chosen, FACTS).warnings
    kept = ServiceRules(cluster_of(node_), chosen, FACTS, counts=False).warnings
    for warnings in (planned, kept):
        assert [text for text in ALL if any(text in warning for warning in warnings)] == sorted(expected, key=ALL.index)


@pytest.mark.parametrize(
    ("ranges", "vips", "is_open"),
    [
        (("192.0.2.0/24",), ("203.0.113.1", "2001:db8:9::1"), ["IPv6"]),
        (("2001:db8::/32",), ("203.0.113.1", "2001:db8:9::1"), ["IPv4"]),
        (("192.0.2.0/24", "2001:db8::/32"), ("203.0.113.1", "2001:db8:9::1"), []),
        (("2001:db8::/32",), ("203.0.113.1",), ["IPv4"]),
        (("192.0.2.0/24",), ("203.0.113.1",), []),
        (("0.0.0.0/0",), ("203.0.113.1", "2001:db8:9::1"), ["IPv6"]),
        ((), ("203.0.113.1", "2001:db8:9::1"), []),
    ],
)
def test_source_ranges_of_only_the_other_family_give_a_warning(ranges, vips, is_open):
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip="10.96.0.1",
        cluster_ips=("10.96.0.1", "fd00:10:96::1"),
        ip_families=("IPv4", "IPv6"),
        ports=(k.ServicePort(port=80),),
        load_balancer_source_ranges=ranges,
    )
    ingress = tuple(k.LoadBalancerIngress(ip=vip) for vip in vips)
    service = k.Service(
        metadata=k.ObjectMeta(name="web", namespace="shop"),
        spec=spec,
        status=k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress)),
    )
    decisions = resolve(
        ClusterSnapshot(services={ObjectName("shop", "web"): ServiceInput(service=service)}), options(), FACTS
    )
    warnings_ = [warning for warning in decisions.warnings if "open to everyone" in warning]
    assert [family for family in Family if any(family in warning for warning in warnings_)] == is_open
    assert all(warning.startswith("Service shop/web: spec.loadBalancerSourceRanges") for warning in warnings_)
    for port in decisions.services[ObjectName("shop", "web")].ports:
        if port.family in is_open:
            assert port.source_ranges == ()


def exposed(externals=(), vips=(), families=("IPv4", "IPv6")):
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip="10.96.0.1",
        cluster_ips=("10.96.0.1", "fd00:10:96::1")[: len(families)],
        ip_families=families,
        ports=(k.ServicePort(port=80),),
        external_ips=externals,
    )
    ingress = tuple(k.LoadBalancerIngress(ip=vip) for vip in vips)
    return k.Service(
        metadata=k.ObjectMeta(name="web", namespace="shop"),
        spec=spec,
        status=k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress)),
    )


@pytest.mark.parametrize("place", ["externals", "vips"])
def test_an_external_address_of_another_family_is_named(place):
    service = exposed(**{place: ("203.0.113.1", "2001:db8:9::1")}, families=("IPv4",))
    decisions = resolve(
        ClusterSnapshot(services={ObjectName("shop", "web"): ServiceInput(service=service)}), options(), FACTS
    )
    assert [warning for warning in decisions.warnings if "2001:db8:9::1 is IPv6, and the Service is not" in warning]
    assert not [warning for warning in decisions.warnings if "203.0.113.1" in warning]


OTHERS = {"node-a": node([V4, V6]), "node-b": node(["192.0.2.11", "2001:db8::11"], name="node-b")}


@pytest.mark.parametrize("place", ["externals", "vips"])
@pytest.mark.parametrize(
    ("mode", "semantics", "addresses", "is_bound", "has_warning"),
    [
        ("ipvs", "kube-proxy", ("192.0.2.11", "2001:db8::11"), True, True),
        ("ipvs", "strict", ("192.0.2.11", "2001:db8::11"), False, True),
        ("ipvs", "kube-proxy", (V4, V6), True, False),
        ("ipvs", "strict", (V4, V6), True, False),
        ("ipvs", "strict", ("203.0.113.1", "2001:db8:9::1"), True, False),
        ("iptables", "strict", ("192.0.2.11", "2001:db8::11"), True, None),
    ],
)
def test_ipvs_mode_names_another_nodes_address_that_it_binds(place, mode, semantics, addresses, is_bound, has_warning):
    """The kernel delivers packets to a bound address locally, so the other node cannot be reached any more.

    Other modes warn only about external IPs: load balancers that run on nodes publish the addresses of all nodes.
    """
    service = exposed(**{place: addresses})
    name = ObjectName("shop", "web")
    chosen = Options(node_name="node-a", mode=mode, ipvs_semantics=Semantics(semantics))
    planned = resolve(ClusterSnapshot(services={name: ServiceInput(service=service)}, nodes=OTHERS), chosen, FACTS)
    rules = ServiceRules(cluster_of(service, *OTHERS.values()), chosen, FACTS, counts=False)
    for model in (planned, rules.model):
        bound = {str(a) for port in model.services[name].ports for a in (*port.external_ips, *port.load_balancer_ips)}
        assert bound == (set(addresses) if is_bound else set())
        warnings_ = [warning for warning in model.warnings if "Node node-b" in warning]
        assert len(warnings_) == (2 if has_warning or (has_warning is None and place == "externals") else 0)
        assert all("Service shop/web" in w and any(address in w for address in addresses) for w in warnings_)


def endpoints_of(name, address, node_name=None):
    return k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"{name}-1", namespace="shop", labels={"kubernetes.io/service-name": name}),
        address_type="IPv6" if ":" in address else "IPv4",
        endpoints=(k.SliceEndpoint(addresses=(address,), node_name=node_name),),
        ports=(k.SlicePort(name="", port=6443),),
    )


@pytest.mark.parametrize("place", ["externals", "vips"])
@pytest.mark.parametrize(
    ("mode", "address", "on_node", "has_warning"),
    [
        ("ipvs", "192.0.2.50", None, True),
        ("ipvs", "2001:db8::50", "node-b", True),
        ("ipvs", "192.0.2.50", "node-a", False),
        ("ipvs", V4, None, False),
        ("iptables", "192.0.2.50", None, False),
    ],
)
def test_ipvs_mode_names_an_external_address_that_is_an_endpoint(place, mode, address, on_node, has_warning):
    """The agent does not know other Nodes, but endpoints, such as API servers and Pods in the host's network."""
    web, api = exposed(**{place: ("203.0.113.1", address)}), ObjectName("shop", "api")
    behind = k.Service(
        metadata=k.ObjectMeta(name="api", namespace="shop"),
        spec=k.ServiceSpec(cluster_ip="10.96.0.2", ports=(k.ServicePort(port=443),)),
    )
    slice_ = endpoints_of("api", address, on_node)
    services = {ObjectName("shop", "web"): ServiceInput(service=web)}
    services[api] = ServiceInput(service=behind, slices=(slice_,))
    chosen = Options(node_name="node-a", mode=mode)
    nodes = {"node-a": OTHERS["node-a"]}
    planned = resolve(ClusterSnapshot(services=services, nodes=nodes), chosen, FACTS).warnings
    rules = ServiceRules(cluster_of(web, behind, slice_, *nodes.values()), chosen, FACTS, counts=False)
    for warnings in (planned, rules.warnings):
        warnings_ = [text for text in warnings if "endpoint of Service shop/api" in text]
        assert len(warnings_) == has_warning
        assert all(text.startswith(f"Service shop/web: {address}") for text in warnings_)
