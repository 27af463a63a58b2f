"""A running agent on a host and a Node that change: what it keeps is what a new process would make of them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.agent.pages_server import health
from rulegen.errors import HostError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.model.services.options import Options
from rulegen.net import Family, parse_address
from tests.agent.hosts import (
    HEALTH_PORT,
    HOST,
    MODES,
    OPTIONS,
    POOL,
    PRIMARY,
    THERE,
    becomes,
    differences,
    happening,
    host,
    listening_ports,
    node,
    services,
    staged,
)
from tests.agent.stage import NODE, changed, endpoints, service
from tests.sizes import examples

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
@pytest.mark.slow
def test_after_any_changes_all_is_as_a_new_process_has_it(mode, options, changes, pace):
    """After any changes of host and node all is as a new process would have it."""
    with pytest.MonkeyPatch.context() as patch:
        listening = listening_ports(patch)
        stage = staged(mode, OPTIONS[options])
        stage.at(0, changed(THERE), *services())
        for number, change in enumerate(changes, 1):
            at = 3 + number * pace
            stage.at(at, happening(stage, change))
        end = 3 + len(changes) * pace + 2  # minSyncPeriod, and a second
        differing: list[object] = []
        stage.at(end, lambda: differing.extend(differences(stage, listening)))
        stage.run(end + 0.1)
    assert differing == []
    assert [line for line in stage.log if "error" in line.lower()] == []


@pytest.mark.parametrize("failure", ["lost", "half"])
@pytest.mark.parametrize("mode", MODES)
def test_addresses_that_could_not_be_written_are_tried_again(mode, failure, listening):
    stage = staged(mode, OPTIONS["network"])
    stage.at(0, changed(THERE), *services())
    stage.at(5, lambda: stage.writer.failures.append(failure))
    stage.at(5, lambda: becomes(stage, host("192.168.50.77", "10.77.0.10", "fd00:50::10")))
    differing: list[object] = []
    stage.at(9, lambda: differing.extend(differences(stage, listening)))
    stage.run(9.1)
    assert (differing, list(stage.writer.failures)) == ([], [])
    assert len([line for line in stage.log if "not written" in line]) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", ["host", "node"])
def test_a_new_address_has_node_ports_within_a_second(mode, first, listening):
    """In either order: the interface changes, and the kubelet registers the address."""
    stage = staged(mode, PRIMARY)
    stage.at(0, changed(THERE), *services())
    steps = [
        lambda: becomes(stage, host("192.168.50.77", "fd00:50::10")),
        changed(node("192.168.50.77", "fd00:50::10")),
    ]
    for number, step in enumerate(steps if first == "host" else reversed(steps)):
        stage.at(10 + number * 0.1, step)
    differing: list[object] = []
    stage.at(11.2, lambda: differing.append((differences(stage, listening), set(listening))))
    stage.run(12)
    assert differing == [([], {("192.168.50.77", HEALTH_PORT), ("fd00:50::10", HEALTH_PORT)})]


def test_an_address_without_notice_is_seen_at_the_next_period():
    """An address that no notice came for is found at the next period."""
    stage = staged("iptables", OPTIONS["network"])
    stage.at(0, changed(THERE), *services())
    stage.at(5, lambda: setattr(stage.writer, "host", host("192.168.50.77")))
    stage.run(61)
    assert [
        rule for rule in stage.writer.kernels[Family.IPV4].tables["nat"]["KUBE-SERVICES"] if "192.168.50.77" in rule
    ]


def test_a_parameter_that_others_set_is_followed(listening):
    """A parameter that others set decides as for a new process."""
    stage = staged("iptables", Options())
    stage.at(0, changed(THERE), *services())
    liberal = host(*POOL[:1], sysctls={"net.netfilter.nf_conntrack_tcp_be_liberal": "1"})
    stage.at(5, lambda: setattr(stage.writer, "host", liberal))
    differing: list[object] = []
    stage.at(40, lambda: differing.extend(differences(stage, listening)))
    stage.run(41)
    assert differing == []


@pytest.mark.parametrize("mode", MODES)
def test_a_change_without_other_rules_reads_and_writes_nothing(mode):
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
def test_other_addresses_are_one_small_write(mode, options, listening):
    """Other addresses are one small write and no look at all rules."""
    stage = staged(mode, OPTIONS[options])
    stage.at(0, changed(THERE), *services(), changed(service("other", 3)))
    stage.at(5, lambda: becomes(stage, host("192.168.50.77", "10.77.0.10", "fd00:50::10")))
    stage.at(5, changed(node("192.168.50.77", "fd00:50::10")))
    differing: list[object] = []
    stage.at(7, lambda: differing.extend(differences(stage, listening)))
    stage.run(8)
    assert differing == []
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


def test_a_failed_health_port_is_tried_again_on_host_changes(monkeypatch):
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


@pytest.mark.parametrize("mode", MODES)
def test_an_address_that_becomes_the_nodes_is_served_no_more(mode):
    """And again when it is so no longer."""
    stage = staged(mode, OPTIONS["strict"])
    external = changed(service("outer", 3, external_ips=("203.0.113.1", "192.168.50.77")))
    stage.at(0, changed(THERE), *services(), external)
    seen: list[set[str]] = []

    def note() -> None:
        (outer,) = (resolved for resolved in stage.desired.services() if resolved.name.name == "outer")
        seen.append({str(address) for port in outer.ports for address in port.external_ips})

    stage.at(5, note)
    stage.at(6, lambda: becomes(stage, dataclasses.replace(HOST, gateways=frozenset({parse_address("203.0.113.1")}))))
    stage.at(15, note)
    stage.at(16, lambda: becomes(stage, host("192.168.50.10", "192.168.50.77", "10.77.0.10", "fd00:50::10")))
    stage.at(25, note)
    stage.at(26, lambda: becomes(stage, HOST))
    stage.at(35, note)
    stage.run(40)
    both = {"203.0.113.1", "192.168.50.77"}
    assert seen == [both, {"192.168.50.77"}, {"203.0.113.1"}, both]
    assert any("203.0.113.1 is the gateway of this node" in line for line in stage.log)
    assert any("192.168.50.77 is an address of this node" in line for line in stage.log)
