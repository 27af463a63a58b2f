"""The proxy's objects: what is written for HAProxy and for people is read back, and hostile reports are rejected."""

from __future__ import annotations

import pytest

from rulegen.backends.userspace import configuration as c
from rulegen.backends.userspace.commands import commands
from rulegen.errors import InputError
from rulegen.languages.haproxy.text import UnwritableError
from rulegen.languages.listeners.state import (
    PoolServer,
    ProxyFrontend,
    ProxyListener,
    ServerPool,
    format_proxy,
    frontend_key,
    listener_key,
    pool_key,
    pool_name,
    read_proxy,
    server_key,
)
from rulegen.net import Family, parse_address

ADDRESS = {Family.IPV4: ("10.96.0.9", "10.244.1.1"), Family.IPV6: ("fd00:96::9", "fd00:244::1")}


def objects(affinity_s=None, namespace="demo"):
    result = {}
    for family, (frontend, endpoint) in ADDRESS.items():
        pool = pool_name(namespace, "web", "http", family)
        server = PoolServer(pool, parse_address(endpoint), 8080)
        result |= {
            listener_key(family): ProxyListener(10261),
            pool_key(family, pool): ServerPool(affinity_s),
            server_key(family, server): server,
            frontend_key(family, parse_address(frontend), 80): ProxyFrontend(pool),
            frontend_key(family, None, 30080): ProxyFrontend(pool),
        }
    return result


@pytest.mark.parametrize("affinity_s", [None, 10_800])
def test_an_export_is_read_back(affinity_s):
    wanted = objects(affinity_s)
    assert read_proxy(format_proxy(wanted), "file") == wanted


@pytest.mark.parametrize(
    "line", ["pool A.b.v4", "server a.b.c.v4 10.0.0.1:0", "frontend x:1 pool a.b.c.v4", "pool a.v4; x"]
)
def test_a_line_of_somebody_else_is_an_error(line):
    with pytest.raises(InputError, match="line 1"):
        read_proxy(line, "file")


def test_the_runtime_reports_of_the_configuration_are_the_objects():
    """Reports in the form of HAProxy 2.6, with the names that the configuration has."""
    wanted = objects(10_800)
    files = c.files(wanted).texts
    backends = [line.split()[1] for line in files["haproxy.cfg"].splitlines() if line.startswith("backend ")]
    fronts = [line.split()[1] for line in files["haproxy.cfg"].splitlines() if line.startswith("frontend ")]
    proxies = "# pxname\n" + "".join(f"{name},FRONTEND,,\n" for name in fronts)
    proxies += "".join(f"{name},BACKEND,0\n" for name in backends)
    rows = []
    for name in backends:
        address = ADDRESS[Family.IPV6 if ".v6" in name else Family.IPV4][1]
        rest = f"{address} 2 0 1 1 0 1 0 2 0 0 0 0 - 8080 - 0 0 - - 0\n"
        rows += [f"3 {name} 1 {address}_8080 {rest}", f"3 {name} 2 {address}_8080_fallback {rest}"]
    maps = {family: "".join(f"0x55 {line}\n" for line in files[c.map_file(family)].splitlines()) for family in Family}
    assert c.objects_of_reports(proxies, "1\n" + "".join(rows), maps, supervised=dict.fromkeys(Family, 10261)) == wanted
    alone = c.objects_of_reports(proxies, "1\n" + "".join(rows), maps, supervised={Family.IPV6: 10261, Family.IPV4: 1})
    assert alone[listener_key(Family.IPV4)] == ProxyListener(10261, is_supervised=False)


def test_a_server_in_maintenance_counts_as_removed():
    row = "3 a.b.c.v4 1 10.0.0.1_80{} 10.0.0.1 0 {} 1 1 0 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n"
    reports = {
        (admin, of_fallback): row.format("", admin) + row.format("_fallback", of_fallback)
        for admin in (0, 1)
        for of_fallback in (0, 1)
    }
    served = {
        admins: c.objects_of_reports("", f"1\n{rows}", {}, supervised={}) != {} for admins, rows in reports.items()
    }
    assert served == {(0, 0): True, (0, 1): False, (1, 0): False, (1, 1): False}


@pytest.mark.parametrize(
    "report", ["2\n", "1\nx y\n", "1\n3 a.b.c.v4 1 evil 10.0.0.1 2 0 1 1 0 1 0 2 0 0 0 0 - 80 - 0\n"]
)
def test_an_unexpected_report_is_an_error(report):
    with pytest.raises(c.UnexpectedReportError):
        list(c.read_servers(report))


@pytest.mark.parametrize("namespace", ["a b", "a\nb", "a;b", "a'b", "${X}", "a#b", "%[x"])
def test_no_name_breaks_out_of_its_place(namespace):
    with pytest.raises(UnwritableError):
        c.files(objects(namespace=namespace))


def test_servers_and_frontends_change_without_a_reload():
    before = objects()
    pool = pool_name("demo", "web", "http", Family.IPV6)
    server = PoolServer(pool, parse_address("fd00:244::2"), 8080)
    after = {**before, server_key(Family.IPV6, server): server}
    options = "check inter 1d fastinter 2s downinter 2s rise 1 fall 1 observe layer4 error-limit 1 on-error mark-down"
    assert [each.text for each in commands(before, after)] == [
        f"add server {pool}/fd00:244::2_8080 [fd00:244::2]:8080 {options}\n",
        f"enable health {pool}/fd00:244::2_8080\n",
        f"enable server {pool}/fd00:244::2_8080\n",
        f"add server {pool}/fd00:244::2_8080_fallback [fd00:244::2]:8080 backup\n",
        f"enable server {pool}/fd00:244::2_8080_fallback\n",
    ]
    assert [each.text for each in commands(after, before)] == [
        f"set server {pool}/fd00:244::2_8080 state maint\n",
        f"del server {pool}/fd00:244::2_8080\n",
        f"set server {pool}/fd00:244::2_8080_fallback state maint\n",
        f"del server {pool}/fd00:244::2_8080_fallback\n",
    ]


def test_a_new_pool_or_another_affinity_needs_a_reload():
    assert commands({}, objects()) is None
    assert commands(objects(), objects(10_800)) is None
