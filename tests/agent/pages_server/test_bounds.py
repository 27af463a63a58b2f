"""What the clients of all ports together may cost, and that a probe is answered whatever the others do."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from rulegen.agent.pages_server import clients, http_loop
from rulegen.agent.pages_server.clients import CLIENTS, DISCARDED_BYTES, Client, Clients
from rulegen.agent.pages_server.http_loop import HttpLoop
from rulegen.agent.pages_server.listener import RECEIVE_BYTES, SEND_BYTES
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.request import HEAD_BYTES
from rulegen.agent.pages_server.server import PageServer
from rulegen.errors import HostError
from tests.agent.asking import ask
from tests.agent.attackers import EndlessHeads, memory_kib
from tests.apiserver.watching import soon

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
WELL = {"*": lambda: Reply(200, "well\n")}


@pytest.fixture
def cut() -> Counter[str]:
    return Counter()


@pytest.fixture
def loop(cut):
    return HttpLoop(lambda reason: cut.update([reason]))


@pytest.fixture
def serve(loop):
    """Starts servers of one loop."""
    with contextlib.ExitStack() as stack:

        def start(pages=WELL, **options) -> int:
            server = PageServer("127.0.0.1", 0, pages, loop=loop, **options)
            stack.callback(server.stop)
            return server.port

        yield start


def connected(port: int, receive_bytes: int = 0, address: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.settimeout(60)
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect((address, port))
    return client


def whole(client: socket.socket) -> bytes:
    """Return what comes until the end, or until the connection is reset."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


class TestHead:
    @pytest.mark.parametrize("line", [b"", b"X: y\r\n"])
    def test_a_head_that_is_too_long_is_refused_and_not_read_on(self, serve, line):
        """One that is too long is refused and no more of it is read."""
        port = serve(probes=True)
        with connected(port) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(GET + line + b"A: " + b"a" * HEAD_BYTES)
            assert whole(client).startswith(b"HTTP/1.1 431 ")

    def test_the_longest_is_answered(self, serve):
        port = serve(probes=True)
        filling = HEAD_BYTES - len(GET) - len(b"A: \r\n\r\n")
        with connected(port) as client:
            client.sendall(GET + b"A: " + b"a" * filling + b"\r\n\r\n")
            assert whole(client).startswith(b"HTTP/1.1 200 ")

    def test_whoever_sends_byte_by_byte_has_the_same_time(self, serve, cut, monkeypatch):
        monkeypatch.setattr(http_loop, "CLIENT_S", 1.0)
        port = serve(probes=True)
        with connected(port) as client:
            with contextlib.suppress(ConnectionError):
                for byte in GET:
                    client.sendall(bytes([byte]))
                    if select.select([client], [], [], 0.1)[0]:
                        break
            assert whole(client) == b""
        assert cut == {"late": 1}

    def test_a_body_costs_nobody_the_answer(self, serve):
        port = serve(probes=True)
        with connected(port) as client:
            client.sendall(GET + b"Content-Length: 100000\r\n\r\n" + b"b" * 100_000)
            assert whole(client).endswith(b"\r\n\r\nwell\n")

    def test_whoever_sends_on_without_end_is_cut(self, serve):
        port = serve(probes=True)
        sent = 0
        with connected(port) as client:
            client.sendall(GET + b"\r\n")
            with contextlib.suppress(ConnectionError):
                while sent < 100 * DISCARDED_BYTES:
                    sent += client.send(b"b" * 65536)
        assert sent < 100 * DISCARDED_BYTES


