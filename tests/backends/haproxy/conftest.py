"""An HAProxy on loopback for each test, and how it is asked."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rulegen.host.haproxy.engine import HaproxyCompiler
from rulegen.kube.objects.kinds import KubeObject
from rulegen.model.ingress.defaults import HttpHost
from tests.strategies.ingresses import SETTINGS, options, service, settings_map, world

CLIENT = "127.0.0.1"

Ask = Callable[..., tuple[int, str]]
Serve = Callable[..., Ask]


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _ask(
    port: int, path: str = "/", *, source: str = CLIENT, said: str = "", method: str = "GET", **headers: str
) -> tuple[int, str]:
    """Return status and Location; `said` is the address in a PROXY header that is sent first."""
    with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0)) as connection:
        if said:
            connection.sendall(f"PROXY TCP4 {said} 127.0.0.1 5555 80\r\n".encode())
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in ({"Host": "site.test"} | headers).items()]
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{''.join(lines)}Connection: close\r\n\r\n".encode())
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
            return functools.partial(_ask, http_port)

        yield start
