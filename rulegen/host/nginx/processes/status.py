"""Asking nginx which configuration its workers serve with: the only proof that a reload took place."""

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
SOCKETS: Final = (NAME, SIGNIN_SOCKET.rpartition("/")[2])
"""Those that nginx makes in `run`."""
_TIMEOUT_S: Final = 2.0
_LONGEST: Final = 65536


def ask(folder: Path, path: str = "/digest", *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return the body that the status socket of the nginx in `folder` answers; None if nobody does.

    A new connection for each question: which worker takes it is the kernel's choice.

    Args:
        folder: That of the supervisor.
        path: What is requested.
        timeout_s: How long all of it may take.
    """
    deadline = time.monotonic() + timeout_s
    try:
        # a socket's path may have 107 characters, a folder more: so it is named through a descriptor
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
    """Have none but us connect to the status socket: nginx makes it 0666, whatever the umask is.

    Args:
        run: The descriptor of the folder that it is in.
    """
    with contextlib.suppress(OSError):  # there is none yet; and the folder is closed to others
        descriptor = os.open(NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=run)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode) and stat.S_IMODE(mode) != 0o600:
                os.chmod(f"/proc/self/fd/{descriptor}", 0o600)  # noqa: PTH101 - fchmod takes no such descriptor
        finally:
            os.close(descriptor)


def _whole(connection: socket.socket, deadline: float) -> bytes:
    """Return all that comes.

    Raises:
        OSError: It is too much, or takes too long.
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
