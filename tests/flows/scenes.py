"""Worlds, sites and packets to try rules with, and the text that rulegen makes for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.compiler.services.compile import compile_model
from rulegen.kube.objects import structs as k
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.ruleset import format_ruleset
from rulegen.languages.iptables.state import ruleset_of
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.options import DetectLocalMode, Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Address, Family, family_of, parse_address, parse_network
from tests.flows.packets import Packet, Simulator
from tests.flows.saved import read
from tests.flows.specification import Site
from tests.strategies.services import NODE, ZONES, slices, worlds

POD_NETWORKS = (parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56"))
NODE_ADDRESSES = ("127.0.0.1", "192.168.50.10", "10.99.0.10", "::1", "fd00:50::10")
PRIMARY = ("192.168.50.10", "fd00:50::10")
PODS = ("10.244.1.1", "10.244.1.2", "10.244.9.9", "fd00:10:244:1::1", "fd00:10:244:9::9")
OUTSIDE = ("192.0.2.7", "198.18.0.1", "10.1.2.3", "2001:db8::7")
READY = k.EndpointConditions()
DRAINING = k.EndpointConditions(ready=False, serving=True, terminating=True)
STOPPED = k.EndpointConditions(ready=False, serving=False, terminating=True)
NOBODY = ("10.96.0.99", "198.51.100.99", "fd00:10:96::99")


# -- rules -------------------------------------------------------------------------------------------------------------


def options_of(site: Site) -> Options:
    """Return the options that a node is such a site by."""
    mode = DetectLocalMode.CLUSTER_CIDR
    if site.pod_interface:
        is_prefix = site.pod_interface.endswith("+")
        mode = DetectLocalMode.INTERFACE_NAME_PREFIX if is_prefix else DetectLocalMode.BRIDGE_INTERFACE
    return Options(
        node_name=site.node,
        masquerade_all=site.masquerade_all,
        localhost_node_ports=site.localhost_node_ports,
        conntrack_be_liberal=not site.drops_invalid,
        detect_local_mode=mode,
        bridge_interface=site.pod_interface,
        interface_name_prefix=site.pod_interface.removesuffix("+"),
        cluster_cidrs=site.pod_networks,
        node_port_networks=site.node_port_networks,
        external_ips=site.external_ips,
    )


def facts_of(site: Site) -> HostFacts:
    """Return the facts of a host with the site's addresses."""
    lengths = {4: 24, 6: 64}
    reported = tuple((address, lengths[address.version]) for address in sorted(site.local, key=str))
    return HostFacts(hostname=site.node, interfaces=(Interface("eth0", reported),))


def texts(world: ClusterSnapshot, site: Site, *, counts: bool = False) -> dict[Family, str]:
    """Return what rulegen makes of a world for a node, as iptables-save prints it."""
    model = resolve(world, options_of(site), facts_of(site))
    compiled = compile_model(model, "iptables", counts=counts)
    return {family: format_ruleset(ruleset_of(compiled.rules(family))) for family in compiled.fragments}


def simulators(world: ClusterSnapshot, site: Site, *, counts: bool = False) -> dict[Family, Simulator]:
    """Return simulators of what rulegen makes of a world."""
    made = {family: Simulator(read(text), site.local) for family, text in texts(world, site, counts=counts).items()}
    if not site.forwards:
        for simulator in made.values():
            simulator.saved.policies["filter", "FORWARD"] = "DROP"
    return made


# -- packets -----------------------------------------------------------------------------------------------------------


def packets(world: ClusterSnapshot, site: Site) -> Iterator[Packet]:
    """Yield packets from everybody to every frontend, and to some addresses and ports that are none."""
    targets = sorted(_targets(world, site), key=str)
    pods = {parse_address(text) for text in PODS} | set(_endpoints(world))
    senders = [(pod, "cni0") for pod in sorted(pods, key=str)]
    senders += [(parse_address(text), "eth0") for text in OUTSIDE]
    for (address, port, protocol), (sender, interface) in itertools.product(targets, senders):
        if sender.version == address.version:
            yield Packet(protocol=protocol, source=sender, destination=address, port=port, interface=interface)
    for address, port, protocol in targets:
        for sender in _own_addresses(site, address):
            yield Packet(protocol=protocol, source=sender, destination=address, port=port, interface="")


