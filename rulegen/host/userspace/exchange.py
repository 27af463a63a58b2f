"""Asks a Unix socket one question and returns the complete answer."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rulegen.waits import WAITS

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 64 << 20
_CHUNK: Final = 1 << 16
_SHOWN: Final = 60


def ask(folder: Path, name: str, question: str, timeout_s: float, *, ends: bool = False) -> str | None:
    """Return the answer of the process that listens on a socket in a folder; None if no process listens.

    Args:
        folder: The folder; its path may be longer than that of a socket may be.
        name: The name of the socket.
        question: What is sent; nothing may follow it.
        timeout_s: The longest wait in seconds, for the complete answer.
        ends: Whether the other side reads until the end of the question.

    Raises:
        OSError: The answer did not arrive in time, is too long, or cannot be read.
        StoppingError: This process is stopping.
    """
    try:
        home = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout_s)

            def end() -> None:
                with suppress(OSError):  # it is not connected
                    link.shutdown(socket.SHUT_RDWR)

            what = f"an answer to `{question.partition(chr(10))[0][:_SHOWN]}` on {name}"
            with WAITS.waiting(what, limit_s=timeout_s, end=end) as wait:
                answer = _answer(link, f"/proc/self/fd/{home}/{name}", question, timeout_s, ends=ends)
                wait.check()
            return answer
    finally:
        os.close(home)


def _answer(link: socket.socket, path: str, question: str, timeout_s: float, *, ends: bool) -> str | None:
    until = time.monotonic() + timeout_s
    try:
        link.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    link.sendall(question.encode())
    if ends:
        link.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while chunk := link.recv(_CHUNK):
        answer += chunk
        if len(answer) > MOST_BYTES or time.monotonic() > until:
            raise TimeoutError(f"the answer on {path} is too long or takes too long")
    return answer.decode("utf-8", "replace")
