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
    def status(
        cls, code: int, message: str = "", *, retry_after: int | None = None, details: dict[str, object] | None = None
    ) -> Self:
        """Answer with a status and a v1 Status that has a message, and details if given."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
            reply(handler, code, document if details is None else {**document, "details": details}, headers)

        return cls(answer)

    @classmethod
    def terminating(cls, plural: str, name: str, namespace: str) -> Self:
        """Answer as the API server does (admission plugin NamespaceLifecycle) for a namespace that is being deleted."""
        group = plural.partition(".")[2]
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        words = f"unable to create new content in namespace {namespace} because it is being terminated"
        details = {"name": name, "group": group, "kind": plural.partition(".")[0], "causes": [cause]}
        return cls.status(403, f'{plural} "{name}" is forbidden: {words}', details=details)

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
