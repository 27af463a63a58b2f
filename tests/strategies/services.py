"""Hypothesis strategies: worlds with few names and addresses, so that things collide."""

from __future__ import annotations

from hypothesis import strategies as st

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput

NODE = "node1"
ZONES = ("zone-a", "zone-b")
SERVICES = ("blog", "cart", "mail", "shop")

names = st.sampled_from(SERVICES)
maybe = st.sampled_from((None, True, False))


@st.composite
def conditions(draw: st.DrawFn) -> k.EndpointConditions:
    return k.EndpointConditions(
        ready=draw(st.sampled_from((True, True, None, False))), serving=draw(maybe), terminating=draw(maybe)
    )


@st.composite
def endpoints(draw: st.DrawFn, ipv6: bool) -> k.SliceEndpoint:
    number = draw(st.integers(1, 6))
    zones = draw(st.lists(st.sampled_from(ZONES), max_size=1))
    return k.SliceEndpoint(
        addresses=(f"fd00:10:244:1::{number}" if ipv6 else f"10.244.1.{number}",),
        conditions=draw(conditions()),
        node_name=draw(st.sampled_from((NODE, "node2", None))),
        hints=k.EndpointHints(for_zones=tuple(k.ForZone(name=z) for z in zones)),
    )


@st.composite
def slices(draw: st.DrawFn, service: str, number: int, ports: tuple[k.ServicePort, ...]) -> k.EndpointSlice:
    ipv6 = draw(st.booleans())
    slice_ports = [k.SlicePort(name=p.name, port=8000 + draw(st.integers(0, 1)), protocol=p.protocol) for p in ports]
    return k.EndpointSlice(
        metadata=k.ObjectMeta(
            name=f"{service}-{number}", namespace="demo", labels={"kubernetes.io/service-name": service}
        ),
        address_type="IPv6" if ipv6 else "IPv4",
        endpoints=tuple(draw(st.lists(endpoints(ipv6), max_size=4))),
        ports=tuple(slice_ports),
    )


@st.composite
def services(draw: st.DrawFn, name: str) -> ServiceInput:
    at = SERVICES.index(name) + 10
    kind = draw(st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer")))
    ports = tuple(
        k.ServicePort(
            name=f"p{port}",
            port=port,
            protocol=draw(st.sampled_from(("TCP", "UDP", "SCTP"))),
            node_port=30000 + at * 10 + port if kind != "ClusterIP" else 0,
        )
        for port in draw(st.lists(st.sampled_from((1, 2)), min_size=1, max_size=2, unique=True))
    )
    dual = draw(st.booleans())
    spec = k.ServiceSpec(
        type=kind,
        cluster_ip=f"10.96.0.{at}",
        cluster_ips=(f"10.96.0.{at}", f"fd00:10:96::{at}") if dual else (f"10.96.0.{at}",),
        ip_families=("IPv4", "IPv6") if dual else ("IPv4",),
        ports=ports,
        external_ips=tuple(draw(st.lists(st.sampled_from(("198.51.100.7", "198.51.100.8")), max_size=1))),
        external_traffic_policy=draw(st.sampled_from((None, "Cluster", "Local"))),
        internal_traffic_policy=draw(st.sampled_from((None, "Cluster", "Local"))),
        session_affinity=draw(st.sampled_from(("None", "ClientIP"))),
        load_balancer_source_ranges=tuple(draw(st.lists(st.sampled_from(("192.0.2.0/24", "10.0.0.0/8")), max_size=2))),
        health_check_node_port=30900 + at if kind == "LoadBalancer" else 0,
    )
    vips = draw(st.lists(st.sampled_from((f"203.0.113.{at}", "203.0.113.99")), max_size=2, unique=True))
    status = k.ServiceStatus(
        load_balancer=k.LoadBalancerStatus(ingress=tuple(k.LoadBalancerIngress(ip=vip) for vip in vips))
    )
    service = k.Service(
        metadata=k.ObjectMeta(name=name, namespace="demo", creation_timestamp=f"2026-01-{at:02}T00:00:00Z"),
        spec=spec,
        status=status if kind == "LoadBalancer" else k.ServiceStatus(),
    )
    drawn = tuple(draw(slices(name, number, ports)) for number in range(draw(st.integers(0, 2))))
    return ServiceInput(service=service, slices=drawn, endpoints_from="EndpointSlice" if drawn else "")


@st.composite
def worlds(draw: st.DrawFn) -> ClusterSnapshot:
    chosen = draw(st.lists(names, unique=True, max_size=4))
    node = k.Node(
        metadata=k.ObjectMeta(name=NODE, labels={"topology.kubernetes.io/zone": "zone-a"}),
        status=k.NodeStatus(addresses=(k.NodeAddress(type="InternalIP", address="192.168.50.10"),)),
    )
    return ClusterSnapshot(
        services={ObjectName("demo", name): draw(services(name)) for name in sorted(chosen)}, nodes={NODE: node}
    )
