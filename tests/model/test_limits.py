"""A Service over a limit is served in part, the same part on each node, and other Services do not change."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.compiler.services.compile import compile_model
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.ir import LimitKind, ResolvedService
from rulegen.model.services.limits import ServiceLimits, share_of_each
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family
from tests.sizes import examples
from tests.strategies.services import NODE, worlds

NAME = ObjectName("tenant", "wide")
SMALL = ServiceLimits(endpoints=12, frontends=6)


def slices(ports: int, endpoints: int, *, here: int = 0, each: int = 1000) -> tuple[k.EndpointSlice, ...]:
    endpoints_ = [
        k.SliceEndpoint(
            addresses=(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}",),
            node_name=NODE if i > endpoints - here else "elsewhere",
        )
        for i in range(1, endpoints + 1)
    ]
    return tuple(
        k.EndpointSlice(
            metadata=k.ObjectMeta(name=f"wide-{start}", namespace=NAME.namespace),
            address_type="IPv4",
            endpoints=tuple(endpoints_[start : start + each]),
            ports=tuple(k.SlicePort(name=f"p{port}", port=port) for port in range(1, ports + 1)),
        )
        for start in range(0, endpoints, each)
    )


def wide(
    ports: int, endpoints: int = 1, externals: int = 0, vips: int = 0, ranges: int = 0, here: int = 0
) -> ServiceInput:
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip="10.96.9.9",
        cluster_ips=("10.96.9.9",),
        ip_families=("IPv4",),
        ports=tuple(k.ServicePort(name=f"p{port}", port=port) for port in range(1, ports + 1)),
        external_ips=tuple(f"198.51.{i >> 8}.{i & 255}" for i in range(1, externals + 1)),
        load_balancer_source_ranges=tuple(f"172.{i >> 8}.{i & 255}.0/24" for i in range(1, ranges + 1)),
    )
    ingress = tuple(k.LoadBalancerIngress(ip=f"203.0.113.{i}") for i in range(1, vips + 1))
    service = k.Service(
        metadata=k.ObjectMeta(name=NAME.name, namespace=NAME.namespace),
        spec=spec,
        status=k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ingress)),
    )
    return ServiceInput(service=service, slices=slices(ports, endpoints, here=here), endpoints_from="EndpointSlice")


def served(given: ServiceInput, limits: ServiceLimits | None = None, mode: str = "iptables") -> ResolvedService:
    options = Options(node_name=NODE, mode=mode, limits=limits or ServiceLimits())
    return resolve(ClusterSnapshot(services={NAME: given}), options, HostFacts(), (Family.IPV4,)).services[NAME]


def frontends(service: ResolvedService) -> int:
    return sum(1 + len(p.external_ips) + len(p.load_balancer_ips) + bool(p.node_port) for p in service.ports)


def endpoints(service: ResolvedService) -> int:
    return sum(len(port.endpoints) for port in service.ports)


def real_servers(service: ResolvedService) -> int:
    return sum((1 + len(p.external_ips) + len(p.load_balancer_ips)) * len(p.cluster) for p in service.ports)


@pytest.mark.not_quick
@pytest.mark.parametrize(("ports", "count"), [(1, 10_000), (5, 10_000), (100, 500), (1000, 50)])
def test_services_of_real_clusters_are_within_the_limits(ports, count):
    service = served(wide(ports, count))
    assert (endpoints(service), service.over) == (ports * count, ())


def test_one_port_has_a_fifth_of_all_endpoints_at_most():
    service = served(wide(1, 12_000))
    assert endpoints(service) == 10_000
    assert "12000 endpoints of one port in IPv4 are more than 10000" in service.over[0].text


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        (wide(100, 1000), {LimitKind.ENDPOINTS}),
        (wide(20_000, externals=50), {LimitKind.FRONTENDS}),
        (wide(20_000, 3000), {LimitKind.FRONTENDS, LimitKind.ENDPOINTS}),
        (wide(2, 1, vips=2, ranges=9000), {LimitKind.SOURCE_RANGES}),
    ],
    ids=["ports x endpoints", "ports x addresses", "both", "source ranges"],
)
def test_a_service_over_a_limit_is_served_in_part(given, kinds, mode):
    service = served(given, mode=mode)
    assert {each.kind for each in service.over} == kinds
    assert endpoints(service) <= 50_000
    assert frontends(service) <= 10_000
    assert all(len(p.source_ranges) * len(p.load_balancer_ips) * len(service.ports) <= 10_000 for p in service.ports)
    assert all(port.cluster and port.cluster_ip for port in service.ports)


@pytest.mark.slow
def test_in_ipvs_mode_the_endpoints_of_all_frontends_count():
    given = wide(1, 1000, externals=1000)
    assert real_servers(served(given, mode="ipvs")) <= 250_000
    assert endpoints(served(given)) == 1000


def test_the_first_ports_and_addresses_are_served():
    service = served(wide(2, externals=4, vips=1), SMALL)
    assert [port.port for port in service.ports] == [1, 2]
    assert [[str(a) for a in (*p.load_balancer_ips, *p.external_ips)] for p in service.ports] == [
        ["203.0.113.1", "198.51.0.1"]
    ] * 2
    assert [port.port for port in served(wide(9, externals=4), SMALL).ports] == [1, 2, 3, 4, 5, 6]


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 40), st.integers(1, 8))
def test_too_many_source_ranges_never_admit_all_clients(ports, vips, ranges, most):
    service = served(wide(ports, vips=vips, ranges=ranges), ServiceLimits(frontends=most))
    texts = [f"172.0.{i}.0/24" for i in range(1, ranges + 1)]
    for port in service.ports:
        kept = [str(network) for network in port.source_ranges]
        assert kept
        assert kept == texts[: len(kept)]


def test_each_port_keeps_the_same_pods_this_nodes_first():
    service = served(wide(7, 100, here=2), ServiceLimits(endpoints=24))
    pods = [{e.address for e in port.cluster} for port in service.ports]
    assert [len(each) for each in pods] == [3] * 7
    assert pods == pods[:1] * 7
    assert pods[0] > {e.address for e in service.ports[0].here}
    assert len(service.ports[0].here) == 2


@settings(max_examples=examples(60), deadline=None)
@given(st.sets(st.integers(1, 200), min_size=20, max_size=60), st.integers(1, 200), st.integers(1, 3))
def test_an_endpoint_that_comes_or_goes_moves_at_most_one_other(numbers, other, ports):
    def pods(chosen: set[int]) -> set[str]:
        given = wide(ports)
        parts = tuple(
            replace_endpoints(slices(ports, 1)[0], name, [i for i in sorted(chosen) if i % 2 == name])
            for name in (0, 1)
        )
        return {e.text for e in served(replace(given, slices=parts), SMALL).ports[0].cluster}

    before, after = pods(numbers), pods(numbers ^ {other})
    assert len(before - after) <= 1
    assert len(after - before) <= 1


def replace_endpoints(slice_: k.EndpointSlice, name: int, numbers: list[int]) -> k.EndpointSlice:
    endpoints_ = tuple(k.SliceEndpoint(addresses=(f"10.0.0.{number}",)) for number in numbers)
    return k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"s{name}", namespace=NAME.namespace),
        address_type="IPv4",
        endpoints=endpoints_,
        ports=slice_.ports,
    )


def test_unusable_endpoints_do_not_count_against_a_limit():
    fit = slices(4, 1)[0]
    unready = tuple(
        k.SliceEndpoint(addresses=(f"10.9.9.{i}",), conditions=k.EndpointConditions(ready=False)) for i in range(1, 30)
    )
    unusable = k.EndpointSlice(
        metadata=k.ObjectMeta(name="unready", namespace=NAME.namespace),
        address_type="IPv4",
        endpoints=unready,
        ports=fit.ports,
    )
    service = served(replace(wide(4), slices=(unusable, fit)), SMALL)
    assert [len(port.cluster) for port in service.ports] == [1, 1, 1, 1]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), min_size=1, max_size=8), st.integers(1, 300))
def test_each_port_gets_as_many_as_fit_and_one_at_least(sizes, most):
    def total(each: int) -> int:
        return sum(min(count, each) * copies for count, copies in sizes)

    each = share_of_each(sizes, most)
    if each is None:
        assert total(50) <= most
    else:
        assert each >= 1
        assert each == 1 or total(each) <= most
        assert total(each + 1) > most


@settings(max_examples=examples(60), deadline=None)
@given(worlds(), st.integers(1, 12), st.integers(0, 30), st.integers(0, 5), st.sampled_from(("iptables", "ipvs")))
def test_one_service_over_a_limit_changes_no_rule_of_another(world, ports, count, externals, mode):
    options = Options(node_name=NODE, mode=mode, limits=SMALL)

    def fragments(world: ClusterSnapshot) -> dict[tuple[Family, str], object]:
        compiled = compile_model(resolve(world, options, HostFacts()), mode, counts=False)
        return {
            (family, each.owner): each
            for family, all_ in compiled.fragments.items()
            for each in all_
            if "/" in each.owner
        }

    before = fragments(world)
    after = fragments(msgspec.structs.replace(world, services={**world.services, NAME: wide(ports, count, externals)}))
    assert {key: each for key, each in after.items() if key[1] != str(NAME)} == before
