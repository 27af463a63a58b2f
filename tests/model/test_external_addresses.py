"""External addresses that belong to something else are ignored with strict semantics, else served with a warning."""

from __future__ import annotations

import dataclasses

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.forbidden import KUBERNETES
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.node.context import resolve_node, resolve_site
from rulegen.model.services.node.ports_in_use import node_ports_in_use
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.model.services.table import ServiceTable
from rulegen.net import Family, parse_address, parse_network
from tests.sizes import sized

WEB, DNS = ObjectName("shop", "web"), ObjectName("kube-system", "dns")
FACTS = HostFacts(
    interfaces=(
        Interface("eth0", ((parse_address("192.0.2.10"), 24), (parse_address("2001:db8::10"), 64))),
        Interface("eth1", ((parse_address("198.51.100.10"), 24),)),
    ),
    gateways=frozenset({parse_address("192.0.2.1"), parse_address("2001:db8::1")}),
    root_ports=frozenset(),
)
PODS = (parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56"))


def node(name, *addresses, pods=()):
    addresses_ = tuple(k.NodeAddress(type="InternalIP", address=address) for address in addresses)
    spec = k.NodeSpec(pod_cidrs=tuple(pods))
    return k.Node(metadata=k.ObjectMeta(name=name), spec=spec, status=k.NodeStatus(addresses=addresses_))


NODES = {"here": node("here", "192.0.2.10", "2001:db8::10"), "there": node("there", "192.0.2.11", pods=["10.9.1.0/24"])}


def service(name, *, at, external=(), vips=(), created="2026-01-01T00:00:00Z", port=80):
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip=f"10.96.0.{at}",
        cluster_ips=(f"10.96.0.{at}", f"fd00:10:96::{at}"),
        ip_families=("IPv4", "IPv6"),
        ports=(k.ServicePort(port=port),),
        external_ips=external,
    )
    ingress = tuple(k.LoadBalancerIngress(ip=vip) for vip in vips)
    metadata = k.ObjectMeta(name=name.name, namespace=name.namespace, creation_timestamp=created)
    status = k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress))
    return ServiceInput(service=k.Service(metadata=metadata, spec=spec, status=status))


def api_servers(*addresses, name="kubernetes", port=6443):
    slice_ = k.EndpointSlice(
        metadata=k.ObjectMeta(name=name, namespace="default"),
        address_type="IPv4",
        endpoints=tuple(k.SliceEndpoint(addresses=(address,)) for address in addresses),
        ports=(k.SlicePort(name="https", port=port),),
    )
    kubernetes = service(KUBERNETES, at=1, port=443)
    return dataclasses.replace(kubernetes, slices=(slice_,), endpoints_from="EndpointSlice")


def options(mode="iptables", semantics="strict", **fields):
    fields = {"cluster_cidrs": PODS, **fields}
    return Options(node_name="here", mode=mode, external_ip_semantics=Semantics(semantics), **fields)


def decided(*services_, mode="iptables", semantics="strict", facts=FACTS, nodes=NODES, api=("192.0.2.20",), **fields):
    services = {ObjectName(given.service.metadata.namespace, given.service.metadata.name): given for given in services_}
    services = {DNS: service(DNS, at=10, created=None), KUBERNETES: api_servers(*api), **services}
    return resolve(ClusterSnapshot(services=services, nodes=nodes), options(mode, semantics, **fields), facts)


def served(model, name=WEB):
    ports = model.services[name].ports
    return {str(address) for port in ports for address in (*port.external_ips, *port.load_balancer_ips)}


def naming(model, *words):
    return [text for text in model.warnings if all(word in text for word in words)]


NOBODYS = ("203.0.113.7", "2001:db8:7::7")
WHOSE = [
    # address, owner, whether a load balancer may publish it
    ("192.0.2.10", "an address of this node", True),
    ("2001:db8::10", "an address of this node", True),
    ("198.51.100.10", "an address of this node", True),
    ("192.0.2.1", "the gateway of this node", False),
    ("2001:db8::1", "the gateway of this node", False),
    ("192.0.2.20", "an address of the API server", True),
    ("10.244.3.7", "an address of the Pod network 10.244.0.0/16", False),
    ("fd00:10:244::7", "an address of the Pod network fd00:10:244::/56", False),
    ("10.9.1.7", "an address of the Pod network 10.9.1.0/24", False),
    ("10.96.0.10", "the ClusterIP of Service kube-system/dns", False),
    ("fd00:10:96::10", "the ClusterIP of Service kube-system/dns", False),
    ("100.100.100.200", "the metadata server of Alibaba Cloud", False),
    ("fd00:ec2::254", "the metadata server of AWS", False),
    ("192.0.2.11", "an address of Node there", True),
]


