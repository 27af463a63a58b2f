"""On a real HAProxy, no client avoids a check by what it says of itself, or chooses the host of a redirect."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rulegen.host.haproxy.engine import HaproxyCompiler
from rulegen.kube.objects.kinds import KubeObject
from rulegen.model.ingress.defaults import HttpHost
from tests.strategies.ingresses import SETTINGS, options, service, settings_map, site, world

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

BALANCER, CLIENT = "127.0.0.2", "127.0.0.1"
INSIDE, OUTSIDE = "192.168.1.1", "203.0.113.1"
SEEN = "/?$best_http_host+$pass_access_scheme+$pass_port"
WITH_PROXY = {"use_proxy_protocol": "true", "whitelist_source_range": "192.168.0.0/16"}

Ask = Callable[..., tuple[int, str]]
Serve = Callable[..., Ask]


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _ask(port: int, path: str = "/", *, source: str = CLIENT, said: str = "", **headers: str) -> tuple[int, str]:
    """Return status and Location; `said` is the address in a PROXY header that is sent first."""
    with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0)) as connection:
        if said:
            connection.sendall(f"PROXY TCP4 {said} 127.0.0.1 5555 80\r\n".encode())
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in ({"Host": "site.test"} | headers).items()]
        connection.sendall(f"GET {path} HTTP/1.1\r\n{''.join(lines)}Connection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.getheader("Location", "")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Give a function that starts HAProxy for objects, and returns how it is asked."""
    with contextlib.ExitStack() as stack:

        def start(*objects: KubeObject, **settings: str) -> Ask:
            http_port, https_port = _free_ports()
            host = HttpHost(user="", http_port=http_port, https_port=https_port, ipv6=False)
            own = options(host=host, config_map=SETTINGS)
            compiler = HaproxyCompiler(own)
            given = world(service("web"), *objects, settings_map(bind_address="127.0.0.1", **settings))
            compiler.export(compiler.compile(given), str(tmp_path / "out"), with_secrets=True)
            (tmp_path / "out" / "run").mkdir(exist_ok=True)
            argv = ["haproxy", "-db", "-C", str(tmp_path / "out"), "-f", "haproxy.cfg", "-f", "secrets/users.cfg"]
            log = stack.enter_context((tmp_path / "log").open("w+"))
            process = subprocess.Popen(argv, stdout=log, stderr=log)
            stack.callback(process.wait, 20)
            stack.callback(process.kill)
            until = time.monotonic() + 20
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", http_port), timeout=20).close()
                    break
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.02)
            return lambda *args, **said: _ask(http_port, *args, **said)

        yield start


def test_who_is_not_trusted_does_not_avoid_the_redirect_to_https(serve):
    ask = serve(site(force_ssl_redirect="true"), use_forwarded_headers="true", proxy_real_ip_cidr=f"{BALANCER}/32")

    assert ask(source=CLIENT, X_Forwarded_Proto="https") == (308, "https://site.test")
    assert ask(source=BALANCER, X_Forwarded_Proto="https")[0] == 503  # it passes, and there is no endpoint


def test_who_is_not_trusted_tells_no_protocol_host_and_port(serve):
    ask = serve(
        site(temporal_redirect=SEEN, relative_redirects="true"),
        use_forwarded_headers="true", proxy_real_ip_cidr=f"{BALANCER}/32",
    )  # fmt: skip
    said = {"X_Forwarded_Proto": "https", "X_Forwarded_Port": "77", "X_Forwarded_Host": "told.test"}

    assert ask(source=BALANCER, **said) == (302, "/?told.test+https+77")
    status, where = ask(source=CLIENT, **said)
    assert status == 302
    assert re.fullmatch(r"/\?site\.test\+http\+(?!77$)\d+", where)


def test_without_networks_of_its_own_everybody_is_believed(serve):
    """As with ingress-nginx; a warning says so."""
    ask = serve(site(temporal_redirect=SEEN, relative_redirects="true"), use_forwarded_headers="true")

    assert ask(X_Forwarded_Proto="https", X_Forwarded_Port="77") == (302, "/?site.test+https+77")


def test_a_proxy_header_of_who_is_not_trusted_passes_no_whitelist(serve):
    ask = serve(site(), **WITH_PROXY, proxy_real_ip_cidr=f"{BALANCER}/32")

    assert ask(source=CLIENT, said=INSIDE)[0] == 400
    assert ask(source=CLIENT)[0] == 403
    assert ask(source=BALANCER, said=INSIDE)[0] == 503  # it passes, and there is no endpoint
    assert ask(source=BALANCER, said=OUTSIDE)[0] == 403


def test_with_a_proxy_header_the_headers_of_a_trusted_neighbour_count(serve):
    """The neighbour is who connects, not the address in the PROXY header."""
    ask = serve(
        site(temporal_redirect=SEEN, relative_redirects="true"), use_proxy_protocol="true",
        use_forwarded_headers="true", proxy_real_ip_cidr=f"{BALANCER}/32",
    )  # fmt: skip

    assert ask(source=BALANCER, said=OUTSIDE, X_Forwarded_Port="77") == (302, "/?site.test+http+77")
    assert ask(source=CLIENT, X_Forwarded_Port="77")[1] != "/?site.test+http+77"


def test_with_an_empty_list_nobody_is_trusted(serve):
    ask = serve(site(), **WITH_PROXY, proxy_real_ip_cidr="")

    assert ask(source=CLIENT, said=INSIDE)[0] == 400
    assert ask(source=BALANCER)[0] == 403


def test_without_networks_of_its_own_every_connection_has_a_proxy_header(serve):
    ask = serve(site(), **WITH_PROXY)

    assert ask(source=CLIENT, said=INSIDE)[0] == 503
    assert ask(source=BALANCER, said=OUTSIDE)[0] == 403


@pytest.mark.parametrize(
    ("target", "path", "where"),
    [
        ("/$request_uri", "/evil.test", "/evil.test"),
        ("/$request_uri", "//evil.test/x?y", "/evil.test/x?y"),
        ("/$location_path$arg_next", "/?next=evil.test", "/evil.test"),
        ("/$location_path$arg_next", "/?next=//evil.test", "/evil.test"),
        ("/$arg_next", r"/?next=\\evil.test", "/evil.test"),
        ("/$arg_next", "/", "/"),
        ("/$location_path", "/", "/"),
        ("/a$arg_next", "/?next=//b", "/a//b"),
        ("/new", "/", "/new"),
    ],
)
def test_a_relative_redirect_leads_to_no_other_host(serve, target, path, where):
    ask = serve(site(temporal_redirect=target, relative_redirects="true"))

    assert ask(path) == (302, where)