class TestNumber:
    def test_there_are_so_many_of_all_ports_together(self, serve, cut):
        ports = [serve(probes=True) for _ in range(8)]
        idle = [connected(ports[number % len(ports)]) for number in range(CLIENTS + 40)]
        try:
            assert soon(lambda: cut["crowded"] == 40)
            assert len(select.select(idle, [], [], 0)[0]) == 40
            assert [ask(port)[1] for port in ports] == ["well\n"] * len(ports)
        finally:
            for client in idle:
                client.close()

    def test_threads_do_not_grow_with_ports_and_clients(self, serve):
        before = threading.active_count()
        ports = [serve(probes=True) for _ in range(50)]
        idle = [connected(port) for port in ports]
        try:
            assert ask(ports[0])[0] == 200
            assert threading.active_count() == before + 1
        finally:
            for client in idle:
                client.close()

    def test_the_oldest_of_the_source_that_has_most_goes_first(self):
        """A probe of another host stays, though it is the oldest."""
        crowd = Clients()
        sources = ["10.0.0.1", *["10.0.0.2"] * (CLIENTS - 1)]
        added = [Client(socket.socket(), None, source, 0.0) for source in sources]
        try:
            for client in added:
                assert crowd.first_to_go() is None
                crowd.add(client)
            assert crowd.first_to_go() is added[1]
            crowd.remove(added[1])
            assert crowd.first_to_go() is None
        finally:
            for client in added:
                client.connection.close()

    def test_without_free_descriptors_the_oldest_client_goes(self, serve, cut, monkeypatch):
        """Where the process may open no more files the oldest goes."""
        port = serve(probes=True)
        with connected(port) as old:
            old.sendall(b"GET")
            assert ask(port)[0] == 200
            real = socket.socket.accept
            refused = iter([True])

            def accept(listening: socket.socket):
                if next(refused, False):
                    raise OSError(24, "Too many open files")
                return real(listening)

            monkeypatch.setattr(socket.socket, "accept", accept)
            assert ask(port)[0] == 200
            assert whole(old) == b""
        assert cut == {"crowded": 1}

    def test_a_socket_that_cannot_be_watched_harms_no_other(self, serve, loop, monkeypatch):
        """Where the kernel watches no more sockets the rest is served."""
        port = serve(probes=True)
        real, refused = loop._selector.register, iter([True])

        def register(*arguments):
            if next(refused, False):
                raise OSError(28, "No space left on device")
            return real(*arguments)

        monkeypatch.setattr(loop._selector, "register", register)
        with connected(port) as client:
            assert whole(client) == b""
        assert ask(port)[0] == 200

    def test_a_port_that_cannot_be_watched_is_an_error_of_its_own(self, serve, loop, monkeypatch):
        """A port that the kernel cannot watch is an error and the others are served."""
        port = serve(probes=True)

        def register(*_: object):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(loop._selector, "register", register)
            with pytest.raises(HostError, match="cannot listen: No space left on device"):
                serve(probes=True)
        assert ask(port)[0] == ask(serve(probes=True))[0] == 200


class TestAnswer:
    def test_a_client_that_does_not_read_is_cut(self, serve, cut, monkeypatch):
        """Whoever does not read is cut and costs the kernel little."""
        monkeypatch.setattr(http_loop, "CLIENT_S", 1.0)
        body = "x" * 8_000_000
        port = serve({"/big": lambda: Reply(200, body)})
        with connected(port, receive_bytes=4096) as client:
            client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
            assert soon(lambda: cut["late"] == 1)
            assert len(whole(client)) < 2 * SEND_BYTES + 2 * 4096 + RECEIVE_BYTES

    def test_whoever_reads_gets_it_whole(self, serve):
        body = "x" * 8_000_000
        port = serve({"/big": lambda: Reply(200, body)})
        assert ask(port, "/big")[1] == body

    def test_a_page_is_made_once_for_all_who_ask_meanwhile(self, serve):
        begun, may_end = threading.Semaphore(0), threading.Semaphore(0)
        made = []

        def page() -> Reply:
            made.append(1)
            begun.release()
            may_end.acquire()
            return Reply(200, str(len(made)))

        port = serve({"/metrics": page, "/other": lambda: Reply(200, "o")})
        crowd = [connected(port)]
        try:
            crowd[0].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            begun.acquire()
            crowd += [connected(port) for _ in range(200)]
            for client in crowd[1:]:
                client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert ask(port, "/other")[1] == "o"  # all others were heard before
            may_end.release(2)
            answers = [whole(client)[-1:] for client in crowd]
        finally:
            for client in crowd:
                client.close()
        assert answers[0] == b"1"
        assert set(answers[1:]) == {b"2"}  # no answer shows a state from before the question
        assert len(made) == 2

    def test_no_more_than_two_answers_of_a_page_are_kept(self, serve, cut):
        port = serve({"/big": lambda: Reply(200, "x" * 8_000_000)})
        slow = []
        try:
            for _ in range(4):
                slow.append(connected(port, receive_bytes=4096))
                slow[-1].sendall(b"GET /big HTTP/1.0\r\n\r\n")
                assert slow[-1].recv(1)
            assert soon(lambda: cut["outdated"] == 2)
        finally:
            for client in slow:
                client.close()

    def test_a_page_that_is_never_ready_keeps_nobody_for_ever(self, serve, monkeypatch):
        monkeypatch.setattr(http_loop, "WAIT_S", 0.2)
        ends = threading.Event()

        def page() -> Reply:
            ends.wait()
            return Reply(200, "")

        port = serve({"/metrics": page, "/healthz": lambda: Reply(200, "ok")})
        try:
            assert [ask(port, "/metrics")[0] for _ in range(2)] == [503, 503]
            assert ask(port, "/healthz")[0] == 200
        finally:
            ends.set()

    def test_a_slow_page_delays_no_probe(self, serve):
        ends = threading.Event()

        def page() -> Reply:
            ends.wait()
            return Reply(200, "")

        probed, private = serve(probes=True), serve({"/plan": page, "/metrics": page}, private=("/plan",))
        waiting = [connected(private) for _ in range(2)]
        try:
            for client, path in zip(waiting, (b"/plan", b"/metrics"), strict=True):
                client.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
            assert ask(probed)[0] == 200
            assert not select.select(waiting, [], [], 0)[0]
        finally:
            ends.set()
            for client in waiting:
                client.close()


