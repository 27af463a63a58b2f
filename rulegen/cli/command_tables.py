"""The languages, modes and drivers that a command works with: rulegen's own, or those that a program passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from rulegen.compiler.tables import TABLES, Tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.host.dataplane.driver import Driver


def _own_drivers() -> Mapping[str, Driver]:
    from rulegen.host.dataplane.drivers import DRIVERS  # noqa: PLC0415 - loads netlink, which not every call needs

    return DRIVERS


@dataclass(frozen=True, kw_only=True)
class CommandTables:
    """What a command works with.

    Attributes:
        tables: The known languages and backends.
        drivers: The driver of each language on this host.
    """

    tables: Tables = TABLES
    drivers: Mapping[str, Driver] = field(default_factory=_own_drivers)


def command_tables() -> CommandTables:
    """Return the tables of the current command; rulegen's own if no command runs."""
    context = click.get_current_context(silent=True)
    passed = context.find_object(CommandTables) if context is not None else None
    return passed or CommandTables()
