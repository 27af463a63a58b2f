"""What nginx is told of names: the addresses that their servers say, but for those that no Ingress may reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from rulegen.host.commands.runner import run
from rulegen.host.nginx.service import NginxService
from rulegen.host.proxy.resolver import control, dns
from rulegen.host.proxy.resolver.process import DnsListener, Resolver, ResolverInput
from rulegen.host.proxy.resolver.settings import Naming
from rulegen.model.forbidden import Forbidden
from rulegen.net import Address
from tests.host.nginx.names.name_server import PORT, question
from tests.rights import needs_root

FORBIDDEN = Forbidden(own=frozenset({ip_address("192.0.2.7")}), gateways=frozenset({ip_address("192.0.2.1")}))
RESOLVED = [
    "10.0.0.9", "203.0.113.5", "127.0.0.1", "127.0.0.2", "0.0.0.0", "169.254.169.254", "192.0.2.7", "192.0.2.1",
    "100.100.100.200", "224.0.0.1", "255.255.255.255", "2001:db8::9", "::1", "::", "fe80::1", "fd00:ec2::254",
    "::ffff:127.0.0.1", "64:ff9b::7f00:1", "ff02::1",
]  # fmt: skip
PASSED = {"10.0.0.9", "203.0.113.5", "2001:db8::9"}


def resolve(asked: bytes, table: list[str], forbidden: Forbidden, reported: list[str]) -> set[str]:
    """Return the addresses that are left of a table's."""
    result = dns.read_question(asked)
    assert result is not None

    class Known(Resolver):
        async def _ask(self, question: dns.Question) -> dns.DnsAnswer | None:
            addresses: list[Address] = [ip_address(text) for text in table]
            wanted = [each for each in addresses if each.version == (4 if question.kind == dns.A else 6)]
            return dns.DnsAnswer(0, tuple((each, 60) for each in wanted))

    said = asyncio.run(Known((), forbidden, reported.append).answer(result))
    answer = dns.read_answer(said, result, result.number)
    assert answer is not None
    return {str(each) for each, _ in answer.addresses}


def test_forbidden_addresses_are_kept_back_in_both_families():
    reported: list[str] = []
    left = {
        each
        for kind in (dns.A, dns.AAAA)
        for each in resolve(question("evil.test", kind), RESOLVED, FORBIDDEN, reported)
    }
    assert left == PASSED
    assert len(reported) == len(RESOLVED) - len(PASSED)
    assert "evil.test: 192.0.2.7 is an address of this node: nginx does not get this address" in reported


@pytest.mark.parametrize("kind", [12, 15, 16, 33, 255])
def test_what_is_no_address_is_asked_of_nobody(kind):
    asked = dns.read_question(question("a.test", kind))
    assert asked is not None
    said = asyncio.run(Resolver((), FORBIDDEN, [].append).answer(asked))
    assert said[3] & 0xF == dns.NOT_IMPLEMENTED


class Saying:
    """A name server that says a code and nothing else, or nothing at all."""

    def __init__(self, code: int | None, *addresses: str) -> None:
        self._code = code
        self._addresses = tuple((ip_address(text), 60) for text in addresses)
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def listening(self) -> tuple[str, int]:
        """Answer until the loop ends; return where."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))  # type: ignore[arg-type, return-value]
        result: tuple[str, int] = transport.get_extra_info("sockname")
        return result

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Answer no longer."""
        assert self._transport is not None
        self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        pass

    def error_received(self, _error: Exception) -> None:
        pass

    def datagram_received(self, message: bytes, asker: tuple[str, int]) -> None:
        self.asked += 1
        asked = dns.read_question(message)
        assert asked is not None
        assert self._transport is not None
        if self._code is not None and not asked.name.startswith("slow"):
            self._transport.sendto(dns.write_answer(asked, self._code, self._addresses), asker)


