"""An HTTP answer, and its bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from rulegen.text import harmless, harmless_json, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        headers: Header fields, except those about the body.
    """

    status: int
    body: str
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] | None = None

    @classmethod
    def of_json(cls, status: int, document: object, headers: Mapping[str, str] | None = None) -> Reply:
        """Return an answer in JSON."""
        return cls(status, json.dumps(document) + "\n", "application/json", headers)

    def encoded(self) -> bytes:
        """Return the body to send, with control characters of external text escaped."""
        shown = harmless_json(self.body) if self.kind == "application/json" else harmless(self.body)
        return shown.encode()


@dataclass(frozen=True, slots=True)
class Encoded:
    """An answer in bytes: its head up to the empty line, and its body."""

    head: bytes
    body: bytes


def encoded(reply: Reply) -> Encoded:
    """Return the bytes of an answer with Connection: close."""
    body = reply.encoded()
    fields = {
        "Server": "rulegen",
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        **(reply.headers or {}),
        "X-Content-Type-Options": "nosniff",
        "Content-Type": reply.kind,
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", *(f"{name}: {text}" for name, text in fields.items())]
    return Encoded("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"), body)


def answer_of(page: Callable[[], Reply]) -> Encoded:
    """Return the bytes of a page; if making it fails, an answer with status 500."""
    try:
        return encoded(page())
    except Exception as error:  # noqa: BLE001 - whatever it is, the client learns of it, and others are answered
        return encoded(failure(error))


def failure(error: Exception) -> Reply:
    """Return the answer if a page cannot be made."""
    return Reply(500, f"rulegen failed: {type(error).__name__}: {printable(str(error))}\n")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
