"""A tool that the doctor looks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rulegen.host.doctor.findings import Level


class Tool(NamedTuple):
    """A tool, its version option, and its purpose."""

    name: str
    question: str
    purpose: str
    missing: Level