@pytest.mark.parametrize(("first", "then"), [(2, 0), (4, 0), (5, 0), (3, 3), (0, 0)])
def test_a_server_that_knows_no_answer_is_followed_by_the_next(first, then):
    """As resolv.conf(5) has it. A name that does not exist, or has no address, is an answer."""
    asked = dns.read_question(question("a.test"))
    assert asked is not None

    async def answered() -> tuple[bytes, int, int]:
        servers = Saying(first), Saying(then, *["203.0.113.5"] * (then == 0))
        resolver = Resolver(tuple([await each.listening() for each in servers]), FORBIDDEN, [].append)
        said = await resolver.answer(asked)
        for each in servers:
            each.close()
        return said, servers[0].asked, servers[1].asked

    said, *counts = asyncio.run(answered())
    goes_on = first in dns.ASK_ANOTHER
    assert (said[3] & 0xF, counts) == (then, [1, int(goes_on)])
    result = dns.read_answer(said, asked, 7)
    assert result is not None
    assert [str(address) for address, _ in result.addresses] == ["203.0.113.5"] * goes_on


def test_servers_that_all_fail_are_asked_once():
    asked = dns.read_question(question("a.test"))
    assert asked is not None

    async def answered() -> tuple[bytes, list[int]]:
        servers = Saying(2), Saying(5)
        resolver = Resolver(tuple([await each.listening() for each in servers]), FORBIDDEN, [].append)
        said = await resolver.answer(asked)
        for each in servers:
            each.close()
        return said, [each.asked for each in servers]

    said, counts = asyncio.run(answered())
    assert (said[3] & 0xF, counts) == (5, [1, 1])


