"""The resolver process of a proxy: it asks the node's name servers, and leaves out forbidden addresses.

The proxy resolves names itself, at times that it chooses, and connects to the addresses. Addresses must therefore be
checked in each answer, since the owner of a name can change them at any time.

`python -m rulegen.host.proxy.resolver.process` is started by the supervisor, with a `Naming` as a line of JSON on its
standard input and another line for each change, and ends with it. It listens on two addresses of this host, for UDP
alone, as no answer is longer than nginx and HAProxy read: the first is asked for connections to the ports of the proxy,
where the node's addresses may be meant (a loop over the proxy ends by itself), the second for all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import msgspec

from rulegen.errors import HostError
from rulegen.host.proxy.resolver import dns
from rulegen.host.proxy.resolver.control import ADDRESSES, LARGEST
from rulegen.host.proxy.resolver.settings import Naming
from rulegen.host.proxy.sandbox import identity
from rulegen.model.forbidden import Forbidden
from rulegen.net import AddressUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.net import Address

_DNS_PORT: Final = 53
_TRIES: Final = 2
_UDP_S, _TCP_S = 1.5, 3.0
_MOST_WAITING: Final = 512
_MOST_TOLD: Final = 1000
_TELL_AGAIN_S: Final = 3600.0


@dataclass(slots=True)
class Resolver:
    """Answers questions with the answers of name servers, without forbidden addresses.

    Attributes:
        servers: Addresses and ports of the name servers, in order.
        forbidden: The forbidden addresses.
        tell: Called with a message for each address that is left out.
    """

    servers: tuple[tuple[str, int], ...]
    forbidden: Forbidden
    tell: Callable[[str], None]

    async def answer(self, question: dns.Question) -> bytes:
        """Return the message that answers a question."""
        if not question.is_for_addresses:
            return dns.write_answer(question, dns.NOT_IMPLEMENTED)
        answer = await self._ask(question)
        if answer is None:
            return dns.write_answer(question, dns.SERVER_FAILURE)
        kept = [(address, lasts_s) for address, lasts_s in answer.addresses if self._may(question, address)]
        return dns.write_answer(question, answer.code, kept)

    def _may(self, question: dns.Question, address: Address) -> bool:
        why = self.forbidden.refusal(address, AddressUse.UPSTREAM)
        if why:
            self.tell(f"{question.name}: {why}: nginx does not get this address")
        return not why

    async def _ask(self, question: dns.Question) -> dns.DnsAnswer | None:
        """Return the answer of the first server that knows one, else an answer of another server."""
        failed: dns.DnsAnswer | None = None
        for _ in range(_TRIES):
            for server in self.servers:
                number = secrets.randbelow(1 << 16)
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(_UDP_S):
                        answer = await _ask_by_datagram(server, question, number)
                    if answer.is_truncated:
                        async with asyncio.timeout(_TCP_S):
                            answer = await _ask_by_stream(server, question, number)
                    if answer.code not in dns.ASK_ANOTHER:
                        return answer
                    failed = answer
            if failed is not None:
                break
        return failed


async def _ask_by_datagram(server: tuple[str, int], question: dns.Question, number: int) -> dns.DnsAnswer:
    """Ask a server from a new port; messages that answer other questions are ignored."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(0)
        link.connect(server)
        await loop.sock_sendall(link, dns.write_question(question, number))
        while True:
            answer = dns.read_answer(await loop.sock_recv(link, 65535), question, number)
            if answer is not None:
                return answer


async def _ask_by_stream(server: tuple[str, int], question: dns.Question, number: int) -> dns.DnsAnswer:
    reader, writer = await asyncio.open_connection(*server)
    try:
        message = dns.write_question(question, number)
        writer.write(len(message).to_bytes(2, "big") + message)
        with suppress(asyncio.IncompleteReadError):
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = dns.read_answer(await reader.readexactly(size), question, number)
            if answer is not None and not answer.is_truncated:
                return answer
    finally:
        writer.close()
    raise ConnectionError


class DnsListener(asyncio.DatagramProtocol):
    """Takes questions on one address, with a limit for open questions.

    Beyond the limit, the oldest question gets no answer. Name servers answer most questions soon, so many unanswerable
    questions cannot delay those of the proxy.
    """

    def __init__(self, resolver: Resolver) -> None:
        """Take the object that answers."""
        self.resolver = resolver
        self._waiting: dict[asyncio.Task[None], None] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Use this transport for answers."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Receive a question."""
        question = dns.read_question(data)
        if question is None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._answer(question, addr))
        self._waiting[task] = None
        task.add_done_callback(lambda ended: self._waiting.pop(ended, None))

    async def _answer(self, question: dns.Question, asker: tuple[str, int]) -> None:
        self._transport.sendto(await self.resolver.answer(question), asker)


class ResolverInput:
    """Log lines: the same line at most once an hour, and a limited number of different ones."""

    def __init__(self) -> None:
        """Start without lines."""
        self._when: dict[str, float] = {}

    def __call__(self, line: str) -> None:
        """Write a line; on a full disk it is lost."""
        now = time.monotonic()
        if now - self._when.get(line, -_TELL_AGAIN_S) < _TELL_AGAIN_S:
            return
        if len(self._when) >= _MOST_TOLD:
            self._when = {known: at for known, at in self._when.items() if now - at < _TELL_AGAIN_S}
            if len(self._when) >= _MOST_TOLD:
                return
        self._when[line] = now
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
            sys.stderr.flush()


async def serve(naming: Naming, changes: asyncio.StreamReader, tell: Callable[[str], None]) -> None:
    """Answer questions until standard input ends, or a change requests another port."""
    loop = asyncio.get_running_loop()
    resolvers = [Resolver((), Forbidden(), tell) for _ in range(2)]
    for address, resolver in zip(ADDRESSES, resolvers, strict=True):
        try:
            await loop.create_datagram_endpoint(partial(DnsListener, resolver), local_addr=(address, naming.port))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            tell(f"cannot listen on {address} port {naming.port}/UDP: {why}; --names-port chooses another")
            sys.exit(1)
    _give_up_rights(tell)
    port = naming.port
    while naming.port == port:
        own, other = resolvers
        own.servers = other.servers = tuple((server, _DNS_PORT) for server in naming.servers)
        other.forbidden = naming.forbidden
        own.forbidden = replace(other.forbidden, own=frozenset())
        line = await changes.readline()
        if not line:
            return
        naming = msgspec.json.decode(line, type=Naming)


def _give_up_rights(tell: Callable[[str], None]) -> None:
    """Continue as a user id without other processes; without the right to change it, as the present user."""
    if os.geteuid() == 0:
        try:
            number = identity.unused()
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
        except HostError as error:
            tell(f"keeps running as root: {error.message}")
        except PermissionError as error:
            tell(f"keeps running as root: {error.strerror}")


async def _main() -> None:
    loop = asyncio.get_running_loop()
    changes = asyncio.StreamReader(limit=LARGEST)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(changes), sys.stdin)
    line = await changes.readline()
    if line:
        await serve(msgspec.json.decode(line, type=Naming), changes, ResolverInput())


if __name__ == "__main__":
    asyncio.run(_main())
