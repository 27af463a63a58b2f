"""One change: whatever comes, and whatever is lost, the kernel gets what the whole wants."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.services.update import Update
from rulegen.compiler.tables import LANGUAGES
from rulegen.errors import Fault, Rejected
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Event, Gone
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.snapshot.cluster import Cluster, Touched
from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL
from rulegen.languages.ipvs.state import RealServerKey
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_address, parse_network
from tests.kernels.nodekernel import NodeKernel
from tests.sizes import examples
from tests.strategies.services import NODE, SERVICES, services

OPTIONS = Options(node_name=NODE, cluster_cidrs=(parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56")))
FACTS = HostFacts(interfaces=(Interface("eth0", ((parse_address("192.168.50.10"), 24),)),))
AGES = st.sampled_from((None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z"))
EXTERNAL = (("198.51.100.7",), ("198.51.100.7", "198.51.100.8"), ("fd00:51::7",))
MODES = st.sampled_from(("iptables", "ipvs"))
quick = settings(
    max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def changed(new: KubeObject) -> Changed:
    return Changed(type(new), Decoded(new, "test"), ObjectName(new.metadata.namespace, new.metadata.name))


@st.composite
def service_events(draw: st.DrawFn) -> list[Event]:
    """Draw a Service as its owner changes it, alone or with its slices; or that it, or one of them, goes."""
    name = draw(st.sampled_from(SERVICES))
    drawn = draw(services(name))
    service = replace(
        drawn.service,
        metadata=replace(drawn.service.metadata, creation_timestamp=draw(AGES)),
        # Few addresses, so that Services that change keep taking them from each other.
        spec=replace(drawn.service.spec, external_ips=draw(st.sampled_from(((), *EXTERNAL)))),
    )
    slices = [changed(piece) for piece in drawn.slices]
    match draw(st.sampled_from(("service", "service", "both", "both", "slices", "gone", "slice gone", "bad", "moved"))):
        case "service":
            return [changed(service)]
        case "both":
            return [changed(service), *slices]
        case "slices":
            return list(slices)
        case "gone":
            return [Gone(k.Service, ObjectName("demo", name))]
        case "slice gone":
            return [Gone(k.EndpointSlice, ObjectName("demo", f"{name}-{draw(st.integers(0, 1))}"))]
        case "bad":
            fault = Rejected(f"Service demo/{name}", "test", (Fault("spec", "is nothing"),))
            return [Changed(k.Service, fault, ObjectName("demo", name))]
        case _:
            other = {SERVICE_NAME_LABEL: draw(st.sampled_from(SERVICES))}
            return [changed(replace(piece, metadata=replace(piece.metadata, labels=other))) for piece in drawn.slices]


@st.composite
def node_events(draw: st.DrawFn) -> list[Event]:
    zone = draw(st.sampled_from(("zone-a", "zone-b")))
    address = draw(st.sampled_from(("192.168.50.10", "192.168.50.11")))
    node = k.Node(
        metadata=k.ObjectMeta(name=NODE, labels={"topology.kubernetes.io/zone": zone}),
        status=k.NodeStatus(addresses=(k.NodeAddress(type="InternalIP", address=address),)),
    )
    return [draw(st.sampled_from((changed(node), changed(node), Gone(k.Node, ObjectName("", NODE)))))]


steps = st.lists(
    st.tuples(st.one_of(service_events(), service_events(), service_events(), node_events()), st.booleans()),
    min_size=1,
    max_size=8,
)


OWN = ("192.168.50.10", "192.168.50.11")
OTHERS = ("192.168.50.1", "192.168.50.20", "10.96.0.11", "10.244.1.7", "203.0.113.9")
"""A gateway, an API server, the ClusterIP of `cart`, a Pod, and an address that is nobody's."""
LB_PORTS = st.sampled_from((1, 30101, 30111, 30121, 30900))