@pytest.mark.parametrize(("address", "whose", "is_shared"), WHOSE)
@pytest.mark.parametrize("place", ["external", "vips"])
def test_strict_semantics_serve_no_address_of_node_or_cluster(address, whose, is_shared, place):
    web = service(WEB, at=2, **{place: (address, *NOBODYS)})
    strict, like = (decided(web, semantics=each) for each in ("strict", "kube-proxy"))
    is_refused = place == "external" or not is_shared
    assert served(strict) == {*NOBODYS} | (set() if is_refused else {address})
    assert served(like) == {*NOBODYS, address}
    for decisions, then in (
        (strict, "the entry is ignored"),
        (like, "--external-ip-semantics strict ignores this address"),
    ):
        warnings = naming(decisions, "Service shop/web", f"{address} is {whose}", then)
        assert len(warnings) == is_refused
    assert not [text for model in (strict, like) for each in NOBODYS for text in naming(model, f"{each} is")]


@pytest.mark.parametrize(("address", "whose", "is_shared"), [case for case in WHOSE if "Node there" not in case[1]])
@pytest.mark.parametrize("place", ["external", "vips"])
def test_ipvs_mode_binds_no_such_address_if_strict_else_warns(address, whose, is_shared, place):
    web = service(WEB, at=2, **{place: (address, *NOBODYS)})
    strict, like = (decided(web, mode="ipvs", semantics=each) for each in ("strict", "kube-proxy"))
    is_refused = place == "external" or not is_shared or "API server" in whose
    assert served(strict) == {*NOBODYS} | (set() if is_refused else {address})
    assert served(like) == {*NOBODYS, address}
    warnings = naming(like, "Service shop/web", f"{address} is {whose}")
    assert len(warnings) == is_refused
    if "gateway" in whose or "API server" in whose:
        assert all(
            "ipvs mode binds this address to the node, so the node can no longer reach the owner" in text
            for text in warnings
        )


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_a_load_balancer_on_nodes_may_publish_their_addresses(mode):
    """k3s and `run --publish-services` do so. Only the API server's port is rejected at its node's address."""
    web = service(WEB, at=2, vips=("192.0.2.10",))
    for semantics in ("strict", "kube-proxy"):
        decisions = decided(web, mode=mode, semantics=semantics, api=("192.0.2.10",))
        assert served(decisions) == {"192.0.2.10"}
        assert not naming(decisions, "shop/web")
    taken = decided(service(WEB, at=2, vips=("192.0.2.10",), port=6443), mode=mode, api=("192.0.2.10",))
    assert served(taken) == set()
    assert len(naming(taken, "shop/web", "an address of the API server")) == 1


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_another_nodes_address_is_no_external_ip_in_any_mode(mode):
    decisions = decided(service(WEB, at=2, external=("192.0.2.11", *NOBODYS)), mode=mode)
    assert served(decisions) == {*NOBODYS}
    (warning,) = naming(decisions, "192.0.2.11")
    assert warning.endswith("192.0.2.11 is an address of Node there; the entry is ignored")


def test_a_cluster_ip_precedes_an_older_external_ip_if_strict():
    """Otherwise a tenant that guesses the next ClusterIP could take it."""
    web = service(WEB, at=2, external=("10.96.0.10",), created="2020-01-01T00:00:00Z")
    decisions = decided(web)
    assert [str(port.cluster_ip) for port in decisions.services[DNS].ports] == ["10.96.0.10", "fd00:10:96::10"]
    assert served(decisions) == set()


