"""Backends that do one thing that `pods.py` does not; as there, one socket for each port answers for every address.

Run as `python specialists.py AUTHORITY SERVER_PEM`:

    9100  a server that is asked who may pass: /status/N says N, /large/N much, all else 200; X-Seen tells what it saw;
          ?to=PATH would have nginx answer from there
    9101  FastCGI: tells its parameters, as JSON; X-Lab-Respond as in `pods.py`
    9102  gRPC without TLS: sends back the message, and how it went as a trailer
    9103  the same with TLS
    9104  HTTP over TLS for clients that show a certificate of AUTHORITY
    9105  reads a request, and hangs up
    9106  sends back the body that it is sent, and its size
    9107  answers 502, whatever it is asked
    9108  keeps connections as HTTP/1.1 has it, and where it is told to close one, does so without a word
    9109  notes what it is asked; /noted answers the notes, as JSON
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable

from pods import Question, read_question  # beside this file, where it is started

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def quietly(talk: Talk) -> Talk:
    """End a connection without a word where its client ends it."""

    async def inner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    return inner


def answer(status: int, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Return an answer after which the connection ends."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def facts_of(question: Question, **more: object) -> dict[str, object]:
    """Return what there is to tell of a request."""
    return {"method": question.method, "path": question.path, "headers": question.headers, **more}


async def judge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer who may pass."""
    question = await read_question(reader)
    if question is None:
        return
    status = int(question.path.split("/")[2].split("?")[0]) if question.path.startswith("/status/") else 200
    headers = {
        "X-Auth-User": "jane",
        "X-Seen": json.dumps(facts_of(question)),
        "Set-Cookie": f"verdict={status}; Path=/",
        "WWW-Authenticate": "Bearer",
    }
    if "?to=" in question.path:
        headers["X-Accel-Redirect"] = question.path.partition("?to=")[2]
    if question.path.startswith("/large/"):
        headers["X-Large"] = "l" * int(question.path.split("/")[2])
    writer.write(answer(status, headers))
    await writer.drain()


async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one FastCGI request (FastCGI specification 1.0), and end the connection a moment later, as it asked."""
    parameters = b""
    number = 1
    while True:
        _, kind, number, size, padding, _ = struct.unpack("!BBHHBB", await reader.readexactly(8))
        content = (await reader.readexactly(size + padding))[:size]
        if kind == 4:
            parameters += content
        if kind == 5 and not size:
            break
    given = read_parameters(parameters)
    headers = {"Content-Type": "application/json", **json.loads(given.get("HTTP_X_LAB_RESPOND") or "{}")}
    head = "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n"
    out = head.encode() + json.dumps(given).encode()
    writer.write(struct.pack("!BBHHBB", 1, 6, number, len(out), 0, 0) + out)
    writer.write(struct.pack("!BBHHBB", 1, 6, number, 0, 0, 0))
    writer.write(struct.pack("!BBHHBB", 1, 3, number, 8, 0, 0) + bytes(8))
    await writer.drain()
    await asyncio.sleep(0.05)


def read_parameters(text: bytes) -> dict[str, str]:
    """Return names and values of parameters."""
    collected: dict[str, str] = {}
    at = 0
    while at < len(text):
        sizes = []
        for _ in range(2):
            if text[at] < 128:
                sizes.append(text[at])
                at += 1
            else:
                sizes.append(struct.unpack_from("!I", text, at)[0] & 0x7FFFFFFF)
                at += 4
        name = text[at : at + sizes[0]]
        value = text[at + sizes[0] : at + sum(sizes)]
        collected[name.decode("latin-1")] = value.decode("latin-1")
        at += sum(sizes)
    return collected


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack("!BHBBI", len(content) >> 16, len(content) & 0xFFFF, kind, flags, stream) + content


def literal(name: str, value: str) -> bytes:
    """Return a header that no table has (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the calls of one connection of HTTP/2."""
    await reader.readexactly(24)
    writer.write(frame(4, 0, 0))
    bodies: dict[int, bytes] = {}
    while True:
        high, low, kind, flags, stream = struct.unpack("!BHBBI", await reader.readexactly(9))
        content = await reader.readexactly(high << 16 | low)
        if kind == 4 and not flags & 1:
            writer.write(frame(4, 1, 0))
        elif kind == 6 and not flags & 1:
            writer.write(frame(6, 1, 0, content))
        elif kind == 7:
            return
        elif kind in {0, 1}:
            if kind == 0:
                bodies[stream] = bodies.get(stream, b"") + content
            if flags & 1:
                head = b"\x88" + literal("content-type", "application/grpc")
                head += literal("x-accel-redirect", "/elsewhere")  # which nobody may obey
                writer.write(frame(1, 4, stream, head) + frame(0, 0, stream, bodies.pop(stream, b"")))
                writer.write(frame(1, 5, stream, literal("grpc-status", "0") + literal("x-said", "well")))
        await writer.drain()


async def knowing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a client whose certificate was checked, and tell what it showed."""
    question = await read_question(reader)
    if question is None:
        return
    tls = writer.get_extra_info("ssl_object")
    subject = dict(pair for part in (tls.getpeercert() or {}).get("subject", ()) for pair in part)
    more = {"client": subject.get("commonName", ""), "asked_for": getattr(tls, "asked_for", None)}
    body = json.dumps(facts_of(question, version=tls.version(), cipher=tls.cipher()[0], **more)).encode()
    writer.write(answer(200, {"Content-Type": "application/json"}, body))
    await writer.drain()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request and end."""
    await read_question(reader)


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what was sent."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    size = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
    body = await reader.readexactly(size)
    writer.write(answer(200, {"Content-Type": "text/plain", "X-Size": str(size)}, body))
    await writer.drain()


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer that there is nothing behind this."""
    await read_question(reader)
    writer.write(answer(502, {"X-Refused": "yes"}))
    await writer.drain()


async def close_silently(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests, and end the connection a moment after one that asks for it, as Python's own server does."""
    while (question := await read_question(reader)) is not None:
        writer.write(b"HTTP/1.1 200 Said\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        if question.header("Connection").lower() == "close" or question.version == "HTTP/1.0":
            await asyncio.sleep(0.05)
            return


_NOTES: list[dict[str, object]] = []


async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Note a request with its body, or answer the notes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if " /noted " in first:
        writer.write(answer(200, {"Content-Type": "application/json"}, json.dumps({"notes": _NOTES}).encode()))
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        _NOTES.append({"asks": first.rpartition(" ")[0], "headers": headers, "body": body.decode("latin-1")})
        writer.write(answer(418, {"X-Noted": "yes"}, b"noted"))
    await writer.drain()


def server_context(certificate: str, authority: str = "") -> ssl.SSLContext:
    """Return how TLS is spoken: with clients that show a certificate where there is an authority for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if authority:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority)
        context.sni_callback = _note_name
    else:
        context.set_alpn_protocols(["h2"])
    return context


def _note_name(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    connection.asked_for = name  # type: ignore[attr-defined]


async def main(authority: str, certificate: str) -> None:
    """Serve all ports for ever."""
    talks: dict[int, tuple[Talk, ssl.SSLContext | None]] = {
        9100: (judge, None),
        9101: (script, None),
        9102: (call, None),
        9103: (call, server_context(certificate)),
        9104: (knowing, server_context(certificate, authority)),
        9105: (hang_up, None),
        9106: (mirror, None),
        9107: (refuse, None),
        9108: (close_silently, None),
        9109: (note, None),
    }
    servers = [
        await asyncio.start_server(quietly(talk), "0.0.0.0", port, ssl=context, limit=1 << 22)
        for port, (talk, context) in talks.items()
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
