"""Answers of the fake API server that are not what was asked for."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Self

from tests.fakes.requests import reply

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Fault:
    """One answer that is not what was asked for; `answer` writes it."""

    answer: Callable[[BaseHTTPRequestHandler], None]

    @classmethod
    def status(cls, code: int, message: str = "", *, retry_after: int | None = None) -> Self:
        """Answer with a status and a v1 Status that carries a message."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            reply(handler, code, {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}, headers)

        return cls(answer)

    @classmethod
    def body(cls, content: bytes, *, length: int | None = None) -> Self:
        """Answer 200 with these bytes; a greater length than they have is a body cut short."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content) if length is None else length))
            handler.end_headers()
            handler.wfile.write(content)
            handler.close_connection = True

        return cls(answer)

    @classmethod
    def packed(cls, document: object) -> Self:
        """Answer 200 with a document, in chunks, and by gzip though nobody asked for that: some proxies do."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            content = gzip.compress(json.dumps(document).encode())
            handler.send_response(200)
            handler.send_header("Content-Encoding", "gzip")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for start in range(0, len(content), 40):
                piece = content[start : start + 40]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")

        return cls(answer)

    @classmethod
    def stall(cls, released: threading.Event) -> Self:
        """Answer the head, and then nothing until the event (or the end of the test)."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            released.wait(30)
            handler.close_connection = True

        return cls(answer)

    @classmethod
    def mute(cls, released: threading.Event) -> Self:
        """Say nothing at all until the event (or the end of the test)."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            released.wait(30)
            handler.close_connection = True

        return cls(answer)

    @classmethod
    def hang_up(cls) -> Self:
        """Close the connection without a word."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.close_connection = True

        return cls(answer)
