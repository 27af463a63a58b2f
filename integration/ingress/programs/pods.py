"""All pods in one process: every address is its own here, so one socket for each port answers for all of them.

Run as `python pods.py CERTIFICATE PORT...`. Each port speaks HTTP and TLS, as its client begins. An answer tells, as
JSON, what was asked and which address it was asked of; who that is, the tests know. What may be asked for:

    /sleep/N               the answer comes after N seconds
    /status/N              the answer has status N
    X-Lab-Status: N        the same
    /cookie-auth           the answer has the status that the cookie `auth` says (`ok` is 200), 401 without one
    X-Lab-Respond: {...}   the answer has these headers too
    X-Lab-Size: N          the answer has at least N bytes, with spaces at its end
    X-Code: ...            as an error backend is told: the answer has all headers X-... of the request
    Upgrade: ...           101, and from then on every byte comes back; each message, of a WebSocket with a key
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
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
    headers = {
        "Connection": "Upgrade",
        "Upgrade": question.header("Upgrade"),
        "X-Lab-Seen": json.dumps(seen(question, writer)),
    }
    if key := question.header("Sec-WebSocket-Key"):
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # RFC 6455, 4.2.2
        headers["Sec-WebSocket-Accept"] = base64.b64encode(digest).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    while key and (message := await read_message(reader)):
        writer.write(message)
        await writer.drain()
    while not key and (some := await reader.read(4096)):
        writer.write(some)
        await writer.drain()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Return a short message of a client as a server sends it (RFC 6455, 5.2); nothing at the end."""
    first, size = await reader.readexactly(2)
    mask, content = await reader.readexactly(4), await reader.readexactly(size & 0x7F)
    if first & 0x0F == 8:
        return b""
    return bytes([first, len(content)]) + bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))


def seen(question: Question, writer: asyncio.StreamWriter) -> dict[str, object]:
    """Return what there is to tell of a request."""
    address, port = writer.get_extra_info("sockname")[:2]
    return {
        "address": address,
        "port": port,
        "method": question.method,
        "path": question.path,
        "headers": question.headers,
        "tls": writer.get_extra_info("ssl_object") is not None,
    }


def verdict(question: Question) -> int:
    """Return the status that the cookie `auth` says."""
    cookies = dict(part.strip().partition("=")[::2] for part in question.header("Cookie").split(";"))
    given = cookies.get("auth", "401")
    return 200 if given == "ok" else int(given)


def status_of(question: Question) -> int:
    """Return the status that a request asks for."""
    if question.path.startswith("/cookie-auth"):
        return verdict(question)
    if question.path.startswith("/status/"):
        return int(question.path.split("/")[2].split("?")[0])
    return int(question.header("X-Lab-Status") or 200)


def response(question: Question, writer: asyncio.StreamWriter) -> bytes:
    """Return the bytes of an answer."""
    body = json.dumps(seen(question, writer)).encode().ljust(int(question.header("X-Lab-Size") or 0))
    more = json.loads(question.header("X-Lab-Respond") or "{}")
    if question.header("X-Code"):
        more |= {key: value for key, value in question.headers if key.lower().startswith("x-")}
    if question.path.startswith("/cookie-auth"):
        more["X-Peer"] = writer.get_extra_info("peername")[1]
    keep = "close" if question.header("Connection").lower() == "close" else "keep-alive"
    headers = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": keep, **more}
    head = f"HTTP/1.1 {status_of(question)} Said\r\n"
    head += "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n"
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
