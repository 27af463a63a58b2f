"""Asks the master of HAProxy for its workers, and its workers for the configuration that they serve."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SOCKET: Final = "master.sock"
"""The socket of the master in the folder `run`."""
WORKER_SOCKET: Final = "worker.sock"
"""The socket of the worker in the folder `run`."""
VARIABLE: Final = "proc.digest"
"""The variable of a worker with the digest of the configuration that it serves."""
_DIGEST: Final = re.compile(r"type=str value=<([0-9a-f]+)>")
_TIMEOUT_S: Final = 2.0
_LONGEST: Final = 1 << 20
_OLD: Final = "# old workers"


def serves(folder: Path, *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return the digest with which all new connections are served; None without an answer.

    There is none while an old worker still accepts connections.
    """
    workers = ask(folder, "show proc", timeout_s=timeout_s)
    answer = ask(folder, "@1 show info", timeout_s=timeout_s) if workers is not None else None
    variable = ask(folder, f"@1 get var {VARIABLE}", timeout_s=timeout_s) if answer is not None else None
    if workers is None or answer is None or variable is None:
        return None
    digest = _DIGEST.search(variable)
    if fields(answer).get("Stopping") != "0" or digest is None:
        return None
    for pid in old_workers(workers):
        old = ask(folder, f"@!{pid} show info", timeout_s=timeout_s)
        if old and fields(old).get("Stopping") == "0":
            return None
    return digest[1]


def worker_serves(folder: Path, *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return the digest that the worker itself answers; None without an answer. Its master may hang."""
    answer = ask(folder, f"show info;get var {VARIABLE}", timeout_s=timeout_s, name=WORKER_SOCKET) or ""
    digest = _DIGEST.search(answer)
    return digest[1] if digest is not None and fields(answer).get("Stopping") == "0" else None


def old_workers(answer: str) -> list[int]:
    """Return the ids of the workers that finish their connections, from the master's list of processes."""
    ids = []
    is_old = False
    for line in answer.splitlines():
        if line.startswith("#"):
            is_old = line.strip() == _OLD
        elif is_old and line[:1].isdigit():
            ids.append(int(line.split()[0]))
    return ids


def fields(answer: str) -> dict[str, str]:
    """Return the lines of an answer of the form `name: value`."""
    pairs = (line.partition(": ") for line in answer.splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


def ask(folder: Path, command: str, *, timeout_s: float = _TIMEOUT_S, name: str = SOCKET) -> str | None:
    """Return the answer of the HAProxy in `folder` to one command; None without an answer.

    Args:
        folder: The folder of the supervisor.
        command: The command, one line; `@1` before it asks the worker.
        timeout_s: The time limit for the whole request.
        name: The socket: by default, that of the master.
    """
    deadline = time.monotonic() + timeout_s
    try:
        # a socket path has at most 107 characters, and a folder may have more: use the descriptor of the folder
        descriptor = os.open(folder / "run", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
            connection.sendall(f"{command}\n".encode())
            connection.shutdown(socket.SHUT_WR)
            return _whole(connection, deadline)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _whole(connection: socket.socket, deadline: float) -> str | None:
    """Return the whole answer; None if it is too large.

    Raises:
        OSError: It takes too long.
    """
    answer = b""
    while len(answer) <= _LONGEST:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(65536)
        if not piece:
            return answer.decode("utf-8", "replace")
        answer += piece
    return None
