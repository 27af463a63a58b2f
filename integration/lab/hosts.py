"""A host of the lab, as the tests see it, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """What came of questions asked again and again.

    Attributes:
        answered: How many each host answered.
        failures: How many were not answered.
        first_failures: The first of those, with outcome and time.
        last_failures: The last of those.
        slowest_s: The longest that a question took.
    """

    answered: Mapping[str, int]
    failures: int
    first_failures: Sequence[Mapping[str, Any]]
    last_failures: Sequence[Mapping[str, Any]]
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
        """Return itself after a success, else raise LabError with the end of what was printed."""
        if self.code != 0:
            raise LabError(f"{' '.join(self.argv)}: exit {self.code}\n{self.stdout[-2000:]}{self.stderr[-4000:]}")
        return self


class Running(Protocol):
    """A program that was started on a host."""

    def kill(self, *, group: bool = False) -> None:
        """End it with SIGKILL; with `group`, all that it started too."""

    def wait(self, timeout_s: float = 60) -> Completed:
        """Wait for its end; at the timeout it is killed."""


class Repeating(Protocol):
    """Questions asked again and again, under way."""

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

    def fork(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Running:
        """Start `python FLAGS -m MODULE ...` inside, in a fork of a process that has imported the module."""

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

    def repeat(
        self, protocol: Transport, address: Address | str, port: int, *, pause_s: float = 0, timeout_s: float = 5
    ) -> Repeating:
        """Ask again and again from now on, each time `pause_s` after the last answer."""
