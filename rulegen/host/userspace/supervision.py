"""Functions of commands for the supervisor of the proxy: start it, and send it requests."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError, LaterError
from rulegen.host.commands.runner import MissingToolError, find
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes.supervision import start
from rulegen.host.userspace import folder as of
from rulegen.host.userspace import listeners
from rulegen.host.userspace.exchange import ask
from rulegen.host.userspace.instances import LATER, NO_VERDICT
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rulegen.net import Family

_MODULE: Final = "rulegen.host.userspace.supervisor"
_ANSWER_S: Final = 40.0
_STATE_S: Final = 8.0
"""A supervisor that does not answer for so long hangs."""
_END_S: Final = 5.0
_OK: Final = "ok"


class ProxyRefusedError(HostError):
    """HAProxy rejects a configuration."""


class ProxyFailedError(HostError):
    """HAProxy cannot be tested or started now; nothing is known about its configuration."""


def is_running(folder: Path) -> bool:
    """Whether a supervisor holds the sockets of the proxy.

    Raises:
        HostError: It does not answer.
    """
    return _ask(folder, "state", _STATE_S) is not None


def held(folder: Path) -> Mapping[Family, int]:
    """Return the ports that a supervisor listens on, so that it serves; none if no supervisor runs.

    Raises:
        HostError: It does not answer.
    """
    words = (_ask(folder, "state", _STATE_S) or "").split()
    return dict(listeners.read(word for word in words if ":" in word))


def ensure(folder: Path) -> bool:
    """Start a supervisor unless one runs; return whether it was started. One that hangs is killed: HAProxy goes on.

    Raises:
        HostError: It cannot be started.
    """
    try:
        if is_running(folder):  # without the program, such as during its update, what runs can still be changed
            return False
    except HostError:
        if not process_list.end(_listener(folder), _END_S):
            raise
    program = find("haproxy")
    if program is None:
        raise MissingToolError("haproxy")
    start(_MODULE, (str(folder), program), folder, of="the proxy")
    return True


def _listener(folder: Path) -> int:
    """Return the process that listens for requests.

    Raises:
        HostError: It cannot be reached.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_END_S)
        try:
            with of.opened(folder) as home:
                link.connect(f"/proc/self/fd/{home}/{of.REQUESTS}")
                pid, _, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError as error:
            raise HostError(f"the supervisor of the proxy cannot be reached: {error}") from error
    return int(pid)


def serve(folder: Path, release: str, ports: Mapping[Family, int]) -> None:
    """Let the supervisor start HAProxy with a release; the old HAProxy finishes its connections.

    Raises:
        ProxyRefusedError: HAProxy rejects the release. What was served before is still served.
        ProxyFailedError: HAProxy cannot be tested, cannot listen, or does not start. The same holds.
        LaterError: It is still being tested or started, or was asked to start with another release.
        HostError: The supervisor does not answer.
    """
    _request(folder, f"serve {release} {listeners.request(ports)}")


def keep(folder: Path, release: str) -> None:
    """Let the supervisor use a release for later starts of HAProxy, which serves it already.

    Raises:
        HostError: The supervisor does not answer.
    """
    _request(folder, f"keep {release}")


def end(folder: Path) -> None:
    """End the supervisor, if there is one. HAProxy takes no new connections, and ends with its last one.

    Raises:
        HostError: The supervisor does not answer.
    """
    if _ask(folder, "end", _ANSWER_S) not in {None, _OK}:
        raise HostError("the supervisor of the proxy does not end")


def _request(folder: Path, text: str) -> None:
    answer = _ask(folder, text, _ANSWER_S)
    if answer is None:
        raise HostError("the supervisor of the proxy has ended", hint="apply again: it is started then")
    if not answer or answer.startswith(NO_VERDICT):
        why = answer.removeprefix(NO_VERDICT) or "its supervisor stopped trying"
        raise ProxyFailedError(f"the proxy does not serve its new configuration: {printable(why, 300)}")
    if answer.startswith(LATER):
        raise LaterError(
            f"the proxy does not serve its new configuration yet: {printable(answer.removeprefix(LATER), 300)}",
            hint="its supervisor keeps trying: repeat the command later to see whether the proxy serves",
        )
    if answer != _OK:
        raise ProxyRefusedError(f"the proxy does not serve its new configuration: {printable(answer, 300)}")


def _ask(folder: Path, text: str, timeout_s: float) -> str | None:
    try:
        answer = ask(folder, of.REQUESTS, f"{text}\n", timeout_s)
    except OSError as error:
        raise HostError(f"the supervisor of the proxy does not answer: {error}") from error
    return None if answer is None else answer.strip()
