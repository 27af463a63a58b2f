"""A host of the lab, as the tests see it, whatever it is made of."""

from __future__ import annotations

import json
import signal
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Family = Literal[4, 6]
Transport = Literal["TCP", "UDP", "SCTP"]
Outcome = Literal["answered", "refused", "unreachable", "timeout", "reset"]
Address = IPv4Address | IPv6Address

FAMILIES: tuple[Family, ...] = (4, 6)
TRANSPORTS: tuple[Transport, ...] = ("TCP", "UDP", "SCTP")


class LabError(Exception):
    """The lab itself failed: nothing is said about what is under test."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question.

    Attributes:
        outcome: `answered`, or how it failed; names of rarer errors (`EPERM`) as the system has them.
        name: Who answered; empty unless answered.
        source: The address that the one who answered saw.
        port: The port that the question arrived at, after NAT.
        elapsed_s: From the first packet to the outcome.
    """

    outcome: str
    elapsed_s: float
    name: str = ""
    source: Address | None = None
    port: int = 0

    @classmethod
    def read(cls, wire: Mapping[str, Any]) -> Answer:
        """Read what a peer told."""
        if wire["outcome"] != "answered":
            return cls(wire["outcome"], wire["elapsed_s"])
        name, source, _, port = wire["text"].split()
        return cls("answered", wire["elapsed_s"], name, ip_address(source), int(port))


@dataclass(frozen=True, slots=True)
class Report:
    """What came of questions without pause.

    Attributes:
        answered: How many each host answered.
        failures: How many were not answered.
        first_failures: The first of those, with outcome and time.
        slowest_s: The longest that a question took.
    """

    answered: Mapping[str, int]
    failures: int
    first_failures: Sequence[Mapping[str, Any]]
    slowest_s: float


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended; `code` is None where it was killed at its timeout, negative for a signal."""

    argv: tuple[str, ...]
    code: int | None
    stdout: str
    stderr: str
    elapsed_s: float

    def check(self) -> Completed:
        """Return itself after a success, else raise LabError with all that was printed."""
        if self.code != 0:
            raise LabError(f"{' '.join(self.argv)}: exit {self.code}\n{self.stdout}{self.stderr}")
        return self


class Running(Protocol):
    """A program that was started on a host."""

    def kill(self, *, group: bool = False) -> None:
        """End it with SIGKILL; with `group`, all that it started too."""

    def wait(self, timeout_s: float = 60) -> Completed:
        """Wait for its end; at the timeout it is killed."""


class Repeating(Protocol):
    """Questions without pause, under way."""

    def report(self) -> Report:
        """Tell what came of them so far."""

    def stop(self) -> Report:
        """End them and tell what came of them."""


class Host(Protocol):
    """A node, a pod or a client: something with addresses that runs programs, listens and asks."""

    @property
    def name(self) -> str:
        """What it answers with."""

    def addresses(self, family: Family) -> tuple[Address, ...]:
        """Return its own addresses of one family, the main one first."""

    def run(
        self, argv: Sequence[str], stdin: str = "", timeout_s: float = 60, env: Mapping[str, str] | None = None
    ) -> Completed:
        """Run a program inside to its end."""

    def popen(self, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None) -> Running:
        """Start a program inside."""

    def listen(self, protocol: Transport, family: Family, port: int, address: str = "") -> None:
        """Answer on a port from now on, for as long as the lab stands."""

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
        """Ask once, over a new socket."""

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
        """Ask `count` times, each over a new socket."""

    def repeat(self, protocol: Transport, address: Address | str, port: int, *, timeout_s: float = 5) -> Repeating:
        """Ask without pause from now on."""


class Wire:
    """Commands to the peer process of one host, one at a time; `name` is what it reported with."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rw", encoding="utf-8")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        # As seen from here, whatever namespace of processes it is in: the way into its network namespace.
        self.pid = int(struct.unpack("3i", credentials)[0])
        self.name = str(json.loads(self._lines.readline())["name"])

    def __call__(self, do: str, *, within_s: float, **parameters: object) -> Any:
        """Do one command and return its result; LabError where the peer failed or is silent for longer than it may."""
        self._connection.settimeout(within_s + 30)
        try:
            self._lines.write(json.dumps({"do": do, "with": parameters}) + "\n")
            self._lines.flush()
            line = self._lines.readline()
        except OSError as error:
            raise LabError(f"{self.name}: {do}: {error}") from error
        if not line:
            raise LabError(f"{self.name}: {do}: its peer process has ended")
        reply = json.loads(line)
        if "error" in reply:
            raise LabError(f"{self.name}: {do}: {reply['error']}")
        return reply["result"]

    def close(self) -> None:
        """Close; the peer process ends itself."""
        self._lines.close()
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
        told: Iterable[Mapping[str, Any]] = self.wire("ask", within_s=count * timeout_s, question=question, count=count)
        return [Answer.read(one) for one in told]

    def repeat(self, protocol: Transport, address: Address | str, port: int, *, timeout_s: float = 5) -> Repeating:
        question = _question(protocol, address, port, timeout_s=timeout_s)
        return _RepeatingPeer(self.wire, self.wire("repeat", within_s=5, question=question), timeout_s)


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