def known_connections(site: Site) -> Iterator[Packet]:
    """Yield packets that conntrack calls anything but new."""
    for address, state in itertools.product((*NOBODY, *map(str, site.local)), ("ESTABLISHED", "RELATED", "INVALID")):
        family = family_of(parse_address(address))
        for sender, interface in (("10.244.1.1", "cni0"), ("192.0.2.7", "eth0"), ("fd00:10:244:1::1", "cni0")):
            if family_of(parse_address(sender)) is family:
                yield Packet(
                    protocol="tcp",
                    source=parse_address(sender),
                    destination=parse_address(address),
                    port=80,
                    interface=interface,
                    state=state,
                )


def _endpoints(world: ClusterSnapshot) -> Iterator[Address]:
    for service in world.services.values():
        for endpoint in itertools.chain.from_iterable(slice_.endpoints for slice_ in service.slices):
            yield parse_address(endpoint.addresses[0])


def _own_addresses(site: Site, target: Address) -> list[Address]:
    """Return what this node's own packets to a target may have as their source: the node's address, or the target's."""
    own = [a for a in map(parse_address, PRIMARY) if a.version == target.version and a in site.local]
    return sorted({*own, target}, key=str)


def _targets(world: ClusterSnapshot, site: Site) -> set[tuple[Address, int, str]]:
    results = {(parse_address(address), 1, "tcp") for address in NOBODY}
    for service in world.services.values():
        spec = service.service.spec
        own = {*spec.cluster_ips, *spec.external_ips, *(i.ip for i in service.service.status.load_balancer.ingress)}
        addresses = {parse_address(text) for text in own if text not in {"", "None"}}
        for port in spec.ports:
            results |= {(address, port.port, port.protocol.lower()) for address in addresses}
            if port.node_port:
                results |= {(address, port.node_port, port.protocol.lower()) for address in site.local}
        if spec.health_check_node_port:
            results |= {(address, spec.health_check_node_port, "tcp") for address in site.local}
        results |= {(address, 9, "tcp") for address in addresses}
    return results


# -- strategies --------------------------------------------------------------------------------------------------------


@st.composite
def sites(draw: st.DrawFn) -> Site:
    """Return nodes with all kinds of options; some have addresses that are also frontends."""
    more = draw(st.sets(st.sampled_from(("203.0.113.99", "198.51.100.7", "203.0.113.10")), max_size=1))
    detection = draw(st.sampled_from(("network", "network", "network", "cni0", "cn+", "")))
    networks = draw(st.sampled_from(((), (), ("0.0.0.0/0",), ("192.168.50.0/24",), ("127.0.0.0/8", "10.99.0.0/16"))))
    return Site(
        node=draw(st.sampled_from((NODE, NODE, "node2", "stranger"))),
        local=frozenset(parse_address(text) for text in (*NODE_ADDRESSES, *more)),
        pod_networks=POD_NETWORKS if detection == "network" else (),
        pod_interface="" if detection == "network" else detection,
        masquerade_all=draw(st.sampled_from((False, False, True))),
        localhost_node_ports=draw(st.sampled_from((True, True, False))),
        node_port_networks=tuple(parse_network(text) for text in networks),
        external_ips=draw(st.sampled_from((True, True, True, False))),
        drops_invalid=draw(st.booleans()),
        forwards=draw(st.sampled_from((True, True, False))),
    )


@st.composite
def rich_worlds(draw: st.DrawFn) -> ClusterSnapshot:
    """Return worlds with what is rare: ipMode Proxy, other proxies, hints for nodes, endpoints on the node itself."""
    world = draw(worlds())
    services = {name: _edited(draw, _served(draw, service)) for name, service in world.services.items()}
    return ClusterSnapshot(services=services, nodes=world.nodes)


