"""The row of a driver, and the kernel that it writes to: a file of gates that really lets connections through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rulegen.compiler.services.attribution import Belongings
from rulegen.errors import HostError
from rulegen.host.commands.runner import Runner
from rulegen.host.dataplane.driver import Culprit, Preparation, ReadContext, WriteContext
from rulegen.languages.language import StateKey, Task
from tests.modes.language import NAME, ChangeGates, GateKey, read


@dataclass
class GateKernel:
    """Executes lines one by one, and refuses to close a gate that is not open, or that others have opened."""

    file: Path

    def connect(self, protocol: str, address: str, port: int) -> tuple[str, ...]:
        """Return the endpoints that a connection may reach; none where no gate is open."""
        gate = read(self.text(), "kernel").get(GateKey(protocol, address, port))
        return gate.endpoints if gate is not None else ()

    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    def execute(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        ((key, gate),) = read(rest, "kernel").items()
        lines = {k: line for line in self.text().splitlines() for k in read(line, "kernel")}
        if verb == "close" and (key not in lines or gate.by not in lines[key]):
            raise HostError(f"no such gate: {rest}")
        if verb == "open":
            lines[key] = rest
        else:
            del lines[key]
        self.file.write_text("".join(f"{line}\n" for line in lines.values()))


@dataclass
class GateDriver:
    kernel: GateKernel
    name: str = NAME
    tells_of_writes: bool = False

    def read(self, context: ReadContext) -> str:
        return self.kernel.text()

    def states(self, raw: str, context: ReadContext) -> Mapping[StateKey, Any]:
        return {(NAME, None): read(raw, "gates of this host")}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        def write(work: ChangeGates, context: WriteContext) -> None:
            for line in work.lines:
                self.kernel.execute(line)

        return {ChangeGates: write}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        return False

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        return {}