SERVES = """
import sys
from rulegen.agent.runtime.memory import limit_arenas
from rulegen.agent.pages_server.http_loop import HttpLoop
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import PageServer
from rulegen.errors import HostError
limit_arenas()
loop = HttpLoop()
well = {"*": lambda: Reply.of_json(200, {"localEndpoints": 1})}
servers = [PageServer("127.0.0.1", 0, well, probes=True, loop=loop) for _ in range(int(sys.argv[1]))]
big = "x" * 8_000_000
servers.append(PageServer("127.0.0.1", 0, {"/rules": lambda: Reply(200, big + str(id(loop)))}, loop=loop))
print(*(server.port for server in servers), flush=True)
sys.stdin.read()
"""
PORTS = 12
ROUNDS = 3


@pytest.fixture
def process():
    """A process that does nothing but to serve, and its ports; that of a large page is the last."""
    words = [sys.executable, "-c", SERVES, str(PORTS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.pid, [int(word) for word in process.stdout.readline().split()]
        finally:
            process.kill()


@pytest.mark.slow
def test_endless_headers_cost_some_mib_and_no_probe(process):
    """Headers without end on every port cost some MiB and no probe."""
    pid, (*ports, _) = process
    before = memory_kib(pid, "VmRSS")
    attack = EndlessHeads(ports)
    probes = 0
    try:
        for _ in range(ROUNDS):
            attack.press()
            for port in ports:
                assert ask(port)[0] == 200
                probes += 1
    finally:
        attack.close()
    assert probes == ROUNDS * PORTS
    assert memory_kib(pid, "VmHWM") - before < 16 * 1024
    assert memory_kib(pid, "Threads") < 8


@pytest.mark.slow
def test_readers_that_never_read_cost_no_page_each(process):
    pid, ports = process
    before = memory_kib(pid, "VmRSS")
    silent = [connected(ports[-1], receive_bytes=4096) for _ in range(50)]
    try:
        for client in silent:
            client.sendall(b"GET /rules HTTP/1.0\r\n\r\n")
        assert all(client.recv(1) for client in silent[-5:])
        assert ask(ports[0])[0] == 200
    finally:
        for client in silent:
            client.close()
    page_kib = 8_000_000 // 1024
    assert (
        memory_kib(pid, "VmHWM") - before < 5 * page_kib
    )  # two pages, and one that is being made, as text and as bytes


def test_the_figures_of_the_documentation_are_those_of_the_code():
    table = Path(__file__).parents[3] / "docs" / "run.md"
    (row,) = [line for line in table.read_text().splitlines() if line.startswith("| requests to the agent's own ports")]
    for figure in (f"{HEAD_BYTES // 1024} KiB", f"{clients.CLIENT_S:g} s", f"{CLIENTS} clients"):
        assert figure in row
    assert Path(__file__).name in row
