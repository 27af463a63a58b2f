"""Requests the digest of the served configuration from nginx's workers, which confirms a reload."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Final

from rulegen.languages.nginx.sockets import SIGNIN_SOCKET, STATUS_SOCKET

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = STATUS_SOCKET.rpartition("/")[2]
_SIGNIN: Final = SIGNIN_SOCKET.rpartition("/")[2]
SOCKETS: Final = (NAME, _SIGNIN)
"""The sockets that nginx creates in `run`."""
_TIMEOUT_S: Final = 2.0
_LONGEST: Final = 65536


def ask(folder: Path, path: str = "/digest", *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return the answer of the status socket of the nginx in `folder`; None without an answer.

    Each request has its own connection, because the kernel chooses the worker for a connection.

    Args:
        folder: The folder of the supervisor.
        path: The requested path.
        timeout_s: The time limit for the whole request.
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
            connection.connect(f"/proc/self/fd/{descriptor}/{NAME}")
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: status\r\nConnection: close\r\n\r\n".encode())
            return _body(_whole(connection, deadline))
    except OSError:
        return None
    finally:
        os.close(descriptor)


def close_to_others(run: int) -> None:
    """Restrict the status socket to our user, and the other one to the workers; nginx creates them with mode 0666.

    Args:
        run: The descriptor of their folder, whose group is that of the workers.
    """
    workers = os.fstat(run).st_gid
    for name, mode in ((NAME, 0o600), (_SIGNIN, 0o660)):
        with contextlib.suppress(OSError):  # it does not exist yet; other users cannot enter the folder
            _restrict(run, name, mode, -1 if name == NAME else workers)


def _restrict(run: int, name: str, mode: int, group: int) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=run)
    try:
        known = os.fstat(descriptor)
        if not stat.S_ISSOCK(known.st_mode):
            return
        path = f"/proc/self/fd/{descriptor}"  # fchmod and fchown take no such descriptor
        if group not in {-1, known.st_gid}:
            os.chown(path, -1, group)
        if stat.S_IMODE(known.st_mode) != mode:
            os.chmod(path, mode)  # noqa: PTH101
    finally:
        os.close(descriptor)


def _whole(connection: socket.socket, deadline: float) -> bytes:
    """Return the whole answer.

    Raises:
        OSError: The answer is too large, or takes too long.
    """
    answer = b""
    while len(answer) <= _LONGEST:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(4096)
        if not piece:
            return answer
        answer += piece
    raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))


def _body(answer: bytes) -> str | None:
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or words[1] != b"200":
        return None
    return body.decode("utf-8", "replace").strip()
