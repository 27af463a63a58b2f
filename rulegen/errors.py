"""The few errors of rulegen. Each carries fields; none is ever shown as a traceback."""

from __future__ import annotations

from dataclasses import dataclass, field


class RulegenError(Exception):
    """Base of all errors a user may see: one clear line, and a next step where there is one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RulegenError):
    """The input as a whole cannot be used: a file that is missing, unreadable, no YAML, a bomb, too large."""

    def __init__(self, source: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{source}: {message}", hint=hint)
        self.source = source


class ConfigError(RulegenError):
    """An option or a configuration field has a value that cannot be."""


class HostError(RulegenError):
    """The host cannot do or tell what is needed: a missing tool, a missing privilege, a refused command."""


class ApplyError(HostError):
    """A write to the host failed. Says what was written before it and what was not.

    Attributes:
        applied: One line for each step that was written.
        pending: One line for each step that was not.
    """

    def __init__(self, message: str, *, applied: tuple[str, ...], pending: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.applied = applied
        self.pending = pending


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an object, and where.

    Attributes:
        path: Where, as `spec.ports[1].port`; empty for the object as a whole.
        message: What is wrong and what was expected, as `70000 is not a port (1–65535)`.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object that was skipped, with every reason. The rest is served (law 6).

    Attributes:
        object: Kind and name, as `Service shop/web`.
        source: File (or API server) that it came from.
        faults: All faults of the object, in document order; never empty.
        uid: metadata.uid, where it has one.
    """

    object: str
    source: str
    faults: tuple[Fault, ...]
    uid: str = ""

    def lines(self) -> tuple[str, ...]:
        """Return one line for each fault: `Service shop/web: spec.ports[1].port: 70000 is not …`."""
        return tuple(f"{self.object}: {fault}" for fault in self.faults)


@dataclass(slots=True)
class Warnings:
    """Collects what a user must be told although work goes on; each text once, in order of arrival."""

    _texts: dict[str, None] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Keep `text` unless it was said before."""
        self._texts.setdefault(text)

    def texts(self) -> tuple[str, ...]:
        """Return all texts in order of arrival."""
        return tuple(self._texts)
