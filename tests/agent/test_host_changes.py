"""A running agent on a host and a Node that change: what it keeps is what a new process would make of them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from rulegen.agent.inbox import Wake
from rulegen.agent.pages_server import health
from rulegen.agent.pages_server.health import EVERYWHERE
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.errors import Fault, HostError, Rejected
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, Listed
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.ipvs.state import VirtualServerKey
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.node.context import ROUTE_LOCALNET
from rulegen.model.services.options import DetectLocalMode, Options
from rulegen.net import Family, parse_address, parse_network
from tests.agent.stage import NODE, Stage, WholeWriter, changed, endpoints, service
from tests.sizes import examples

HEALTH_PORT = 31999
NAME = ObjectName("", NODE)
POOL = ("192.168.50.10", "192.168.50.77", "10.77.0.10", "fd00:50::10", "fd00:50::77")
PRIMARY = Options(node_port_primary=True)
OPTIONS = {
    "all": Options(),
    "primary": PRIMARY,
    "network": Options(node_port_networks=(parse_network("192.168.50.0/24"), parse_network("fd00:50::/64"))),
    "loopback": Options(node_port_networks=(parse_network("127.0.0.0/8"), parse_network("10.77.0.0/16"))),
    "node-cidr": Options(detect_local_mode=DetectLocalMode.NODE_CIDR),
    "node-cidr-primary": Options(detect_local_mode=DetectLocalMode.NODE_CIDR, node_port_primary=True),
    "strict": Options(external_ip_semantics=Semantics.STRICT),
    "bridge": Options(detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cni0"),
}
MODES = ("iptables", "ipvs")


def host(*addresses: str, **fields) -> HostFacts:
    """Return a host with these addresses beside its loopback ones, and a pod's interface."""
    given_ = tuple((parse_address(one), 24 if "." in one else 64) for one in addresses)
    loopback = Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128)))
    return HostFacts(interfaces=(loopback, Interface("eth0", given_)), **fields)


def node(*addresses: str, cidrs=("10.244.1.0/24", "fd00:10:244:1::/64"), zone="zone-a", uid="u1") -> k.Node:
    told = tuple(k.NodeAddress(type="InternalIP", address=one) for one in addresses)
    return k.Node(
        metadata=k.ObjectMeta(name=NODE, uid=uid, labels={"topology.kubernetes.io/zone": zone}),
        spec=k.NodeSpec(pod_cidrs=tuple(cidrs)),
        status=k.NodeStatus(addresses=told),
    )


HOST = host("192.168.50.10", "10.77.0.10", "fd00:50::10")
THERE = node("192.168.50.10", "fd00:50::10")


def services() -> list[Changed]:
    ports = (k.ServicePort(name="http", port=80, node_port=30080),)
    load_balancer = k.ServiceStatus(
        load_balancer=k.LoadBalancerStatus(ingress=(k.LoadBalancerIngress(ip="203.0.113.9"),))
    )
    guarded = service(
        "lb",
        2,
        type="LoadBalancer",
        ports=(k.ServicePort(name="http", port=80, node_port=30081),),
        external_traffic_policy="Local",
        health_check_node_port=HEALTH_PORT,
        load_balancer_source_ranges=("192.168.50.10/32",),
        external_ips=("10.77.0.10",),
    )
    return [
        changed(service("web", type="NodePort", ports=ports)),
        changed(endpoints("web", 1, 2, zones=("zone-a", "zone-b"))),
        changed(structs.replace(guarded, status=load_balancer)),
        changed(endpoints("lb", 3, node=NODE)),
    ]


@pytest.fixture
def listening(monkeypatch) -> set[tuple[str, int]]:
    """Return where servers listen: one that asks for an address that the host has not is refused."""
    return _listening(monkeypatch)


def _listening(monkeypatch) -> set[tuple[str, int]]:
    open_: set[tuple[str, int]] = set()

    class FakeServer:
        def __init__(self, address: str, port: int, _pages, **_options) -> None:
            self.place = (address, port)
            if self.place in open_:
                raise HostError(f"{self.place} is taken")
            open_.add(self.place)

        def stop(self) -> None:
            open_.remove(self.place)

    monkeypatch.setattr(health, "PageServer", FakeServer)
    return open_


