"""Hosts of the demo: each is a process in a network namespace of its own, which has no name and ends with it.

The node has a namespace of processes too: nginx outlives the command that starts it, but not the node.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, MissingToolError, find, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.demo.peer import Place
    from rulegen.host.commands.runner import Completed

_COMMAND_TIMEOUT_S = 60
_END_S = 5


@dataclass(frozen=True, slots=True)
class CallTally:
    """The number of answers of each Pod.

    Attributes:
        answered: By name of the pod.
        failed: The number of requests without an answer.
        failures: How the first of those failed.
    """

    answered: Mapping[str, int]
    failed: int = 0
    failures: tuple[str, ...] = ()

    @property
    def asked(self) -> int:
        """The number of requests."""
        return sum(self.answered.values()) + self.failed


@dataclass(frozen=True, slots=True)
class Page:
    """The response to one request.

    Attributes:
        status: Of the answer; 0 if there was none.
        location: Where it sends the client; empty for nowhere.
        text: What it says, or why there is none.
    """

    status: int
    location: str
    text: str


_SPACES: Final = ("--net", "--pid", "--mount-proc", "--fork")
"""The options of unshare for a host that may keep processes."""


def refuse_without_namespaces() -> None:
    """Check that network namespaces can be created here.

    Raises:
        HostError: The kernel refuses its namespaces, as in most containers.
    """
    tried = run(Command(("unshare", *_SPACES, "--", "true")))
    if tried.code:
        raise HostError(
            f"no namespaces for the demo's hosts: {(tried.stderr.strip() or str(tried.code)).splitlines()[-1]}",
            hint="run it outside of a container, or in one with all rights: docker run --privileged",
        )


@dataclass(slots=True)
class Host:
    """A host, from its start to `end`.

    Attributes:
        name: What it answers with.
        port: Where it answers HTTP, on all of its addresses; 0 for nowhere.
        keeps: Whether what is started on it may continue running, until the host ends.
    """

    name: str
    port: int = 0
    keeps: bool = False
    _process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        unshare = find("unshare")
        if unshare is None:
            raise MissingToolError("unshare")
        listen = [str(self.port)] if self.port else []
        # Whatever becomes of us, the first process of a namespace takes all others in it along.
        own = (*_SPACES, "--kill-child") if self.keeps else ("--net",)
        self._process = subprocess.Popen(
            (unshare, *own, "--", sys.executable, "-m", "rulegen.demo.peer", self.name, *listen),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the demo, which ends its hosts.
            start_new_session=True,
        )
        try:
            self._answer()
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """The process that holds the namespace."""
        return self._process.pid

    def set(self, parameters: Mapping[str, str]) -> None:
        """Set kernel parameters of the namespace, by their paths below /proc/sys."""
        self._do("set", parameters=dict(parameters))

    def look(self, place: Place) -> Page:
        """Request a page once, and return the response."""
        return Page(**self._do("look", place=place))

    def ask(self, place: Place, count: int) -> CallTally:
        """Request a page `count` times, each time over a new connection."""
        return _tally(self._do("ask", place=place, count=count))

    def start_asking(self, place: Place) -> None:
        """Start to send requests without a pause."""
        self._do("start", place=place)

    def stop_asking(self) -> CallTally:
        """Stop sending requests, and return the result."""
        return _tally(self._do("stop"))

    def run(self, *argv: str, environment: Mapping[str, str]) -> Completed:
        """Run a program on this host, and wait for its end."""
        spaces = [f"--net=/proc/{self.pid}/ns/net"]
        if self.keeps:
            spaces += [f"--mount=/proc/{self.pid}/ns/mnt", f"--pid=/proc/{self.pid}/ns/pid_for_children"]
        inside = ("nsenter", *spaces, "--", *argv)
        return run(Command(inside, environment=environment, timeout_s=_COMMAND_TIMEOUT_S))

    def end(self) -> None:
        """End the host and its namespace."""
        self._process.kill()
        self._process.communicate(timeout=_END_S)

    def _do(self, what: str, **parameters: Any) -> dict[str, Any]:
        try:
            self._stdin.write(json.dumps({"do": what, **parameters}) + "\n")
            self._stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and what it said last is read below
        return self._answer()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.kill()
        said = self._process.communicate(timeout=_END_S)[1].strip().splitlines()
        raise HostError(f"host {self.name} of the demo has ended: {said[-1] if said else 'without a message'}")


def _tally(answer: Mapping[str, Any]) -> CallTally:
    return CallTally(answer["answered"], answer["failed"], tuple(answer["failures"]))
