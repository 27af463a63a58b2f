"""Pages that show the whole node are for root on this host: not for whom a proxy asks, whatever the proxy says."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rulegen.agent.pages import PATHS
from rulegen.agent.pages_server import server as servers
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import AS_JSON, PageServer
from rulegen.errors import HostError
from rulegen.host.node.facts import interfaces
from tests.agent.asking import ask, free_port
from tests.apiserver.watching import soon
from tests.rights import needs_nginx, needs_root

NOBODY = 65534
SECRET = "all rules of this node\n"


@pytest.fixture
def server():
    pages = {path: lambda: Reply(200, SECRET) for name in PATHS for path in (name, name + AS_JSON)}
    serving = PageServer("0.0.0.0", 0, {**pages, "/metrics": lambda: Reply(200, "m")}, private=PATHS)
    yield serving
    serving.stop()


def _outside() -> str:
    own = (str(address) for interface in interfaces() for address, _ in interface.addresses if address.version == 4)
    return next((address for address in own if not address.startswith("127.")), "")


@pytest.mark.parametrize("path", [*PATHS, f"/plan{AS_JSON}"])
@pytest.mark.parametrize("host", [None, "localhost", "127.0.0.1:10249", "[::1]"])
def test_they_are_shown_to_us(server, path, host):
    assert ask(server.port, path, headers={"Host": host} if host else None)[:2] == (200, SECRET)


@pytest.mark.parametrize("path", [*PATHS, f"/plan{AS_JSON}"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "10.0.0.1"},
        {"Host": "web-1:10249"},
        {"Host": "localhost", "X-Forwarded-For": "192.0.2.1"},
        {"Host": "localhost", "x-forwarded-host": ""},
        {"Host": "localhost", "X-Real-IP": "192.0.2.1"},
        {"Host": "localhost", "Forwarded": "for=192.0.2.1"},
        {"Host": "localhost", "Via": "1.1 proxy"},
        {"Host": "localhost", "X-Request-ID": "1"},
    ],
)
def test_what_a_proxy_passes_on_is_refused(server, path, headers):
    status, body, _ = ask(server.port, path, headers=headers)
    assert status == 403
    assert SECRET not in body


def test_they_are_shown_to_us_over_ipv6():
    try:
        server = PageServer("::1", 0, {"/plan": lambda: Reply(200, SECRET)}, private=PATHS)
    except HostError:
        pytest.skip("this host has no IPv6")
    try:
        assert ask(server.port, "/plan", host="::1")[:2] == (200, SECRET)
        assert ask(server.port, "/plan", host="::1", headers={"Host": "[::2]"})[0] == 403
    finally:
        server.stop()


def test_whoever_comes_to_another_address_is_refused(server):
    outside = _outside()
    if not outside:
        pytest.skip("this host has no address but loopback's")
    assert ask(server.port, "/plan", host=outside, headers={"Host": "localhost"})[0] == 403
    assert ask(server.port, "/metrics", host=outside)[0] == 200


ASKS = """
import encodings.idna, http.client, os, sys
os.setuid(int(sys.argv[2]))
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
connection.request("GET", "/plan", headers={"Host": "localhost"})
print(connection.getresponse().status)
"""


@needs_root
@pytest.mark.parametrize(("user", "status"), [(0, 200), (NOBODY, 403)])
def test_another_user_of_this_host_is_refused(server, user, status):
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(server.port), str(user)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) == status


def test_a_connection_without_owner_is_refused(server, monkeypatch):
    """Where the kernel does not say whose a connection is nobody is shown them."""

    def unknown(*_: object) -> int:
        raise PermissionError(1, "not for you")

    monkeypatch.setattr(servers, "owner_of", unknown)
    assert ask(server.port, "/plan")[0] == 403
    monkeypatch.setattr(servers, "owner_of", lambda *_: None)
    assert ask(server.port, "/plan")[0] == 403
    assert ask(server.port, "/metrics")[0] == 200


@needs_root
@needs_nginx
def test_a_proxy_that_names_localhost_is_refused(server, tmp_path: Path):
    """As nginx does for an Ingress whose ExternalName resolves to 127.0.0.1 and whose upstream-vhost is localhost."""
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        textwrap.dedent(f"""\
            user nobody nogroup;
            pid {tmp_path}/pid;
            error_log {tmp_path}/error.log;
            events {{}}
            http {{
                access_log off;
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://127.0.0.1:{server.port};
                        proxy_set_header Host localhost;
                    }}
                }}
            }}
            """)
    )
    with subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]) as proxy:
        try:
            assert soon(lambda: _listens(port))
            assert ask(port, "/metrics")[:2] == (200, "m")
            status, body, _ = ask(port, "/plan")
            assert status == 403
            assert "root" in body
        finally:
            proxy.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
