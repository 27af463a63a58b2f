"""Virtual servers, sets and addresses: printed, read back, and changed in an order that breaks nothing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.diff.changes import Change, diff
from rulegen.errors import InputError
from rulegen.languages.addresses import state as links
from rulegen.languages.addresses.script import script as link_script
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.script import TEMPORARY, Order
from rulegen.languages.ipset.script import script as set_script
from rulegen.languages.ipvs import text
from rulegen.languages.ipvs.script import as_drains, draining, script
from rulegen.languages.ipvs.state import (
    Forwarding,
    Frontend,
    RealServer,
    RealServerKey,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)
from rulegen.net import Protocol

ports = st.integers(1, 65535)
addresses = st.one_of(
    st.integers(1, 2**32 - 1).map(IPv4Address),
    # inet_ntop prints those with dots, which no Service has
    st.integers(2**64, 2**128 - 1).map(IPv6Address).filter(lambda a: a.ipv4_mapped is None and a.scope_id is None),
)
frontends = st.builds(Frontend.of, st.sampled_from(Protocol), addresses, ports)
virtual_servers = st.builds(
    VirtualServer,
    scheduler=st.sampled_from(("rr", "wlc", "mh", "sh")),
    persistence_s=st.one_of(st.none(), st.integers(1, 86400)),
    scheduler_flags=st.sampled_from((0, 0x8, 0x10, 0x38)),
    one_packet=st.booleans(),
)
real_servers = st.builds(
    RealServer,
    weight=st.integers(0, 65535),
    forwarding=st.sampled_from((Forwarding.MASQUERADE, Forwarding.ROUTE, Forwarding.TUNNEL)),
    upper=st.integers(0, 9),
    lower=st.integers(0, 9),
)


@st.composite
def servers(draw: st.DrawFn):
    objects = {}
    for frontend in draw(st.lists(frontends, max_size=4, unique=True)):
        objects[VirtualServerKey(frontend)] = draw(virtual_servers)
        for address in draw(st.lists(addresses, max_size=3, unique=True)):
            objects[RealServerKey(frontend, address, draw(ports))] = draw(real_servers)
    return objects


@given(servers())
def test_servers_that_are_printed_are_read_back(objects):
    assert text.read(text.format_servers(objects), "test") == objects
    for key, value in objects.items():
        if isinstance(value, VirtualServer):
            timeout = value.persistence_s or 0
            assert VirtualServer.of_flags(value.scheduler, value.flags, timeout) == value
            assert VirtualServerKey(key.frontend) == key


@given(servers(), servers())
def test_commands_turn_any_servers_into_any_others(before, after):
    commands = script(diff(before, after))
    now = dict(before)
    for command in (*commands.grow, *commands.settle, *commands.shrink):
        is_virtual = isinstance(command.key, VirtualServerKey)
        assert is_virtual or VirtualServerKey(command.key.frontend) in now
        if command.verb.value in {"-A", "-a"}:
            assert command.key not in now
        else:
            assert command.key in now
        if command.value is not None:
            now[command.key] = command.value
        elif is_virtual:
            now = {key: value for key, value in now.items() if key.frontend != command.key.frontend}
        else:
            del now[command.key]
    assert now == after


def test_a_firewall_mark_is_somebody_elses():
    assert text.read("-A -f 7 -s rr\n-a -f 7 -r 10.0.0.1:0 -g -w 1\n", "test") == {}


def test_persistence_for_a_network_is_distinguished():
    (value,) = text.read("-A -t 10.0.0.1:80 -s rr -p 300 -M 255.255.255.0\n", "test").values()
    assert value == VirtualServer("rr", 300, netmask=24)


@pytest.mark.parametrize(
    "line", ["-A -t nowhere", "-X -t 10.0.0.1:80", "hello", "-a -t 10.0.0.1:80", "-A -t 1.2.3:9 -s rr", "-A -t"]
)
def test_what_is_no_server_is_refused_with_its_line(line):
    with pytest.raises(InputError, match="line 2"):
        text.read(f"-A -t 10.0.0.1:80 -s rr\n{line}\n", "dump")


def test_timeouts_are_read_as_they_are_printed():
    assert text.read_timeouts(text.format_timeouts(Timeouts(900, 120, 300))) == (900, 120, 300)
    assert text.read_timeouts("hello") is None


WEB = Frontend.of(Protocol.TCP, IPv4Address("10.96.0.1"), 80)
DNS = Frontend.of(Protocol.UDP, IPv4Address("10.96.0.1"), 53)


def real(frontend: Frontend, last: int) -> RealServerKey:
    return RealServerKey(frontend, IPv4Address(f"10.244.1.{last}"), 8080)


@pytest.mark.parametrize(
    ("frontend", "before", "expected"),
    [
        (WEB, RealServer(connections=2), RealServer(0)),
        (WEB, RealServer(connections=None), RealServer(0)),
        (WEB, RealServer(connections=0), None),
        (WEB, RealServer(0, connections=0), None),
        (WEB, RealServer(0, connections=1), "left alone"),
        (DNS, RealServer(connections=2), None),
    ],
)
def test_a_real_server_goes_when_its_connections_have_ended(frontend, before, expected):
    there = {VirtualServerKey(frontend): VirtualServer("rr"), real(frontend, 1): before}
    wanted = {VirtualServerKey(frontend): VirtualServer("rr")}
    changes = list(as_drains(diff(there, wanted)))
    assert [change.after for change in changes] == ([] if expected == "left alone" else [expected])
    assert draining(there, wanted) == ((real(frontend, 1),) if before.weight == 0 else ())
    (change,) = as_drains([Change(VirtualServerKey(frontend), VirtualServer("rr"), None)])
    assert change.after is None


def test_new_real_servers_come_before_old_ones_go():
    there = {VirtualServerKey(WEB): VirtualServer("rr"), real(WEB, 1): RealServer()}
    wanted = {VirtualServerKey(WEB): VirtualServer("rr"), real(WEB, 2): RealServer(3)}
    commands = script(diff(there, wanted))
    assert [str(command) for command in commands.grow] == ["-a -t 10.96.0.1:80 -r 10.244.1.2:8080 -m -w 3"]
    assert [str(command) for command in commands.settle] == ["-d -t 10.96.0.1:80 -r 10.244.1.1:8080"]


SETS = {
    ipset.SetKey("GUARD"): ipset.SetValue("hash:ip,port", "inet"),
    ipset.SetKey("LET-IN"): ipset.SetValue("hash:ip,port,net", "inet"),
    ipset.SetKey("LATE"): ipset.SetValue("bitmap:port", range="0-65535"),
    ipset.EntryKey("GUARD", "10.0.0.1,tcp:80"): ipset.PLAIN,
    ipset.EntryKey("LET-IN", "10.0.0.1,tcp:80,192.0.2.0/24"): ipset.PLAIN,
    ipset.EntryKey("LATE", "30080"): ipset.PLAIN,
}
ORDER = Order(("LET-IN", "GUARD"), frozenset({"LATE"}))


def test_sets_are_filled_in_order_and_emptied_in_reverse():
    scripts = set_script(diff({}, SETS), SETS, ORDER)
    assert [line.split()[:2] for line in scripts.grow.splitlines()[3:]] == [["add", "LET-IN"], ["add", "GUARD"]]
    assert scripts.late == "add LATE 30080\n"
    empty = {key: value for key, value in SETS.items() if isinstance(key, ipset.SetKey)}
    scripts = set_script(diff(SETS, empty), empty, ORDER)
    assert scripts.grow == "del LATE 30080\n"
    assert [line.split()[:2] for line in scripts.shrink.splitlines()] == [["del", "GUARD"], ["del", "LET-IN"]]
    assert set_script(diff(SETS, {}), {}, ORDER).shrink.splitlines() == [
        "destroy GUARD",
        "destroy LATE",
        "destroy LET-IN",
    ]


def test_a_set_with_other_extensions_is_filled_and_swapped():
    spoilt = {**SETS, ipset.SetKey("GUARD"): ipset.SetValue("hash:ip,port", "inet", extensions=frozenset({"comment"}))}
    scripts = set_script(diff(spoilt, SETS), SETS, ORDER)
    assert scripts.grow.splitlines() == [
        f"create {TEMPORARY} hash:ip,port family inet maxelem 65536",
        f"add {TEMPORARY} 10.0.0.1,tcp:80",
        f"swap {TEMPORARY} GUARD",
        f"destroy {TEMPORARY}",
    ]


def many(count: int, room: int = ipset.MAXELEM) -> ipset.Objects:
    objects: ipset.Objects = {ipset.SetKey("MANY"): ipset.SetValue("hash:ip", "inet", maxelem=room)}
    return objects | {ipset.EntryKey("MANY", str(IPv4Address(number))): ipset.PLAIN for number in range(count)}


def test_a_set_without_room_for_what_comes_gets_more_of_it():
    assert list(ipset.needs_resize(many(4, 4), many(4))) == []
    (change,) = ipset.needs_resize(many(4, 4), {**many(1), ipset.EntryKey("MANY", "10.0.0.1"): ipset.PLAIN})
    scripts = set_script([change], {**many(1), ipset.EntryKey("MANY", "10.0.0.1"): ipset.PLAIN})
    assert scripts.grow.splitlines()[0] == f"create {TEMPORARY} hash:ip family inet maxelem 65536"
    assert scripts.grow.splitlines()[-2:] == [f"swap {TEMPORARY} MANY", f"destroy {TEMPORARY}"]


@pytest.mark.parametrize(("count", "room"), [(1, 65536), (65536, 65536), (65537, 131072), (300_000, 524_288)])
def test_sets_have_kube_proxys_size_while_that_is_enough(count, room):
    assert ipset.SetValue("hash:ip", "inet").with_room(count).maxelem == room
    assert ipset.SetValue("bitmap:port", range="0-65535").with_room(count).options == "bitmap:port range 0-65535"


def test_a_set_of_another_type_is_made_anew():
    spoilt = {**SETS, ipset.SetKey("GUARD"): ipset.SetValue("hash:ip", "inet")}
    scripts = set_script(diff(spoilt, SETS), SETS, ORDER)
    assert (scripts.grow, scripts.anew.splitlines()[0]) == ("", "destroy GUARD")


def test_sets_that_are_printed_are_read_back():
    assert ipset.read(ipset.format_sets(SETS), "test") == SETS


def test_more_than_a_set_is_of_ours_is_seen():
    objects = ipset.read(
        "create X hash:ip family inet hashsize 64 maxelem 10 timeout 30 counters bucketsize 12\n", "test"
    )
    assert objects == {
        ipset.SetKey("X"): ipset.SetValue("hash:ip", "inet", extensions=frozenset({"timeout", "counters"}))
    }


@pytest.mark.parametrize("line", ["destroy X", "add X", "create X", "-A -t 10.0.0.1:80 -s rr"])
def test_what_is_no_set_is_refused_with_its_line(line):
    with pytest.raises(InputError, match="line 1"):
        ipset.read(line, "dump")


def test_addresses_are_read_whatever_the_state_of_the_device():
    parsed = links.read("kube-ipvs0@NONE UNKNOWN 10.96.0.1/32 fd00::1/128 fe80::1/64\n", "test")
    keys = [links.AddressKey.whole("kube-ipvs0", a) for a in (IPv4Address("10.96.0.1"), IPv6Address("fd00::1"))]
    assert list(parsed.addresses) == keys
    assert links.read(links.format_links(parsed.devices, parsed.addresses), "test") == parsed
    told_commands = link_script(diff({keys[0]: links.BOUND}, {keys[1]: links.BOUND}))
    assert [str(command) for command in told_commands.bind] == ["addr add fd00::1/128 dev kube-ipvs0"]
    assert [str(command) for command in told_commands.unbind] == ["addr del 10.96.0.1/32 dev kube-ipvs0"]


def test_only_ipv6_link_local_addresses_are_the_kernels_own():
    parsed = links.read("kube-ipvs0 DOWN 169.254.9.9/32 fe80::1/64 fd00::1/128\n", "dump")
    assert [str(key) for key in parsed.addresses] == ["169.254.9.9/32", "fd00::1/128"]


def test_what_is_no_address_is_refused():
    with pytest.raises(InputError, match="line 1"):
        links.read("kube-ipvs0 DOWN 10.96.0.1/33", "dump")
