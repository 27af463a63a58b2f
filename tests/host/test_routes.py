"""Policy routing of a real kernel: what is written is there, can be read back, and delivers packets to this host."""

from __future__ import annotations

import errno
import socket
import subprocess

import pytest

from rulegen.host.routing.routes import RoutesError, observe, write
from rulegen.languages.routes.script import RouteCommand
from rulegen.languages.routes.state import PRESENT, LocalRouteKey, MarkRuleKey
from rulegen.net import Family

TABLE, MARK = 4711, 0x2000
SO_MARK = 36
ELSEWHERE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}


def keys(family: Family) -> tuple[LocalRouteKey, MarkRuleKey]:
    return LocalRouteKey(family, TABLE), MarkRuleKey(family, TABLE, 100, MARK)


def change(family: Family, *, adds: bool) -> None:
    write([RouteCommand(key, adds=adds) for key in keys(family)])


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True, timeout=10).stdout


def error_of(family: Family, *, mark: int) -> int:
    """Return the errno of a connect to an address that this host does not have; 0 if there is a route."""
    with socket.socket(socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        sender.bind(("::1" if family is Family.IPV6 else "127.0.0.1", 0))
        return sender.connect_ex((ELSEWHERE[family], 9))


@pytest.mark.usefixtures("namespace")
def test_packets_with_the_mark_have_a_route_to_this_host_and_others_none(family):
    change(family, adds=True)
    assert error_of(family, mark=MARK | 1) == 0
    assert error_of(family, mark=1) == errno.ENETUNREACH
    change(family, adds=False)
    assert error_of(family, mark=MARK) == errno.ENETUNREACH


@pytest.mark.usefixtures("namespace")
def test_what_is_written_is_read_back(family):
    for _ in range(2):  # the second time, all is there
        change(family, adds=True)
        assert observe(TABLE) == dict.fromkeys(keys(family), PRESENT)
    for _ in range(2):
        change(family, adds=False)
        assert observe(TABLE) == {}


@pytest.mark.usefixtures("namespace")
def test_a_route_that_ip_has_added_is_deleted_too(family):
    version, anywhere = ("-6", "::/0") if family is Family.IPV6 else ("-4", "0.0.0.0/0")
    ip(version, "route", "add", "local", anywhere, "dev", "lo", "table", str(TABLE))
    assert list(observe(TABLE)) == [LocalRouteKey(family, TABLE)]
    write([RouteCommand(LocalRouteKey(family, TABLE), adds=False)])
    assert observe(TABLE) == {}


@pytest.mark.usefixtures("namespace")
def test_others_rules_and_routes_are_not_seen(family):
    version = "-6" if family is Family.IPV6 else "-4"
    anywhere = "::/0" if family is Family.IPV6 else "0.0.0.0/0"
    ip(version, "route", "add", "local", anywhere, "dev", "lo", "table", "4712")
    ip(version, "route", "add", "unreachable", anywhere, "table", str(TABLE))
    for words in (("fwmark", "0x2000/0x2000", "lookup", "4712"), ("fwmark", "0x1/0x3", "lookup", str(TABLE))):
        ip(version, "rule", "add", *words)
    ip(version, "rule", "add", "iif", "lo", "fwmark", "0x2000/0x2000", "lookup", str(TABLE))
    ip(version, "rule", "add", "lookup", str(TABLE))
    assert observe(TABLE) == {}


@pytest.mark.usefixtures("namespace")
def test_what_the_kernel_refuses_is_named():
    rule = MarkRuleKey(Family.IPV6, 0, 100, MARK)
    with pytest.raises(
        RoutesError, match="`ip rule add from ::/0 fwmark 0x2000/0x2000 lookup 0 priority 100`: Invalid"
    ):
        write([RouteCommand(rule, adds=True)])
