"""All pods in one process: every address is its own here, so one socket for each port answers for all of them.

Run as `python pods.py CERTIFICATE PORT...`. Each port speaks HTTP and TLS, as its client begins. An answer tells, as
JSON, what was asked and which address it was asked of; who that is, the tests know. What may be asked for:

    /sleep/N               the answer comes after N seconds
    /status/N              the answer has status N
    X-Lab-Respond: {...}   the answer has these headers too
    Upgrade: ...           101, and from then on every byte comes back
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import sys
from dataclasses import dataclass

_TLS_HANDSHAKE = b"\x16"


@dataclass(frozen=True)
class Question:
    """One request, as it arrived."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    version: str = ""

    def header(self, name: str) -> str:
        """Return the first header of a name, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


async def read_question(reader: asyncio.StreamReader) -> Question | None:
    """Read a request with its body; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, version = first.split(" ", 2)
    headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    question = Question(method, path, headers, version)
    if question.header("Transfer-Encoding").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        await reader.readexactly(int(question.header("Content-Length") or 0))
    return question


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection, one after the other."""
    try:
        while (question := await read_question(reader)) is not None:
            if question.header("Upgrade"):
                await echo(question, reader, writer)
                break
            if question.path.startswith("/sleep/"):
                await asyncio.sleep(float(question.path.split("/")[2].split("?")[0]))
            writer.write(response(question, writer))
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError, ValueError):
        pass
    finally:
        writer.close()


async def echo(question: Question, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept an upgrade and send back whatever comes."""
    upgrade = question.header("Upgrade")
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n".encode())
    while some := await reader.read(4096):
        writer.write(some)
        await writer.drain()


def response(question: Question, writer: asyncio.StreamWriter) -> bytes:
    """Return the bytes of an answer."""
    address, port = writer.get_extra_info("sockname")[:2]
    given = {
        "address": address,
        "port": port,
        "method": question.method,
        "path": question.path,
        "headers": question.headers,
        "tls": writer.get_extra_info("ssl_object") is not None,
    }
    body = json.dumps(given).encode()
    more = json.loads(question.header("X-Lab-Respond") or "{}")
    status = int(question.path.split("/")[2]) if question.path.startswith("/status/") else 200
    keep = "close" if question.header("Connection").lower() == "close" else "keep-alive"
    headers = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": keep, **more}
    head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n"
    return head.encode("latin-1") + (b"" if question.method == "HEAD" else body)


async def welcome(connection: socket.socket, tls: ssl.SSLContext) -> None:
    """Find out whether a client begins with TLS, and serve it."""
    loop = asyncio.get_running_loop()
    spoken = loop.create_future()
    loop.add_reader(connection, lambda: spoken.done() or spoken.set_result(None))
    await spoken
    loop.remove_reader(connection)
    try:
        first = connection.recv(1, socket.MSG_PEEK)
        if not first:
            connection.close()
            return
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, talk)
        await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls if first == _TLS_HANDSHAKE else None)
    except (OSError, ssl.SSLError):
        connection.close()


async def listen(port: int, tls: ssl.SSLContext) -> None:
    """Serve a port on all addresses for ever."""
    loop = asyncio.get_running_loop()
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.setblocking(False)
    door.bind(("0.0.0.0", port))
    door.listen(1024)
    open_ones: set[asyncio.Task[None]] = set()
    while True:
        connection, _ = await loop.sock_accept(door)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.create_task(welcome(connection, tls))
        open_ones.add(task)
        task.add_done_callback(open_ones.discard)


async def main(certificate: str, ports: list[int]) -> None:
    """Serve all ports."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    await asyncio.gather(*(listen(port, tls) for port in ports))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))