@st.composite
def meeting_events(draw: st.DrawFn) -> list[Event]:
    """Draw a Service whose external addresses may be the node's, at ports that may be node ports of others."""
    name = draw(st.sampled_from(SERVICES))
    drawn = draw(services(name))
    spec = drawn.service.spec
    ports = tuple(replace(port, port=draw(LB_PORTS) + number) for number, port in enumerate(spec.ports))
    vips = tuple(k.LoadBalancerIngress(ip=draw(st.sampled_from((*OWN, *OTHERS)))) for _ in draw(st.booleans()) * "a")
    service = replace(
        drawn.service,
        metadata=replace(drawn.service.metadata, creation_timestamp=draw(AGES)),
        spec=replace(
            spec,
            ports=ports,
            external_ips=draw(st.sampled_from(((), *((address,) for address in (*OWN, *OTHERS)), OWN))),
        ),
        status=k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=vips)),
    )
    return [changed(service), *(changed(piece) for piece in drawn.slices)]


@st.composite
def host_changes(draw: st.DrawFn) -> HostFacts:
    own = draw(st.sets(st.sampled_from(OWN)))
    addresses = tuple((parse_address(address), 24) for address in sorted(own))
    ports = draw(st.sampled_from((None, frozenset({("TCP", 30101)}), frozenset({("UDP", 1)}))))
    gateways = draw(st.sampled_from((frozenset(), frozenset({parse_address(OTHERS[0])}))))
    return HostFacts(interfaces=(Interface("eth0", addresses),), root_ports=ports, gateways=gateways)


@st.composite
def api_server_events(draw: st.DrawFn) -> list[Event]:
    """Draw API servers as they write themselves, or as somebody else would have them."""
    name = ObjectName("default", "kubernetes")
    service = k.Service(
        metadata=k.ObjectMeta(name=name.name, namespace=name.namespace),
        spec=k.ServiceSpec(cluster_ip="10.96.0.1", ports=(k.ServicePort(port=443),)),
    )
    slice_ = k.EndpointSlice(
        metadata=k.ObjectMeta(
            name=draw(st.sampled_from((name.name, "forged"))),
            namespace=name.namespace,
            labels={SERVICE_NAME_LABEL: name.name},
        ),
        address_type="IPv4",
        endpoints=(k.SliceEndpoint(addresses=(draw(st.sampled_from((OTHERS[1], OWN[0]))),)),),
        ports=(k.SlicePort(port=draw(st.sampled_from((1, 6443)))),),
    )
    gone = [Gone(k.Service, name)]
    return draw(st.sampled_from(([changed(service), changed(slice_)], [changed(slice_)], gone)))


class Node:
    """Keeps kernels in memory as a node's agent does: what could not be written is kept by its name alone."""

    def __init__(self, mode: str = "iptables", **chosen: object) -> None:
        self.options, self.facts = msgspec.structs.replace(OPTIONS, mode=mode, **chosen), FACTS
        self.cluster, self.dirty = Cluster(), Touched()
        self.kernel = NodeKernel()
        self.kernels = self.kernel.kernels
        self.rules: ServiceRules | None = None

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.dirty.add(self.cluster.apply_event(event))

    def sync(self, *, is_lost: bool = False) -> Update | None:
        names, is_new, self.dirty = self.dirty.services, self.dirty.nodes or self.rules is None, Touched()
        if is_new or self.rules is None:
            self.rules = ServiceRules(self.cluster, self.options, self.facts, counts=False)
            self.write_all(self.rules.compiled())
            return None
        update = self.rules.update(names)
        if is_lost:
            self.dirty.services |= names
            return None
        self.written = self.kernel.write(update.plan)
        self.rules.commit(update)
        return update

    def move(self, facts: HostFacts) -> None:
        """Have the host become another, as a running agent takes note of it."""
        had = {address for family in Family for address in self.facts.addresses(family)}
        self.facts = dataclasses.replace(facts, former=self.facts.former | had)
        if self.rules is not None:
            touched = self.rules.follow(self.facts)
            if touched is None:
                self.rules = None
            else:
                self.dirty.services |= touched

    def write_all(self, wants: Compiled) -> None:
        assert self.rules is not None
        plan = plan_node(wants, self.kernel.observed(), self.facts)
        self.kernel.write(plan)
        self.rules.remember_kernel_state(plan)

    def check(self) -> None:
        """Fail unless it is as the whole is, decided and compiled from nothing."""
        assert self.rules is not None
        wants = compile_model(resolve(self.cluster.world(), self.options, self.facts), self.options.mode, counts=False)
        has = self.rules.compiled()
        assert has.model.services == wants.model.services
        assert {f: list(p) for f, p in has.fragments.items()} == {f: list(p) for f, p in wants.fragments.items()}
        assert [str(item.name) for item in plan_node(wants, self.kernel.observed(), self.facts).items] == []
        for language in LANGUAGES:
            assert has.objects(language) == wants.objects(language)