def staged(mode: str, options: Options, facts: HostFacts = HOST) -> Stage:
    stage = Stage(mode=mode, min_sync_s=1.0, has_health=True)
    stage.options = stage.desired.options = dataclasses.replace(
        options, mode=mode, node_name=NODE, cluster_cidrs=(parse_network("10.244.0.0/16"),)
    )
    stage.writer.facts = stage.writer.host = facts
    return stage


def becomes(stage: Stage, facts: HostFacts) -> None:
    """Have the host be so, and the kernel say so."""
    stage.writer.host = facts
    stage.signals.put(Wake("host"))


def differences(stage: Stage, listening: set[tuple[str, int]]) -> list[object]:
    """Return in what the node differs from what a new process would make of it, after looking at everything."""
    writer = stage.writer
    ever = writer.facts.former | {one for family in Family for one in writer.facts.addresses(family)}
    new = ServiceRules(stage.cluster.objects, stage.options, writer.host, counts=False)
    saved, writer.facts = writer.facts, dataclasses.replace(writer.host, former=ever)
    plan = writer.look(new.compiled())
    writer.facts = saved
    found: list[object] = list(plan.items)
    has = stage.desired.compiled()
    found += [] if has.model.sysctls == new.sysctls else [(has.model.sysctls, new.sysctls)]
    places = {
        (address, HEALTH_PORT)
        for family, one in new.nodes.items()
        for address in ([EVERYWHERE[family]] if one.node_port_addresses is None else map(str, one.node_port_addresses))
    }
    found += [] if listening == places else [(listening, places)]
    if isinstance(writer, WholeWriter):
        ours = {
            key
            for key in writer.node.servers
            if isinstance(key, VirtualServerKey) and key.frontend.family in new.nodes  # the other one is left alone
        }
        wanted = {key for union in new.compiled().unions.values() for key in union.objects("ipvs")}
        found += sorted(map(str, ours ^ {key for key in wanted if isinstance(key, VirtualServerKey)}))
    return found


hosts = st.builds(
    lambda addresses, pod, ipv6: host(*addresses, *pod, ipv6=ipv6),
    st.lists(st.sampled_from(POOL), unique=True),
    st.sampled_from([(), ("fe80::1",), ("fe80::2", "169.254.20.10")]),
    st.sampled_from([True, True, True, False]),
)
nodes = st.builds(
    node,
    st.sampled_from(POOL[:3]),
    st.sampled_from(POOL[3:]),
    cidrs=st.sampled_from([("10.244.1.0/24", "fd00:10:244:1::/64"), ("10.244.9.0/24", "fd00:10:244:9::/64")]),
    zone=st.sampled_from(["zone-a", "zone-b"]),
    uid=st.sampled_from(["u1", "u2"]),
)


events = st.sampled_from(
    [
        changed(endpoints("web", 1)),
        changed(endpoints("web", 4, 5, zones=("zone-b", "zone-a"))),
        changed(service("other", 3, type="NodePort", ports=(k.ServicePort(name="http", port=80, node_port=30099),))),
        Gone(k.Service, ObjectName("demo", "web")),
    ]
)


@settings(deadline=None, max_examples=examples(30))
@given(
    mode=st.sampled_from(MODES),
    options=st.sampled_from(sorted(OPTIONS)),
    changes=st.lists(hosts | nodes | hosts | nodes | events, min_size=1, max_size=5),
    pace=st.sampled_from([0.1, 2.5]),
)
def test_after_any_changes_of_host_and_node_all_is_as_a_new_process_would_have_it(mode, options, changes, pace):
    with pytest.MonkeyPatch.context() as patch:
        listening = _listening(patch)
        stage = staged(mode, OPTIONS[options])
        stage.at(0, changed(THERE), *services())
        for number, change in enumerate(changes, 1):
            at = 3 + number * pace
            stage.at(at, _happening(stage, change))
        end = 3 + len(changes) * pace + 2  # minSyncPeriod, and a second
        found: list[object] = []
        stage.at(end, lambda: found.extend(differences(stage, listening)))
        stage.run(end + 0.1)
    assert found == []
    assert [line for line in stage.log if "error" in line.lower()] == []


def _happening(stage: Stage, change: object) -> object:
    if isinstance(change, HostFacts):
        return lambda: becomes(stage, change)
    return changed(change) if isinstance(change, k.Node) else change