def test_a_service_may_have_its_own_cluster_ip_as_external_ip():
    decisions = decided(service(WEB, at=2, external=("10.96.0.2",)))
    assert served(decisions) == {"10.96.0.2"}
    assert not naming(decisions, "shop/web")


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_endpoints_take_no_address_from_a_service(mode):
    """This holds for a forged slice of the API servers, and for slices of Services in other namespaces."""
    forged = dataclasses.replace(api_servers(NOBODYS[0], name="forged"))
    other = ObjectName("evil", "other")
    named = dataclasses.replace(service(other, at=3), slices=api_servers(NOBODYS[0], port=80).slices)
    services = {WEB: service(WEB, at=2, external=NOBODYS), KUBERNETES: forged, other: named}
    decisions = resolve(ClusterSnapshot(services=services, nodes=NODES), options(mode), FACTS)
    assert served(decisions) == {*NOBODYS}
    assert len(naming(decisions, "shop/web", f"{NOBODYS[0]} is an endpoint of Service")) == 1


def test_an_endpoint_that_a_service_shadows_is_named():
    behind = ObjectName("shop", "behind")
    for port, has_warning in ((80, True), (8080, False)):
        slices = api_servers("203.0.113.7", port=port).slices
        backend = dataclasses.replace(service(behind, at=3), slices=slices)
        decisions = decided(service(WEB, at=2, external=("203.0.113.7",)), backend)
        assert len(naming(decisions, "shop/web", "203.0.113.7 is an endpoint of Service shop/behind")) == has_warning


def test_unknown_facts_that_strict_semantics_need_are_named():
    unknown = dataclasses.replace(FACTS, interfaces=(), gateways=frozenset(), root_ports=None)
    external = {WEB: service(WEB, at=2, external=NOBODYS)}
    cases = (
        (external, "strict", True),
        (external, "kube-proxy", False),
        ({WEB: service(WEB, at=2)}, "strict", False),
    )
    for services, semantics, is_said in cases:
        chosen = options(semantics=semantics, cluster_cidrs=PODS[1:])
        decisions = resolve(ClusterSnapshot(services=services, nodes={}), chosen, unknown)
        parts = ("this node's addresses", "gateway of this node", "API servers", "listen on", "Pod network in IPv4")
        assert bool(naming(decisions, "no address is rejected", *parts)) is is_said
        assert not naming(decisions, "no address is rejected", "Pod network in IPv6")
    # A cluster of one family has no Pod network in the other.
    of_one = {WEB: service(WEB, at=2, external=tuple(each for each in NOBODYS if ":" not in each))}
    decisions = resolve(
        ClusterSnapshot(services=of_one, nodes={}), options(semantics="strict", cluster_cidrs=PODS[:1]), unknown
    )
    assert naming(decisions, "no address is rejected", "the gateway of this node")
    assert not naming(decisions, "no address is rejected", "Pod network")
    assert not naming(decided(external[WEB]), "no address is rejected")


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_ignored_external_ips_give_one_warning(mode):
    names = [ObjectName("shop", f"s{number}") for number in range(3)]
    warnings = [service(each, at=20 + at, external=NOBODYS, vips=("203.0.113.9",)) for at, each in enumerate(names)]
    decisions = decided(*warnings, mode=mode, semantics="kube-proxy", external_ips=False)
    assert [served(decisions, name) for name in names] == [{"203.0.113.9"} if not at else set() for at in range(3)]
    assert naming(decisions, "spec.externalIPs") == [
        "spec.externalIPs of 3 Services are ignored, because of --ignore-external-ips",
    ]


def test_the_cost_of_external_addresses_is_linear():
    """Each Service is decided once when it is added, and not again for unrelated Services."""
    site = resolve_site(NODES["here"], "here", options(), FACTS, NODES.values())
    nodes = {f: resolve_node(f, site, NODES["here"], options(), FACTS, [].append) for f in Family}
    table = ServiceTable(site, tuple(Family), ports_in_use=node_ports_in_use(nodes, site, FACTS))
    touched, count = 0, sized(quick=400, usual=2000, full=10_000)
    for number in range(count):
        name = ObjectName("shop", f"s{number}")
        web = service(name, at=number % 250, external=(f"203.0.113.{number % 250}", "192.0.2.10"), vips=("192.0.2.10",))
        touched += len(table.put(name, web))
    assert touched <= 3 * count