@quick
@given(steps, MODES)
def test_after_changes_the_kernel_matches_a_full_sync(steps, mode):
    node = Node(mode)
    for events, is_lost in steps:
        node.take(events)
        node.sync(is_lost=is_lost)
        if not node.dirty:
            node.check()
    node.sync()
    node.check()


@quick
@given(
    st.lists(service_events(), min_size=1, max_size=5),
    service_events(),
    st.lists(service_events(), min_size=1, max_size=4),
    st.integers(1, 4),
    MODES,
)
def test_concurrent_changes_match_a_full_sync(first, large, others, every, mode):
    node = Node(mode)
    for events in first:
        node.take(events)
    node.sync()
    node.take(large)
    rules, names, node.dirty = node.rules, node.dirty.services, Touched()
    update = rules.update(names)
    for number, piece in enumerate(node.kernel.pieces(update.plan)):
        if others and number % every == 0:
            node.take(others.pop())
            small = node.dirty.services - update.services.keys()
            beside = rules.update_beside(small, update)
            if beside is not None:
                node.kernel.write(beside.plan)
                rules.commit(beside)
                node.dirty.services -= small
        piece()
    rules.commit(update)
    node.sync()
    node.check()


meetings = st.lists(
    st.one_of(meeting_events(), meeting_events(), api_server_events(), host_changes(), node_events()),
    min_size=1,
    max_size=8,
)


@quick
@given(meetings, MODES, st.sampled_from(Semantics), st.booleans())
def test_external_addresses_and_node_ports_match_a_full_sync(meetings, mode, semantics, oldest):
    node = Node(mode, external_ip_semantics=semantics, oldest_claim_wins=oldest)
    for meeting in meetings:
        if isinstance(meeting, HostFacts):
            node.move(meeting)
        else:
            node.take(meeting)
        node.sync()
        node.check()
        warnings = (node.rules.warnings, resolve(node.cluster.world(), node.options, node.facts).warnings)
        assert len({tuple(sorted(text for text in texts if text.startswith("Service"))) for texts in warnings}) == 1


def service(number: int, *, age: str | None = "2026-01-01T00:00:00Z", external: tuple[str, ...] = ()) -> k.Service:
    return k.Service(
        metadata=k.ObjectMeta(name=f"web-{number}", namespace="demo", creation_timestamp=age),
        spec=k.ServiceSpec(
            type="ClusterIP",
            cluster_ip=f"10.96.{number // 250}.{1 + number % 250}",
            cluster_ips=(f"10.96.{number // 250}.{1 + number % 250}",),
            ip_families=("IPv4",),
            ports=(k.ServicePort(name="http", port=80),),
            external_ips=external,
        ),
    )


def endpoints(number: int, count: int) -> k.EndpointSlice:
    return k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"web-{number}-0", namespace="demo", labels={SERVICE_NAME_LABEL: f"web-{number}"}),
        address_type="IPv4",
        endpoints=tuple(
            k.SliceEndpoint(addresses=(f"10.244.1.{10 + at}",), conditions=k.EndpointConditions(ready=True))
            for at in range(count)
        ),
        ports=(k.SlicePort(name="http", port=8080, protocol="TCP"),),
    )