@pytest.mark.parametrize("failure", ["lost", "half"])
@pytest.mark.parametrize("mode", MODES)
def test_addresses_that_could_not_be_written_are_tried_again(mode, failure, listening):
    stage = staged(mode, OPTIONS["network"])
    stage.at(0, changed(THERE), *services())
    stage.at(5, lambda: stage.writer.failures.append(failure))
    stage.at(5, lambda: becomes(stage, host("192.168.50.77", "10.77.0.10", "fd00:50::10")))
    found: list[object] = []
    stage.at(9, lambda: found.extend(differences(stage, listening)))
    stage.run(9.1)
    assert (found, list(stage.writer.failures)) == ([], [])
    assert len([line for line in stage.log if "not written" in line]) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", ["host", "node"])
def test_a_node_that_gets_another_address_serves_node_ports_there_within_a_second(mode, first, listening):
    """In either order: the interface changes, and the kubelet registers the address."""
    stage = staged(mode, PRIMARY)
    stage.at(0, changed(THERE), *services())
    steps = [
        lambda: becomes(stage, host("192.168.50.77", "fd00:50::10")),
        changed(node("192.168.50.77", "fd00:50::10")),
    ]
    for number, step in enumerate(steps if first == "host" else reversed(steps)):
        stage.at(10 + number * 0.1, step)
    found: list[object] = []
    stage.at(11.2, lambda: found.append((differences(stage, listening), set(listening))))
    stage.run(12)
    assert found == [([], {("192.168.50.77", HEALTH_PORT), ("fd00:50::10", HEALTH_PORT)})]


def test_an_address_that_no_notice_came_for_is_found_at_the_next_period():
    stage = staged("iptables", OPTIONS["network"])
    stage.at(0, changed(THERE), *services())
    stage.at(5, lambda: setattr(stage.writer, "host", host("192.168.50.77")))
    stage.run(61)
    assert [
        rule for rule in stage.writer.kernels[Family.IPV4].tables["nat"]["KUBE-SERVICES"] if "192.168.50.77" in rule
    ]


def test_a_parameter_that_others_set_decides_as_for_a_new_process(listening):
    stage = staged("iptables", Options())
    stage.at(0, changed(THERE), *services())
    liberal = host(*POOL[:1], sysctls={"net.netfilter.nf_conntrack_tcp_be_liberal": "1"})
    stage.at(5, lambda: setattr(stage.writer, "host", liberal))
    found: list[object] = []
    stage.at(40, lambda: found.extend(differences(stage, listening)))
    stage.run(41)
    assert found == []


@pytest.mark.parametrize("mode", MODES)
def test_where_the_same_rules_follow_nothing_is_read_or_written_for_a_change(mode):
    """Pods come and go with link-local addresses, and a Node gets labels, each of them many times a minute."""
    stage = staged(mode, OPTIONS["network"])
    stage.at(0, changed(THERE), *services())
    labelled = THERE.metadata.labels | {"example.com/team": "a"}
    other = k.Node(metadata=k.ObjectMeta(name=NODE, uid="u1", labels=labelled), spec=THERE.spec, status=THERE.status)
    stage.at(4, lambda: becomes(stage, host("192.168.50.10", "10.77.0.10", "fd00:50::10", "fe80::7")))
    stage.at(6, changed(other))
    stage.run(10)
    assert (len(stage.checked), len(stage.written)) == (1, 1)
    assert stage.state.applied == stage.state.desired


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", ["primary", "network"])
def test_other_addresses_are_one_small_write_and_no_look_at_all_rules(mode, options, listening):
    stage = staged(mode, OPTIONS[options])
    stage.at(0, changed(THERE), *services(), changed(service("other", 3)))
    stage.at(5, lambda: becomes(stage, host("192.168.50.77", "10.77.0.10", "fd00:50::10")))
    stage.at(5, changed(node("192.168.50.77", "fd00:50::10")))
    found: list[object] = []
    stage.at(7, lambda: found.extend(differences(stage, listening)))
    stage.run(8)
    assert found == []
    assert stage.checked == [0.0]
    assert stage.state.applied == stage.state.desired
    assert not [line for line in stage.log if "changed by another program" in line]


def test_flows_are_looked_for_when_an_address_comes_back():
    stage = staged("iptables", Options())
    stage.at(0, changed(THERE), *services())
    stage.at(4, lambda: becomes(stage, host("10.77.0.10")))
    stage.at(8, lambda: becomes(stage, HOST))
    stage.run(10)
    assert [round(at - 100, 1) for at in stage.writer.reconciled] == [8.2]