def test_questions_that_nobody_answers_keep_no_other_waiting():
    """Any user of the host may ask."""

    async def answered() -> bytes:
        loop = asyncio.get_running_loop()
        server = Saying(0, "203.0.113.5")
        resolver = Resolver((await server.listening(),), FORBIDDEN, [].append)
        transport, listener = await loop.create_datagram_endpoint(
            lambda: DnsListener(resolver), local_addr=("127.0.0.1", 0)
        )
        for number in range(700):
            listener.datagram_received(question(f"slow{number}.test"), ("127.0.0.1", 9))
            await asyncio.sleep(0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(0)
            link.connect(transport.get_extra_info("sockname"))
            link.send(question("a.test"))
            async with asyncio.timeout(20):
                said = await loop.sock_recv(link, 512)
        transport.abort()
        server.close()
        return said

    assert asyncio.run(answered())[3] & 0xF == 0


def test_a_long_line_reaches_the_process_whole(tmp_path, monkeypatch):
    """Of a node with thousands of addresses."""
    for folder in ("run", "logs"):
        (tmp_path / folder).mkdir()
    own = frozenset(ip_address(0x0A000000 + number) for number in range(20000))
    line = Naming.of(PORT, ("127.0.0.53",), Forbidden(own=own)).line
    (tmp_path / "run" / control.FILE).write_bytes(line)
    heard = tmp_path / "heard"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec head -n 1 > {heard}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    run, logs = (os.open(tmp_path / folder, os.O_RDONLY) for folder in ("run", "logs"))
    tended = control.NamesProcess([].append, "nginx")
    try:
        until = time.monotonic() + 30
        while not heard.exists() or heard.stat().st_size < len(line):
            assert time.monotonic() < until
            tended.tend(run, logs)
            time.sleep(0.01)
        assert heard.read_bytes() == line
    finally:
        tended.end()
        os.close(run)
        os.close(logs)


@needs_root
def test_a_port_of_another_program_is_reported(namespace):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", PORT))
        argv = (sys.executable, "-m", "rulegen.host.proxy.resolver.process")
        line = Naming.of(PORT, (), FORBIDDEN).line
        ended = subprocess.run(argv, input=line, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    (said,) = ended.stderr.decode().splitlines()
    assert said.endswith(
        "cannot listen on 127.0.0.2 port 10353/UDP: Address already in use; --names-port chooses another"
    )


@needs_root
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::ffff:127.0.0.2"])
def test_another_user_who_has_the_port_is_known(namespace, address, tmp_path):
    """He would answer nginx with the addresses that he likes."""
    holder = (
        f"import os, socket, sys; os.setuid(54321); one = socket.socket(socket.AF_INET{'6' * (':' in address)}, "
        f"socket.SOCK_DGRAM); one.bind(('{address}', {PORT})); print(flush=True); sys.stdin.read()"
    )
    assert control.stranger(PORT) is None
    argv = (sys.executable, "-c", holder)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        assert control.stranger(PORT) == 54321
        assert control.stranger(PORT + 1) is None
        service = NginxService(tmp_path, run)
        service.naming = Naming.of(PORT, (), FORBIDDEN)
        (note,) = service._await_companion()
        assert note.startswith("names cannot be resolved: user 54321 has port 10353/UDP; stop that program")
        other.stdin.close()


@pytest.mark.not_quick
def test_equal_lines_are_logged_once(capsys):
    reported = ResolverInput()
    for _ in range(3):
        reported("a")
    for number in range(5000):
        reported(str(number))
    assert len(capsys.readouterr().err.splitlines()) == 1000


@contextlib.contextmanager
def process(naming: Naming) -> Iterator[subprocess.Popen[bytes]]:
    argv = (sys.executable, "-m", "rulegen.host.proxy.resolver.process")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdin is not None
        try:
            started.stdin.write(naming.line)
            started.stdin.flush()
            until = time.monotonic() + 30
            while not control.answers(naming.port):
                assert time.monotonic() < until
                time.sleep(0.02)
            yield started
        finally:
            started.stdin.close()
            assert started.wait(30) == 0


def ask(address: str, text: str, kind: int = dns.A) -> set[str]:
    asked = dns.read_question(question(text, kind))
    assert asked is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(20)
        link.connect((address, PORT))
        link.send(question(text, kind))
        answer = dns.read_answer(link.recv(4096), asked, 7)
    assert answer is not None
    return {str(each) for each, _ in answer.addresses}


@needs_root
def test_the_node_is_kept_back_only_where_no_loop_would_end(server):
    server.table["a.test"] = ["192.0.2.7", "10.0.0.9", "127.0.0.1"]
    own, other = control.ADDRESSES
    with process(Naming.of(PORT, ("127.0.0.53",), FORBIDDEN)):
        assert control.stranger(PORT) is None
        assert ask(own, "a.test") == {"192.0.2.7", "10.0.0.9"}
        assert ask(other, "a.test") == {"10.0.0.9"}
        server.table["a.test"] = ["127.0.0.1"]
        assert ask(own, "a.test") == ask(other, "a.test") == set()


@needs_root
def test_the_process_takes_what_changes_and_long_answers(server):
    server.table["a.test"] = ["192.0.2.8", *(f"10.0.1.{number}" for number in range(100))]
    server.is_short = True
    with process(Naming.of(PORT, ("127.0.0.53",), FORBIDDEN)) as running:
        assert len(ask(control.ADDRESSES[1], "a.test")) == 101
        assert running.stdin is not None
        moved = Forbidden(own=frozenset({ip_address("192.0.2.8")}))
        running.stdin.write(Naming.of(PORT, ("127.0.0.53",), moved).line)
        running.stdin.flush()
        until = time.monotonic() + 20
        while "192.0.2.8" in ask(control.ADDRESSES[1], "a.test"):
            assert time.monotonic() < until
            time.sleep(0.02)


@needs_root
def test_a_silent_name_server_is_skipped_by_an_unprivileged_user(server):
    server.table["a.test"] = ["10.0.0.9"]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        process(Naming.of(PORT, ("127.0.0.54", "127.0.0.55", "127.0.0.53"), FORBIDDEN)) as running,
    ):
        silent.bind(("127.0.0.54", 53))
        assert ask(control.ADDRESSES[0], "a.test") == {"10.0.0.9"}
        (line,) = (
            line for line in Path(f"/proc/{running.pid}/status").read_text().splitlines() if line.startswith("Uid:")
        )
        assert "0" not in line.split()[1:]
