"""The next hops of default routes, of both families, however a route names them."""

from __future__ import annotations

import errno
import os
import subprocess
from ipaddress import ip_address

import pytest

from rulegen.errors import HostError
from rulegen.host.netlink import messages
from rulegen.host.node.gateways import gateways


def ip(*arguments: str, batch: str | None = None) -> None:
    subprocess.run(["ip", *arguments], input=batch, text=True, check=True, timeout=20)


def test_only_gateways_of_default_routes_are_returned(namespace):
    ip(
        "-batch",
        "-",
        batch="""
link add eth0 type veth peer name peer0
link set eth0 up
link set peer0 up
addr add 192.0.2.7/24 dev eth0
addr add 2001:db8::7/64 dev eth0 nodad
route add default via 192.0.2.1
route add default via 192.0.2.2 metric 200
route add default metric 300 nexthop via 192.0.2.3 dev eth0 nexthop via 192.0.2.4 dev eth0
route add default via inet6 2001:db8::5 dev eth0 metric 400
route add 10.244.1.0/24 via 192.0.2.9
route add default via 192.0.2.8 table 100
route add default via 2001:db8::1 dev eth0
route add default via fe80::1 dev eth0 metric 2000
""",
    )
    expected = {"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::5", "2001:db8::1"}
    assert gateways() == {ip_address(text) for text in expected}


def test_a_host_without_routes_has_none(namespace):
    assert gateways() == frozenset()


def test_a_kernel_that_does_not_say_is_an_error(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(messages, "connect", refused)
    with pytest.raises(HostError, match="reading the routes: Operation not permitted"):
        gateways()
