"""What is said of a request that got no good answer: what happened on the network, and nothing of the code."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from rulegen.apiserver.lists import read_cluster
from rulegen.apiserver.transport import client
from rulegen.apiserver.transport import connection as apilink
from rulegen.apiserver.transport.connection import ApiConnection
from rulegen.apiserver.transport.failures import ApiError
from rulegen.errors import HostError
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi

CRLF = b"\r\n"
OK = b"HTTP/1.1 200 OK" + CRLF
RESET = b"reset"
CODE = re.compile(r"\w+\(\w+='|object at|0x[0-9a-f]{6}|urllib3|Pool|Cuttable|Error\b|Errno|_ssl|[(]'|\\n")
"""What only a programmer reads: calls, addresses, names of classes, tuples."""


@pytest.fixture
def serve() -> Iterator[Callable[[bytes | None], int]]:
    """Answer each connection with these bytes and end it; without any, say nothing. Return the port."""
    listening: list[socket.socket] = []

    def begin(answer: bytes | None) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        open_ones: list[socket.socket] = []

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    break
                open_ones.append(connection)
                if answer is None:
                    continue
                connection.recv(65536)
                if answer == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    connection.sendall(answer)
                connection.close()
            for each in open_ones:
                each.close()

        threading.Thread(target=run, daemon=True).start()
        return server.getsockname()[1]

    yield begin
    for each in listening:
        each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(apilink, "CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.01)


def said(kubeconfig: str) -> tuple[str, str]:
    """Return what the agent's connection says, and that of a command; in both cases within a moment."""
    link = ApiConnection(kubeconfig)
    with pytest.raises(ApiError) as by_link:
        link.ask("/api/v1/services", {}, doing="list services", silence_s=0.3).small()
    link.cut()
    with pytest.raises(HostError) as by_command:
        read_cluster(kubeconfig)
    assert by_link.value.hint
    return by_link.value.message, by_command.value.message


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "by_http", "by_tls"),
    [
        (None, "no answer in time: no data for 0.3 s", "no answer in time: no data for 0.3 s"),
        (b"", "the server closed the connection without an answer", "the connection was closed early"),
        (RESET, "Connection reset by peer", "Connection reset by peer"),
        (b"SSH-2.0-OpenSSH" + CRLF, "the server does not speak HTTP", "TLS: .*does not speak TLS"),
        (OK + b"Content-Length: 50" + CRLF * 2 + b"abc", "the connection was closed early during the answer", "TLS: "),
        (
            OK + b"Transfer-Encoding: chunked" + CRLF * 2 + b"zz",
            "the connection was closed early during the answer",
            "TLS: ",
        ),
        (
            OK + b"Content-Encoding: gzip" + CRLF + b"Content-Length: 5" + CRLF * 2 + b"zzzzz",
            "the answer is encoded as 'gzip', which was not requested",
            "TLS: ",
        ),
    ],
    ids=["silent", "closed", "reset", "other protocol", "cut", "bad chunk", "gzip"],
)
def test_whatever_answers_badly_is_said_in_words_of_the_network(tmp_path, serve, scheme, answer, by_http, by_tls):
    url = f"{scheme}://127.0.0.1:{serve(answer)}"
    with FakeApi() as api:
        kubeconfig = api.kubeconfig(tmp_path, server=url)
    for message in said(kubeconfig):
        assert message.startswith(f"{url}: ")
        assert re.search(by_http if scheme == "http" else by_tls, message), message
        assert not CODE.search(message), message


@pytest.mark.parametrize(
    ("server", "more", "expected"),
    [
        ("https://127.0.0.1:1", {}, "cannot be reached: Connection refused"),
        ("http://127.0.0.1:1", {}, "cannot be reached: Connection refused"),
        ("https://no-such-name.invalid:6443", {}, "cannot be reached: .*no-such-name.invalid"),
        ("https://192.0.2.1:6443", {"proxy-url": "http://127.0.0.1:1"}, "cannot be reached: the proxy: .*refused"),
    ],
)
def test_whoever_is_not_there_is_said_in_words_of_the_network(tmp_path, server, more, expected):
    with FakeApi() as api:
        kubeconfig = api.kubeconfig(tmp_path, server=server, **more)
    for message in said(kubeconfig):
        assert re.fullmatch(f"{server}: {expected}.*", message), message
        assert not CODE.search(message), message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IP:127.0.0.1", "certificate verify failed: self-signed certificate"),
        ("DNS:other", "not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_that_is_not_the_right_one(tmp_path, name, expected):
    certificate = make_certificate(tmp_path, name)
    vouched = {"certificate-authority": str(certificate[0])} if name == "DNS:other" else {}
    with FakeApi(certificate=certificate) as api:
        for message in said(api.kubeconfig(tmp_path, **vouched)):
            assert message.startswith(f"{api.url}: TLS: ")
            assert message.endswith(expected), message
            assert not CODE.search(message), message