def test_a_health_port_that_could_not_be_listened_on_is_tried_again_when_the_host_changes(monkeypatch):
    """An IPv6 address can be bound only once the kernel has seen that nobody else has it (RFC 4862, 5.4)."""
    tentative = {"fd00:50::77"}
    open_ = set()

    def server(address: str, port: int, _pages, **_options) -> SimpleNamespace:
        if address in tentative:
            raise HostError(f"cannot listen on {address} port {port}: Cannot assign requested address")
        open_.add(address)
        return SimpleNamespace(stop=lambda: open_.remove(address))

    monkeypatch.setattr(health, "PageServer", server)
    stage = staged("iptables", PRIMARY)
    stage.at(0, changed(THERE), *services())
    new = host("192.168.50.10", "fd00:50::77")
    stage.at(4, changed(node("192.168.50.10", "fd00:50::77")), lambda: becomes(stage, new))
    stage.at(6, tentative.clear, lambda: becomes(stage, new))
    stage.run(7)
    assert open_ == {"192.168.50.10", "fd00:50::77"}


# -- what is taken away ------------------------------------------------------------------------------------------------


def state(stage: Stage, listening: set[tuple[str, int]]) -> tuple[object, ...]:
    """Return all of the node that a packet or a client could notice."""
    compiled = stage.desired.compiled()
    kernels = (
        stage.writer.node.dump()
        if isinstance(stage.writer, WholeWriter)
        else [one.save() for one in stage.writer.kernels.values()]
    )
    return kernels, dict(compiled.model.sysctls), set(listening)


LOSSES = {
    "node-deleted": (Gone(k.Node, NAME),),
    "node-not-listed": (Listed(k.Node, ()),),
    "node-refused": (Changed(k.Node, Rejected(f"Node {NODE}", "test", (Fault("spec", "is odd"),)), NAME),),
    "node-without-addresses": (changed(node()),),
    "node-without-ipv4": (changed(node("fd00:50::10")),),
    "node-without-ipv6": (changed(node("192.168.50.10")),),
    "node-without-pod-cidrs": (changed(node("192.168.50.10", "fd00:50::10", cidrs=())),),
    "node-with-one-pod-cidr": (changed(node("192.168.50.10", "fd00:50::10", cidrs=("10.244.1.0/24",))),),
    "node-made-anew-and-bare": (Gone(k.Node, NAME), changed(node(cidrs=(), uid="u2"))),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", ["primary", "node-cidr", "node-cidr-primary"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_what_a_node_restricts_stays_restricted_while_it_is_gone_and_the_log_says_so_once(
    mode, options, loss, listening
):
    stage = staged(mode, OPTIONS[options])
    stage.at(0, changed(THERE), *services())
    states: list[object] = []
    stage.at(5, lambda: states.append(state(stage, listening)))
    stage.at(6, *LOSSES[loss])
    stage.at(90, lambda: states.append(state(stage, listening)))
    stage.at(91, changed(node("192.168.50.10", "fd00:50::10", uid="u2")))
    stage.at(95, lambda: states.append(state(stage, listening)))
    stage.run(100)
    assert states == [states[0]] * 3
    kept = [line for line in stage.log if "in use" in line]
    assert len(kept) == len(set(kept)) > 0
    assert len([line for line in stage.log if "the Node object is complete again" in line]) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bare", [False, True])
def test_a_node_that_comes_back_with_other_values_is_followed(mode, bare, listening):
    stage = staged(mode, OPTIONS["node-cidr-primary"], host(*POOL))
    other = node("192.168.50.77", "fd00:50::77", cidrs=("10.244.9.0/24", "fd00:10:244:9::/64"), zone="zone-b", uid="u2")
    stage.at(0, changed(THERE), *services())
    stage.at(5, Gone(k.Node, NAME))
    if bare:
        stage.at(6, changed(node(cidrs=(), uid="u2")))
    stage.at(7, changed(other))
    found: list[object] = []
    stage.at(9, lambda: found.extend(differences(stage, listening)))
    stage.run(9.1)
    assert found == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("events", [(), (changed(node()),)], ids=["no-node", "node-without-addresses"])
