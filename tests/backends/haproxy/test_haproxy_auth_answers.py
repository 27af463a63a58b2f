"""On a real HAProxy, what an auth server answers reaches the backend whole, or the request does not."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.host.conftest import namespace  # noqa: F401 - a fixture
from tests.rights import needs_root
from tests.strategies.ingresses import endpoints, site

pytestmark = [pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy"), needs_root]

ADDRESS = "10.244.0.1"
MOST_MEGABYTES = 600


class _Server(BaseHTTPRequestHandler):
    """An auth server and a backend; the answer of `/auth/N` has a header of N bytes."""

    protocol_version = "HTTP/1.1"
    users: tuple[str | None, ...] = ()
    connections: tuple[str | None, ...] = ()

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/auth/endless":
            self.send_header("Content-Length", str(10**12))
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
            return
        if self.path.startswith("/auth/"):
            self.send_header("X-User", "u" * int(self.path.removeprefix("/auth/")))
        else:
            type(self).users = (*self.users, self.headers.get("X-User"))
            type(self).connections = (*self.connections, self.headers.get("Connection"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(namespace: None) -> Iterator[int]:  # noqa: F811
    """Return the port of a server at ADDRESS."""
    subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    _Server.users = _Server.connections = ()
    with ThreadingHTTPServer((ADDRESS, 0), _Server) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


def _guarded(port: int, asked: str, host: str = "site.test"):
    answered = {"auth_response_headers": "X-User"}
    return site(host, auth_url=f"http://{ADDRESS}:{port}/auth/{asked}", **answered)


@pytest.mark.parametrize("more", [0, 20, 25, 26, 27, 28])
def test_no_request_reaches_a_backend_without_the_headers_of_the_auth_server(port, serve, more):
    ports = (("http", port), ("other", port))
    ask = serve(_guarded(port, "6000"), endpoints("web", (ADDRESS,), ports=ports))

    status, _ = ask(X_User="admin", **{f"X_A{number}": "a" * 1000 for number in range(more)})
    assert (status, _Server.users) in [(200, ("u" * 6000,)), (500, ())]
    assert status == 200 or more > 20


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ({"Connection": "close, X-User, X-Forwarded-For"}, None),
        ({"Connection": "X-User"}, None),
        ({"Connection": "X-User", "Upgrade": "other"}, None),
        ({"Connection": "Upgrade, X-User", "Upgrade": "other"}, "upgrade"),
    ],
)
def test_no_client_has_a_backend_drop_a_header(port, serve, sent, passed):
    """A proxy drops the headers that Connection names, also those of the auth server."""
    ports = (("http", port), ("other", port))
    ask = serve(_guarded(port, "5"), endpoints("web", (ADDRESS,), ports=ports))

    assert ask(**sent)[0] == 200
    assert (_Server.users, _Server.connections) == (("u" * 5,), (passed,))


def test_an_auth_server_that_answers_without_an_end_costs_limited_memory(port, serve, tmp_path):
    ask = serve(_guarded(port, "endless"), site("ok.test"))
    statuses: list[int] = []
    asking = [threading.Thread(target=lambda: statuses.append(ask()[0])) for _ in range(3)]
    for thread in asking:
        thread.start()

    most = 0
    while any(thread.is_alive() for thread in asking):
        assert ask(Host="ok.test")[0] == 503  # it passes, and there is no endpoint
        most = max(most, _megabytes(tmp_path))
        time.sleep(0.1)
    assert statuses == [500] * 3
    assert most < MOST_MEGABYTES


def _megabytes(folder: Path) -> int:
    """Return the memory of the HAProxy that has been started in a folder."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if str(folder) in (status.parent / "cmdline").read_text():
                return int(status.read_text().partition("VmRSS:")[2].split()[0]) // 1024
    return 0