def node_of(count: int, mode: str = "iptables") -> Node:
    node = Node(mode)
    for number in range(count):
        node.take([changed(service(number)), changed(endpoints(number, 2))])
    node.sync()
    return node


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_the_cost_of_one_endpoint_is_independent_of_services(mode):
    by_size = []
    for count in (1, 10, 150):
        node = node_of(count, mode)
        node.take([changed(endpoints(0, 3))])
        update = node.sync()
        assert update is not None
        changes = [c for part in update.plan.parts.values() for c in part.changes]
        by_size.append([(str(c.key), c.before is None, c.after is None) for c in changes])
        assert list(update.services) == [ObjectName("demo", "web-0")]
        assert node.written == 1
        node.check()
    assert by_size[0] == by_size[1] == by_size[2]
    assert 0 < len(by_size[0]) < 6


def test_a_returning_endpoint_gets_its_weight_while_draining():
    node = node_of(1, "ipvs")
    for count, weights in ((1, {"10.244.1.10": 1, "10.244.1.11": 0}), (2, {"10.244.1.10": 1, "10.244.1.11": 1})):
        node.take([changed(endpoints(0, count))])
        node.sync()
        servers = node.kernel.servers.items()
        assert {str(k.address): v.weight for k, v in servers if isinstance(k, RealServerKey)} == weights
        node.check()


def test_an_event_that_changes_nothing_writes_nothing():
    node = node_of(2)
    node.take([changed(service(1)), changed(endpoints(1, 2)), Gone(k.Service, ObjectName("demo", "other"))])
    assert not node.dirty.services
    update = node.rules.update([ObjectName("demo", "web-1")])
    assert update.plan.parts == {}


def test_a_written_change_is_not_decided_again():
    node = node_of(3)
    node.take([changed(endpoints(0, 3))])
    large = node.rules.update([ObjectName("demo", "web-0")])
    node.take([changed(endpoints(0, 4))])
    assert node.rules.update_beside([ObjectName("demo", "web-0")], large) is None
    node.kernel.write(large.plan)
    node.rules.commit(large)
    node.dirty = Touched()
    decided = []
    for number in range(3):
        decided.append([name.name for name in node.sync().services])
        node.check()
        node.take([changed(endpoints(number, 5))])
    assert decided == [["web-0"], ["web-0"], ["web-1"]]


OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
SHARED = ("198.51.100.7",)


def owner(node: Node) -> list[str]:
    """Return which Services' rules have the shared address, as the kernel has them."""
    rules = node.kernels[Family.IPV4].tables["nat"]["KUBE-SERVICES"]
    return [name for name in ("web-1", "web-2") for rule in rules if SHARED[0] in rule and f"demo/{name}" in rule]


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_address_goes_to_the_older_service_and_back(is_lost):
    """Though the write that should have handed it on is lost: who then gets it is not the one that changed."""
    node = Node()
    node.take([changed(service(2, age=YOUNG, external=SHARED)), changed(endpoints(2, 1)), changed(endpoints(1, 1))])
    node.sync()
    assert owner(node) == ["web-2"]
    node.take([changed(service(1, age=OLD, external=SHARED))])
    node.sync(is_lost=is_lost)
    node.sync()
    assert owner(node) == ["web-1"]
    node.take([changed(service(1, age=OLD))])
    node.sync(is_lost=is_lost)
    node.sync()
    assert owner(node) == ["web-2"]
    node.take([changed(service(1, age=OLD, external=SHARED))])
    node.sync()
    node.take([Gone(k.Service, ObjectName("demo", "web-1"))])
    node.sync(is_lost=is_lost)
    node.sync()
    assert owner(node) == ["web-2"]
    node.check()