def test_before_the_first_node_tells_an_address_primary_opens_nothing(mode, events, listening):
    stage = staged(mode, PRIMARY)
    stage.at(0, *events, *services())
    seen: list[object] = []
    stage.at(5, lambda: seen.append((set(listening), stage.desired.compiled().model.sysctls.get(ROUTE_LOCALNET))))
    stage.at(5, lambda: seen.append(_serves_node_ports(stage)))
    stage.at(6, changed(THERE))
    stage.at(8, lambda: seen.extend(differences(stage, listening)))
    stage.run(9)
    assert seen == [(set(), None), False]
    assert len([line for line in stage.log if "node ports listen nowhere" in line]) == 1


def _serves_node_ports(stage: Stage) -> bool:
    if isinstance(stage.writer, WholeWriter):
        return any(
            getattr(key, "frontend", None) and key.frontend.port in {30080, 30081} for key in stage.writer.node.servers
        )
    return any(
        rule.endswith("-j KUBE-NODEPORTS")
        for kernel in stage.writer.kernels.values()
        for rule in kernel.tables["nat"].get("KUBE-SERVICES", ())
    )


@settings(deadline=None, max_examples=examples(30))
@given(
    mode=st.sampled_from(MODES),
    options=st.sampled_from(sorted(set(OPTIONS) - {"all", "loopback"})),
    losses=st.lists(
        st.sampled_from(sorted(LOSSES)).map(LOSSES.__getitem__)
        | st.lists(st.sampled_from(POOL), unique=True).map(tuple),
        min_size=1,
        max_size=4,
    ),
)
def test_whatever_is_taken_away_opens_nothing(mode, options, losses):
    """Of the Node or of the host: node ports and health ports answer where they did, or in fewer places."""
    with pytest.MonkeyPatch.context() as patch:
        listening = _listening(patch)
        stage = staged(mode, OPTIONS[options])
        stage.at(0, changed(THERE), *services())
        before: list[tuple[frozenset[object], object]] = []
        stage.at(2, lambda: before.append(_openness(stage, listening)))
        for number, loss in enumerate(losses):
            if all(isinstance(one, str) for one in loss):
                left = [one for one in ("192.168.50.10", "10.77.0.10", "fd00:50::10") if one not in loss]
                stage.at(3 + number, lambda left=left: becomes(stage, host(*left)))
            else:
                stage.at(3 + number, *loss)
        after: list[tuple[frozenset[object], object]] = []
        stage.at(10, lambda: after.append(_openness(stage, listening)))
        stage.run(11)
    assert after[0][0] <= before[0][0]
    assert after[0][1] == before[0][1]


def _openness(stage: Stage, listening: set[tuple[str, int]]) -> tuple[frozenset[object], object]:
    """Return where the node answers more than its ClusterIPs, and what keeps strangers from passing for its pods."""
    model = stage.desired.compiled().model
    open_: set[object] = set(listening)
    for family, one in model.nodes.items():
        open_ |= {(family, None)} if one.node_port_addresses is None else {(family, a) for a in one.node_port_addresses}
        open_ |= {"loopback"} if one.localhost_node_ports else set()
    open_ |= set(model.sysctls.items())
    return frozenset(open_), {family: (one.pods, one.masquerade_cluster_ip) for family, one in model.nodes.items()}


@pytest.mark.parametrize("mode", MODES)
def test_what_becomes_the_nodes_or_its_gateways_is_served_no_more_in_strict_semantics(mode):
    """And again when it is so no longer."""
    stage = staged(mode, OPTIONS["strict"])
    external = changed(service("outer", 3, external_ips=("203.0.113.1", "192.168.50.77")))
    stage.at(0, changed(THERE), *services(), external)
    found: list[set[str]] = []

    def note() -> None:
        (outer,) = (one for one in stage.desired.services() if one.name.name == "outer")
        found.append({str(address) for port in outer.ports for address in port.external_ips})

    stage.at(5, note)
    stage.at(6, lambda: becomes(stage, dataclasses.replace(HOST, gateways=frozenset({parse_address("203.0.113.1")}))))
    stage.at(15, note)
    stage.at(16, lambda: becomes(stage, host("192.168.50.10", "192.168.50.77", "10.77.0.10", "fd00:50::10")))
    stage.at(25, note)
    stage.at(26, lambda: becomes(stage, HOST))
    stage.at(35, note)
    stage.run(40)
    both = {"203.0.113.1", "192.168.50.77"}
    assert found == [both, {"192.168.50.77"}, {"203.0.113.1"}, both]
    assert any("203.0.113.1 is the gateway of this node" in line for line in stage.log)
    assert any("192.168.50.77 is an address of this node" in line for line in stage.log)
