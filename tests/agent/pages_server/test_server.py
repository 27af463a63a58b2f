"""The agent's HTTP servers: pages, ports that come and go, clients of all kinds."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from rulegen.agent.pages_server import server as servers
from rulegen.agent.pages_server.clients import CLIENTS
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import AS_JSON, PageServer, RetryingServer
from rulegen.errors import HostError
from tests.agent.asking import ask
from tests.apiserver.watching import soon


class TestServer:
    @pytest.fixture
    def server(self):
        def bad() -> Reply:
            raise ValueError("a fault of ours")

        pages = {
            "/ok": lambda: Reply(200, "well\n"),
            "/bytes": lambda: Reply(200, "a rule that others wrote: \udcff\n"),
            "/bad": bad,
        }
        serving = PageServer("127.0.0.1", 0, pages)
        yield serving
        serving.stop()

    def test_pages(self, server):
        assert ask(server.port, "/ok?x=1")[:2] == (200, "well\n")
        assert ask(server.port, "/ok", "HEAD")[:2] == (200, "")
        assert ask(server.port, "/other")[0] == 404
        assert ask(server.port, "/ok", "POST")[0] == 501
        assert ask(server.port, "/ok", "OPTIONS")[0] == 501
        assert ask(server.port, "/ok")[2]["X-Content-Type-Options"] == "nosniff"

    def test_probes_may_ask_with_options(self):
        """As HAProxy does, unless it is told otherwise."""
        pages = {"/private": lambda: Reply(200, "x"), "*": lambda: Reply(503, "no endpoints\n")}
        server = PageServer("127.0.0.1", 0, pages, private={"/private"}, probes=True)
        try:
            for method in ("GET", "OPTIONS"):
                assert ask(server.port, "/", method)[:2] == (503, "no endpoints\n")
            assert ask(server.port, "/", "POST")[0] == 501
            assert ask(server.port, "/private", "OPTIONS")[0] == 501
        finally:
            server.stop()

    def test_json_is_for_who_asks_for_it(self):
        pages = {"/x": lambda: Reply(200, "text"), f"/x{AS_JSON}": lambda: Reply.of_json(200, [1])}
        server = PageServer("127.0.0.1", 0, pages)
        try:
            assert ask(server.port, "/x")[1] == "text"
            assert ask(server.port, "/x?output=json")[1] == "[1]\n"
            assert ask(server.port, "/x", headers={"Accept": "application/json"})[1] == "[1]\n"
        finally:
            server.stop()

    def test_whoever_connects_to_stay_makes_room_for_who_asks(self, server):
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(2 * CLIENTS)]
        try:
            assert ask(server.port, "/ok")[0] == 200
            assert [client.recv(1) for client in idle[:CLIENTS]] == [b""] * CLIENTS
            idle[-1].sendall(b"GET /ok HTTP/1.0\r\n\r\n")
            assert idle[-1].recv(64).startswith(b"HTTP/1.1 200")
        finally:
            for client in idle:
                client.close()

    def test_invalid_utf8_is_shown_escaped(self, server):
        assert ask(server.port, "/bytes")[:2] == (200, "a rule that others wrote: \\udcff\n")

    def test_a_fault_of_ours_is_an_answer_too(self, server):
        status, body, _ = ask(server.port, "/bad")
        assert status == 500
        assert "Traceback" not in body

    @pytest.mark.parametrize(
        "garbage", [b"\0\xff" * 500 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b""]
    )
    def test_garbage_harms_nobody_else(self, server, garbage):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        assert ask(server.port, "/ok")[0] == 200

    def test_clients_that_say_nothing_keep_nobody_waiting(self, server):
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(20)]
        try:
            slow[0].sendall(b"GET /ok HT")
            assert ask(server.port, "/ok")[0] == 200
        finally:
            for client in slow:
                client.close()

    def test_it_ends_at_once_though_clients_are_connected(self):
        server = PageServer("127.0.0.1", 0, {})
        with socket.create_connection(("127.0.0.1", server.port)):
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 0.45
        assert not [thread for thread in threading.enumerate() if thread.name == f"http {server.port}"]

    def test_an_address_that_is_taken_is_one_clear_line(self, server):
        with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"):
            PageServer("127.0.0.1", server.port, {})


class TestPatientServer:
    def test_a_taken_address_is_reported_once_and_used_when_free(self, monkeypatch):
        """An address that is taken is told once and used when it is free."""
        monkeypatch.setattr(servers, "AGAIN_S", 0.02)
        reasons: list[str] = []
        first = PageServer("127.0.0.1", 0, {"*": lambda: Reply(200, "first")})
        patient = RetryingServer(
            lambda: PageServer("127.0.0.1", first.port, {"*": lambda: Reply(200, "second")}), reasons.append
        )
        try:
            time.sleep(0.1)
            assert len(reasons) == 1
            assert ask(first.port)[1] == "first"
            first.stop()
            assert soon(lambda: answers(first.port) == "second")
        finally:
            patient.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(first.port)

    def test_it_ends_while_it_waits(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            patient = RetryingServer(lambda: PageServer("127.0.0.1", other.getsockname()[1], {}), lambda _: None)
            began = time.monotonic()
            patient.stop()
            assert time.monotonic() - began < 1

    def test_a_failed_bind_may_raise(self):
        def give_up(error: str) -> None:
            raise HostError(error, hint="bindAddressHardFail")

        with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(HostError, match="cannot listen"):
            RetryingServer(lambda: PageServer("127.0.0.1", other.getsockname()[1], {}), give_up)


def answers(port: int) -> str:
    try:
        return ask(port)[1]
    except ConnectionRefusedError:
        return ""
