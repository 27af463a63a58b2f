"""Hosts behind a peer process: the one implementation of `hosts.Host`, whatever the namespace is made of."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from integration.lab.hosts import Answer, Completed, LabError, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from integration.lab.hosts import Address, Family, Repeating, Running, Transport


class Wire:
    """Commands to the peer process of one host, one at a time; `name` is what it reported with."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._commands = connection.makefile("w", encoding="utf-8")
        self._lines = connection.makefile("r", encoding="utf-8")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        # As seen from here, whatever namespace of processes it is in: the way into its network namespace.
        self.pid = int(struct.unpack("3i", credentials)[0])
        self.name = str(json.loads(self._lines.readline())["name"])
        self._number = 0

    def __call__(self, do: str, *, within_s: float, **parameters: object) -> Any:
        """Do one command and return its result; LabError where the peer failed or is silent for longer than it may."""
        self._connection.settimeout(within_s + 30)
        self._number += 1
        reply: dict[str, Any] = {}
        try:
            self._commands.write(json.dumps({"number": self._number, "do": do, "with": parameters}) + "\n")
            self._commands.flush()
            while reply.get("to") != self._number:  # a test that ran out of time did not read all replies
                line = self._lines.readline()
                if not line:
                    raise LabError(f"{self.name}: {do}: its peer process has ended")
                reply = json.loads(line)
        except OSError as error:
            raise LabError(f"{self.name}: {do}: {error}") from error
        if "error" in reply:
            raise LabError(f"{self.name}: {do}: {reply['error']}")
        return reply["result"]

    def close(self) -> None:
        """Close; the peer process ends itself."""
        self._lines.close()
        with contextlib.suppress(OSError):  # the peer has ended before it read all
            self._commands.close()
        self._connection.close()


@dataclass(frozen=True, slots=True)
class _RunningPeer:
    wire: Wire
    pid: int
    argv: tuple[str, ...]

    def kill(self, *, group: bool = False) -> None:
        self.wire("signal", within_s=1, pid=self.pid, number=int(signal.SIGKILL), group=group)

    def wait(self, timeout_s: float = 60) -> Completed:
        return Completed(self.argv, **self.wire("wait", within_s=timeout_s, pid=self.pid, timeout_s=timeout_s))


@dataclass(frozen=True, slots=True)
class _RepeatingPeer:
    wire: Wire
    number: int
    timeout_s: float

    def report(self) -> Report:
        return Report(**self.wire("repeated", within_s=1, number=self.number, stop=False))

    def stop(self) -> Report:
        return Report(**self.wire("repeated", within_s=self.timeout_s, number=self.number, stop=True))


@dataclass(frozen=True, slots=True)
class PeerHost:
    """A host behind a peer process, in a namespace or in a container.

    Attributes:
        wire: Commands to the process.
        own: All of its addresses but loopback, the main ones first.
    """

    name: str
    wire: Wire
    own: tuple[Address, ...]

    def addresses(self, family: Family) -> tuple[Address, ...]:
        return tuple(address for address in self.own if address.version == family)

    def run(
        self, argv: Sequence[str], stdin: str = "", timeout_s: float = 60, env: Mapping[str, str] | None = None
    ) -> Completed:
        return self.popen(argv, stdin, env).wait(timeout_s)

    def popen(self, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None) -> Running:
        pid = self.wire("start", within_s=10, argv=list(argv), stdin=stdin, env=dict(env or {}))
        return _RunningPeer(self.wire, pid, tuple(argv))

    def fork(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Running:
        pid = self.wire("fork", within_s=60, argv=list(argv), env=dict(env or {}))
        return _RunningPeer(self.wire, pid, tuple(argv))

    def listen(self, protocol: Transport, family: Family, port: int, address: str = "") -> None:
        self.wire("listen", within_s=5, protocol=protocol, family=family, address=address, port=port)

    def request(
        self,
        protocol: Transport,
        address: Address | str,
        port: int,
        *,
        source: Address | str | None = None,
        source_port: int = 0,
        timeout_s: float = 5,
    ) -> Answer:
        question = _question(protocol, address, port, source=source, source_port=source_port, timeout_s=timeout_s)
        return Answer.read(*self.wire("ask", within_s=timeout_s, question=question, count=1))

    def requests(
        self,
        count: int,
        protocol: Transport,
        address: Address | str,
        port: int,
        *,
        source: Address | str | None = None,
        timeout_s: float = 5,
    ) -> list[Answer]:
        question = _question(protocol, address, port, source=source, timeout_s=timeout_s)
        reported: Iterable[Mapping[str, Any]] = self.wire(
            "ask", within_s=count * timeout_s, question=question, count=count
        )
        return [Answer.read(entry) for entry in reported]

    def repeat(
        self, protocol: Transport, address: Address | str, port: int, *, pause_s: float = 0, timeout_s: float = 5
    ) -> Repeating:
        question = _question(protocol, address, port, timeout_s=timeout_s)
        return _RepeatingPeer(self.wire, self.wire("repeat", within_s=5, question=question, pause_s=pause_s), timeout_s)


def _question(
    protocol: Transport,
    address: Address | str,
    port: int,
    *,
    source: Address | str | None = None,
    source_port: int = 0,
    timeout_s: float,
) -> dict[str, object]:
    return {
        "protocol": protocol,
        "address": str(address),
        "port": port,
        "source": None if source is None else str(source),
        "source_port": source_port,
        "timeout_s": timeout_s,
    }
