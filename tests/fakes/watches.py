"""The watches of the fake API server: changes as a selector shows them, and streams that can be disturbed."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What happened to one object: it came to be (no `old`), changed, or went (no `new`)."""

    version: int
    collection: str
    old: Object | None
    new: Object | None

    def seen_through(self, selects: Callable[[Object], bool]) -> Object | None:
        """Return the event that a watch with a selector gets, as a real server tells it; None for none."""
        was = self.old is not None and selects(self.old)
        is_now = self.new is not None and selects(self.new)
        if is_now:
            return {"type": "MODIFIED" if was else "ADDED", "object": self.new}
        if was:
            metadata = {**self.old["metadata"], "resourceVersion": str(self.version)}
            return {"type": "DELETED", "object": {**self.old, "metadata": metadata}}
        return None


class StreamEndError(Exception):
    """The stream is over."""


class Stream:
    """The body of one watch, chunk by chunk; or without chunks, as some proxies make of it."""

    def __init__(self, handler: BaseHTTPRequestHandler, closing: threading.Event, *, has_chunks: bool) -> None:
        self.handler = handler
        self._has_chunks = has_chunks
        self.closing = closing
        self.pause = 0.0
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header(*(("Transfer-Encoding", "chunked") if has_chunks else ("Connection", "close")))
        handler.end_headers()
        handler.wfile.flush()

    def write(self, content: bytes) -> None:
        """Send one chunk; byte by byte if the stream was made slow."""
        framed = f"{len(content):x}\r\n".encode() + content + b"\r\n" if self._has_chunks else content
        if not self.pause:
            self.handler.wfile.write(framed)
            return
        for start in range(0, len(framed), 40):
            self.handler.wfile.write(framed[start : start + 40])
            time.sleep(self.pause)

    def event(self, kind: str, content: Object) -> None:
        self.write(json.dumps({"type": kind, "object": content}).encode() + b"\n")

    def is_left(self) -> bool:
        """Tell whether the client went: it has nothing to say while it watches."""
        return bool(select.select([self.handler.connection], [], [], 0)[0])

    def finish(self) -> None:
        """End as HTTP wants it."""
        if self._has_chunks:
            self.handler.wfile.write(b"0\r\n\r\n")

    def drop(self) -> None:
        """End without a word."""
        self.handler.close_connection = True
        with suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)
        raise StreamEndError


@dataclass(frozen=True)
class Disturbance:
    """Something done to an open watch."""

    name: str
    act: Callable[[Stream], None]

    def __repr__(self) -> str:
        return self.name


def _half_line(stream: Stream) -> None:
    stream.write(b'{"type":"ADDED","object":{"kind":"Serv')
    stream.drop()


def _half_chunk(stream: Stream) -> None:
    stream.handler.wfile.write(b'ff\r\n{"type":"ADD')
    stream.drop()


def _end_within_line(stream: Stream) -> None:
    stream.write(b'{"type":"DELETED","object":{"metadata":{"namespace":"shop","name":"a"}}}')
    stream.finish()
    raise StreamEndError


def _finish(stream: Stream) -> None:
    stream.finish()
    raise StreamEndError


def _hang(stream: Stream) -> None:
    stream.closing.wait(5)
    stream.drop()


def _slow(stream: Stream) -> None:
    stream.pause = 0.005


def line(content: bytes, name: str) -> Disturbance:
    """Send a line that is none of the server's events."""
    return Disturbance(name, lambda stream: stream.write(content + b"\n"))


def error_event(code: int, message: str = "", *, retry_after: int = 0) -> Disturbance:
    """Send an ERROR event, and end."""
    status = {"kind": "Status", "apiVersion": "v1", "code": code, "message": message, "reason": "Expired"}
    if retry_after:
        status["details"] = {"retryAfterSeconds": retry_after}

    def act(stream: Stream) -> None:
        stream.event("ERROR", status)
        _finish(stream)

    return Disturbance(f"error {code}", act)


HALF_LINE = Disturbance("half a line", _half_line)
HALF_CHUNK = Disturbance("half a chunk", _half_chunk)
END_WITHIN_LINE = Disturbance("end within a line", _end_within_line)
FINISH = Disturbance("end", _finish)
DROP = Disturbance("drop", Stream.drop)
HANG = Disturbance("hang", _hang)
SLOW = Disturbance("slow", _slow)
GARBAGE = (
    line(b'{"type":"ADDED","object":{"kin', "cut JSON"),
    line(b"<html>log in</html>", "a page"),
    line(b"\xff\xfe\x00", "bytes"),
    line(b"[" * 50_000, "deep"),
    line(b'{"type":"MOVED","object":{"kind":"Service","metadata":{"name":"a"}}}', "an unknown type"),
    line(b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a"}}}', "another kind"),
    line(b'{"type":"DELETED","object":{"kind":"Service","metadata":{}}}', "no name"),
    line(b'{"type":"ADDED"}', "no object"),
    line(b"null", "null"),
)
