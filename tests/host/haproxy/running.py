"""A running HAProxy in tests: its clients, its endpoints, and what it holds."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.host.haproxy import worker
from rulegen.host.haproxy.engine import HaproxyEngine
from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.proxy import process_list
from rulegen.kube.objects.kinds import KubeObject
from rulegen.languages.haproxy.runtime import holds, state_of
from tests.apiserver.watching import soon
from tests.strategies.ingresses import endpoints, service

HTTP, HTTPS, BACKEND = 8081, 8443, 9000
PORTS = (("http", BACKEND), ("other", BACKEND))
POD = "10.244.1.{}"


class Pod(BaseHTTPRequestHandler):
    """Answers with its own address."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


class Pods(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def ask(host: str = "site.test", target: str = "/", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", HTTP, timeout=10)
    try:
        connection.request("GET", target, headers={"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def answers(count: int = 20, **asked: str) -> set[str]:
    return {ask(**asked)[1] for _ in range(count)}


def presented(name: str) -> bytes:
    """Return the certificate that a client of TLS gets for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", HTTPS), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname=name) as secured:
        return secured.getpeercert(binary_form=True) or b""


def web(*numbers: int) -> tuple[KubeObject, ...]:
    return service("web"), endpoints("web", [POD.format(number) for number in numbers], ports=PORTS)


def on_socket(folder: Path, *commands: str) -> None:
    """Do what somebody else does over the socket of the worker."""
    with worker.connected(folder) as link:
        link.ask_all([f"{command}\n" for command in commands])


def is_as_on_disk(engine: HaproxyEngine) -> bool:
    seen, files = worker.observe(engine.service.folder), engine.observe()
    assert seen is not None
    assert files is not None
    return holds(seen.state, state_of(files)) and seen.state.digest == files.digest == engine.service.releases.live()


def restart(engine: HaproxyEngine) -> None:
    """Have HAProxy start again from its files."""
    folder = engine.service.folder
    before = {process.pid for process in HAPROXY.processes(folder)}
    for process in HAPROXY.processes(folder):
        process_list.send(process, signal.SIGKILL)
    assert soon(lambda: engine.is_serving and not before & {each.pid for each in HAPROXY.processes(folder)}, 30)


def workers(engine: HaproxyEngine) -> list[int]:
    return [process.pid for process in process_list.workers(HAPROXY.processes(engine.service.folder))]


Serve = Callable[..., DeployAction]