def _served(draw: st.DrawFn, reported: ServiceInput) -> ServiceInput:
    """Give a Service some endpoints that are there for sure, if they are usable."""
    extra = draw(slices(reported.service.metadata.name, 9, reported.service.spec.ports))
    numbers = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True))
    nodes = st.sampled_from((NODE, "node2"))
    given = st.sampled_from(draw(st.sampled_from(((READY,), (READY,), (DRAINING, STOPPED)))))
    ends = tuple(
        k.SliceEndpoint(addresses=(f"10.244.1.{n}",), node_name=draw(nodes), conditions=draw(given)) for n in numbers
    )
    kept = reported.slices if draw(st.booleans()) else ()
    extra = replace(extra, address_type="IPv4", endpoints=ends)
    return ServiceInput(service=reported.service, slices=(*kept, extra), endpoints_from="EndpointSlice")


EDITS = (
    "",
    "hints",
    "proxy",
    "foreign",
    "both",
    "admit node",
    "admit all",
    "admit others",
    "hints",
    "host",
    "headless",
)
ADMITTED = {
    "admit node": ("192.168.50.0/24",),
    "admit all": ("192.0.2.0/24", "0.0.0.0/0"),
    "admit others": ("fd00::/8",),
}


def _edited(draw: st.DrawFn, reported: ServiceInput) -> ServiceInput:
    service, parts = reported.service, reported.slices
    ingress = service.status.load_balancer.ingress
    edit = draw(st.sampled_from(EDITS))
    match edit:
        case "proxy" if ingress:
            service = replace(service, status=_balanced((replace(ingress[0], ip_mode="Proxy"), *ingress[1:])))
        case "foreign":
            labels = {"service.kubernetes.io/service-proxy-name": "other"}
            service = replace(service, metadata=replace(service.metadata, labels=labels))
        case "both" if ingress:
            service = replace(service, spec=replace(service.spec, external_ips=(ingress[0].ip,)))
        case "admit node" | "admit all" | "admit others":
            addresses = _balanced((k.LoadBalancerIngress(ip="203.0.113.10"), *ingress))
            spec = replace(service.spec, load_balancer_source_ranges=ADMITTED[edit])
            service = replace(service, spec=spec, status=addresses)
        case "hints":
            parts = tuple(_hinted(draw, part) for part in parts)
        case "host":
            parts = tuple(_on_host(part) for part in parts)
        case "headless":
            parts = (*map(_headless, parts[:1]), *parts[1:])
    return ServiceInput(service=service, slices=parts, endpoints_from=reported.endpoints_from)


def _balanced(ingress: tuple[k.LoadBalancerIngress, ...]) -> k.ServiceStatus:
    return k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress))


def _hinted(draw: st.DrawFn, slice_: k.EndpointSlice) -> k.EndpointSlice:
    """Give every endpoint a hint: for a zone as PreferSameZone does, for a node as PreferSameNode does."""
    by_node = draw(st.booleans())
    places = st.sampled_from((NODE, "node2") if by_node else ZONES)
    hints = [(k.ForZone(name=draw(places)),) for _ in slice_.endpoints]
    reported = [k.EndpointHints(for_nodes=h) if by_node else k.EndpointHints(for_zones=h) for h in hints]
    return replace(
        slice_, endpoints=tuple(replace(e, hints=h) for e, h in zip(slice_.endpoints, reported, strict=True))
    )


def _on_host(slice_: k.EndpointSlice) -> k.EndpointSlice:
    """Let the first endpoint be a pod in the node's own network."""
    address = "192.168.50.10" if slice_.address_type == "IPv4" else "fd00:50::10"
    first = tuple(replace(e, addresses=(address,)) for e in slice_.endpoints[:1])
    return replace(slice_, endpoints=first + slice_.endpoints[1:])


def _headless(slice_: k.EndpointSlice) -> k.EndpointSlice:
    return replace(
        slice_,
        metadata=replace(slice_.metadata, labels={**slice_.metadata.labels, "service.kubernetes.io/headless": ""}),
    )
