"""The error classes of rulegen. Each has fields. None is shown to users as a traceback."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

import msgspec


def internal_error(error: BaseException) -> str:
    """Return the kind of an error and its place in the code, without its text: that may contain parts of a Secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"internal error of rulegen: {type(error).__name__}{where}"


class RulegenError(Exception):
    """Base of all errors that a user may see: one clear line, and a next step if there is one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RulegenError):
    """The input as a whole cannot be used: a file is missing, unreadable, too large, or not YAML."""

    def __init__(self, source: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{source}: {message}", hint=hint)
        self.source = source


class ConfigError(RulegenError):
    """An option or a configuration field has an invalid value."""


class HostError(RulegenError):
    """The host cannot do what is needed: a tool or a privilege is missing, or a command failed."""


class LaterError(HostError):
    """Something takes long and goes on in another process. It has not failed: a soon attempt learns how it ended."""


class ApplyError(HostError):
    """A write to the host failed. The error lists what was written before, and what was not.

    Attributes:
        applied: One line for each step that was written.
        pending: One line for each step that was not written.
    """

    def __init__(self, message: str, *, applied: tuple[str, ...], pending: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.applied = applied
        self.pending = pending


class Fault(msgspec.Struct, frozen=True):
    """One fault of an object, and its path.

    Attributes:
        path: Path of the field, such as `spec.ports[1].port`; empty for the object as a whole.
        message: The fault and the expected value, such as `70000 is not a port (1–65535)`.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object that was skipped, with every reason. The rest is served (invariant 6).

    Attributes:
        object: Kind and name, such as `Service shop/web`.
        source: The file or API server that it comes from.
        faults: All faults of the object, in document order; never empty.
        uid: metadata.uid, if it has one.
        readable: What could be read of an invalid Ingress, an `UnusableIngress`; None for other kinds.
        may_hide_hosts: Whether it is or may be an Ingress with hosts that could not be read.
    """

    object: str
    source: str
    faults: tuple[Fault, ...]
    uid: str = ""
    readable: Any = field(default=None, repr=False, hash=False)
    may_hide_hosts: bool = False

    def lines(self) -> tuple[str, ...]:
        """Return one line for each fault: `Service shop/web: spec.ports[1].port: 70000 is not …`."""
        return tuple(f"{self.object}: {fault}" for fault in self.faults)


@dataclass(slots=True)
class Warnings:
    """Collects warnings, each text once, in order of arrival. A warning does not stop the command."""

    _texts: dict[str, None] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Add `text` unless it was added before."""
        self._texts.setdefault(text)

    def texts(self) -> tuple[str, ...]:
        """Return all texts in order of arrival."""
        return tuple(self._texts)
