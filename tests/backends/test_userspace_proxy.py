"""The proxy's objects: what is written for HAProxy and for people is read back, and hostile reports are rejected."""

from __future__ import annotations

import pytest

from rulegen.backends.userspace import configuration as c
from rulegen.backends.userspace.commands import commands
from rulegen.backends.userspace.spares import UnexpectedReportError, placement_of, read_pools
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
from rulegen.net import Family, Protocol, parse_address

ADDRESS = {Family.IPV4: ("10.96.0.9", "10.244.1.1"), Family.IPV6: ("fd00:96::9", "fd00:244::1")}


def objects(affinity_s=None, namespace="demo", protocol=Protocol.TCP):
    result = {}
    for family, (frontend, endpoint) in ADDRESS.items():
        pool = pool_name(namespace, "web", "http", family)
        server = PoolServer(pool, parse_address(endpoint), 8080)
        result |= {
            listener_key(family, protocol): ProxyListener(10261),
            pool_key(family, pool, protocol): ServerPool(affinity_s),
            server_key(family, server, protocol): server,
            frontend_key(family, parse_address(frontend), 80, protocol): ProxyFrontend(pool),
            frontend_key(family, None, 30080, protocol): ProxyFrontend(pool),
        }
    return result


@pytest.mark.parametrize("affinity_s", [None, 10_800])
def test_an_export_is_read_back(affinity_s):
    wanted = objects(affinity_s) | objects(affinity_s, protocol=Protocol.UDP)
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
    for name in (name for name in backends if not name.startswith("spare")):
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
    with pytest.raises(UnexpectedReportError):
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


def test_a_new_pool_without_a_spare_backend_or_another_affinity_needs_a_reload():
    listeners = {listener_key(family): ProxyListener(10261) for family in Family}
    assert commands({}, objects()) is None
    assert commands(listeners, objects(), _placement(objects(), dict.fromkeys(_spares(objects()), "-"))) is None
    assert commands(objects(), objects(10_800), _placement(objects())) is None


def _backends(wanted) -> list[str]:
    lines = c.files(wanted).texts["haproxy.cfg"].splitlines()
    return [line.split()[1] for line in lines if line.startswith("backend ")]


def _spares(wanted) -> list[str]:
    return [name for name in _backends(wanted) if name.startswith("spare")]


def _placement(wanted, pools=()):
    return placement_of(iter(_backends(wanted)), dict(pools))


@pytest.mark.parametrize("affinity_s", [None, 10_800])
def test_a_new_pool_takes_a_spare_backend_of_its_kind(affinity_s):
    before = {key: value for key, value in objects().items() if isinstance(value, ProxyListener)}
    suffix = f".a{affinity_s}" if affinity_s else ""
    placement = _placement(before)
    texts = [each.text for each in commands(before, objects(affinity_s), placement)]
    for short in ("v4", "v6"):
        pool, spare = f"demo.web.http.{short}", f"spare0.{short}{suffix}"
        assert placement.backends[pool] == spare
        assert f"add map pools.map {spare} {pool}\n" in texts
        assert sum(text.startswith(f"add server {spare}/") for text in texts) == 2
        assert sum(text.startswith(f"add map {short}.map ") and text.endswith(f" {spare}\n") for text in texts) == 2
    gone = [each.text for each in commands(objects(affinity_s), before, placement)]
    assert gone[-2:] == [f"set map pools.map spare0.v4{suffix} -\n", f"set map pools.map spare0.v6{suffix} -\n"]


def test_a_removed_pool_leaves_its_own_backend_unused():
    before = objects()
    after = {key: value for key, value in before.items() if isinstance(value, ProxyListener)}
    texts = [each.text for each in commands(before, after, _placement(before))]
    assert texts[-2:] == ["add map pools.map demo.web.http.v4 -\n", "add map pools.map demo.web.http.v6 -\n"]


def test_spare_backends_are_few_when_less_than_a_quarter_is_free():
    spares = [name for name in _spares(objects()) if name.endswith(".v4")]
    assert len(spares) == 16
    used = [_placement(objects(), dict.fromkeys(spares[:count], "-")).is_low for count in range(17)]
    assert used == [count > 12 for count in range(17)]


def test_there_are_spare_backends_for_a_quarter_of_the_pools_of_a_kind():
    many = {listener_key(Family.IPV4): ProxyListener(10261)}
    many |= {pool_key(Family.IPV4, f"demo.web{number}.http.v4"): ServerPool(600) for number in range(100)}
    assert sum(name.endswith(".v4.a600") for name in _spares(many)) == 25


@pytest.mark.parametrize("line", ["0x1 a b", "0x1 x.v4", "0x1 demo.web.http.v4 Evil", "0x1 demo.web.http.v4 a.v4 b"])
def test_an_unexpected_entry_of_the_map_of_pools_is_an_error(line):
    assert read_pools("0x1 demo.web.http.v4 -\n\n") == {"demo.web.http.v4": "-"}
    with pytest.raises(UnexpectedReportError):
        read_pools(f"{line}\n")
