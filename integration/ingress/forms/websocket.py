"""The two ends of a WebSocket that sends back each message (RFC 6455), as far as an echo needs it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8


def accepted(key: str) -> str:
    """Return what a server answers to the key of a client."""
    return base64.b64encode(hashlib.sha1((key + _MAGIC).encode(), usedforsecurity=False).digest()).decode()


def frame(kind: int, content: bytes, mask: bytes = b"") -> bytes:
    """Return a message of at most 125 bytes; with a mask, as a client must send it."""
    size = len(content) | (0x80 if mask else 0)
    return bytes([0x80 | kind, size]) + mask + (masked(content, mask) if mask else content)


def masked(content: bytes, mask: bytes) -> bytes:
    """Return content with a mask applied, or taken away."""
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))


def check(connection: socket.socket, key: str, reply: http.client.HTTPResponse) -> None:
    """Send a message and expect it back.

    Raises:
        ConnectionError: The other end is no WebSocket, or does not send it back.
    """
    if reply.getheader("Sec-WebSocket-Accept") != accepted(key):
        raise ConnectionError(f"Sec-WebSocket-Accept: {reply.getheader('Sec-WebSocket-Accept')}")
    message = b"is this an echo?"
    connection.sendall(frame(TEXT, message, os.urandom(4)))
    expected, got = frame(TEXT, message), b""
    while len(got) < len(expected) and (some := connection.recv(len(expected) - len(got))):
        got += some
    if got != expected:
        raise ConnectionError(f"the echo is {got!r}")
    connection.sendall(frame(CLOSE, b"", os.urandom(4)))
