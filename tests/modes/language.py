"""The row of a language: gates, one line of text each, `gate tcp 10.96.0.1 80 > 10.244.1.1:8080 by rulegen`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rulegen.diff.changes import Change
from rulegen.diff.items import Drift
from rulegen.errors import InputError
from rulegen.languages.keyed import KeyedLanguage
from rulegen.languages.language import Part, Phase, Print, PrintScope, Scene, Task, WorkTerms
from rulegen.net import Family

NAME = "gates"


class GateKey(NamedTuple):
    protocol: str
    address: str
    port: int


@dataclass(frozen=True)
class Gate:
    """Where a gate leads; `by` says who has opened it."""

    endpoints: tuple[str, ...]
    by: str = "rulegen"


@dataclass(frozen=True)
class ChangeGates:
    """Lines for the program that keeps gates: `open …` or `close …`."""

    lines: tuple[str, ...]


def line_of(key: GateKey, gate: Gate) -> str:
    return f"gate {key.protocol} {key.address} {key.port} > {','.join(gate.endpoints) or 'nobody'} by {gate.by}"


def read(text: str, source: str) -> dict[GateKey, Gate]:
    gates: dict[GateKey, Gate] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match line.split(" "):
            case ["gate", protocol, address, port, ">", ends, "by", owner] if port.isdigit():
                endpoints = () if ends == "nobody" else tuple(ends.split(","))
                gates[GateKey(protocol, address, int(port))] = Gate(endpoints, owner)
            case _:
                raise InputError(source, f"line {number}: not a gate: {line!r}")
    return gates


class Gates(KeyedLanguage):
    name = NAME

    def read_dump(self, text: str, source: str) -> dict[GateKey, Gate] | None:
        return read(text, source) if text.startswith("gate ") else None

    def named(self, key: Any) -> tuple[str, str]:
        return "gate", f"{key.protocol} {key.address} {key.port}"

    def text(self, key: Any, value: Any) -> str:
        return line_of(key, value)

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        return None

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        for family, part in parts.items():
            opened = tuple(f"open {line_of(c.key, c.after)}" for c in part.changes if c.after is not None)
            closed = tuple(f"close {line_of(c.key, c.before)}" for c in part.changes if c.after is None)
            if opened:
                yield Task(Phase.SERVERS, f"{family} gates, opened: {len(opened)}", ChangeGates(opened))
            if closed:
                yield Task(Phase.SERVERS_REMOVED, f"{family} gates, closed: {len(closed)}", ChangeGates(closed))

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        lines = sorted(line_of(key, gate) for key, gate in wanted.objects.items())
        yield Print("gates.save", "".join(f"{line}\n" for line in lines), NAME)
