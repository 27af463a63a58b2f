"""Writing a plan, step by step, and saying at any failure what was written and what was not.

The order is that of `rulegen.compiler.services.ordering`; before all, each driver prepares what its work needs.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rulegen.compiler.services import ordering
from rulegen.compiler.tables import TABLES, Tables
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import Command, MissingToolError
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.netfilter import conntrack, nfacct
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.host.netfilter.variant import Variant
from rulegen.host.node import sysctl
from rulegen.languages.iptables.script import CHAINS_PER_COMMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import Driver, WriteContext
    from rulegen.plan.plan import Plan

_OF_CONNTRACK = "net.netfilter.nf_conntrack_"


@dataclass(frozen=True, slots=True)
class Step:
    """One write to the host; `title` says what it writes, for people."""

    title: str
    write: Callable[[], None]


def steps(
    plan: Plan,
    context: WriteContext,
    *,
    tables: Tables = TABLES,
    drivers: Mapping[str, Driver] = DRIVERS,
    on_refused: Callable[[ordering.Parameter, HostError], None] | None = None,
) -> tuple[Step, ...]:
    """Return the writes of a plan, in order; none for an empty plan.

    Args:
        plan: What must change.
        context: With what it is written.
        tables: The languages and backends that there are.
        drivers: Who does the work of each language.
        on_refused: Called with a kernel parameter that may not be written; raises where the rest must not be done
            without it. None where each is an error.
    """
    writes: dict[type, Callable[[Any, WriteContext], None]] = {
        ordering.EnsureCounters: lambda work, _: _ensure(work),
        ordering.Parameter: partial(_set, on_refused=on_refused),
        ordering.DeleteConntrackEntries: lambda work, _: _delete(work),
    }
    for driver in drivers.values():
        writes.update(driver.writes())
    chains_per_commit = CHAINS_PER_COMMIT if context.variant is Variant.NFT else None
    tasks = ordering.tasks(plan, chains_per_commit=chains_per_commit, tables=tables)
    work = [Step(task.title, partial(writes[type(task.work)], task.work, context)) for task in tasks]
    first = (driver.preparation(tasks, context.run) for driver in drivers.values())
    return (*(Step(each.title, each.prepare) for each in first if each is not None), *work)


def perform(steps: tuple[Step, ...], on_step: Callable[[int, Step], None] | None = None) -> None:
    """Do the writes one after the other.

    Args:
        steps: As `steps` returned them.
        on_step: Told of each step before it starts, with its number from 0.

    Raises:
        ApplyError: A write failed; the steps behind it were not done. Another apply continues from there.
    """
    for number, step in enumerate(steps):
        if on_step:
            on_step(number, step)
        try:
            step.write()
        except HostError as error:
            done = [s.title for s in steps[:number]]
            pending = [s.title for s in steps[number:]]
            message = error.message
            if isinstance(error, RestoreError):
                done += [f"{step.title}, of it table {table}" for table in error.committed]
                message = f"{message}\n{error.excerpt}".rstrip()
            raise ApplyError(
                message,
                applied=tuple(done),
                pending=tuple(pending),
                hint=error.hint or "fix the cause and apply again: apply continues from the current state",
            ) from error


def _ensure(work: ordering.EnsureCounters) -> None:
    nfacct.ensure(work.names)


def _delete(work: ordering.DeleteConntrackEntries) -> None:
    conntrack.delete(work.flows)


def _set(
    parameter: ordering.Parameter,
    context: WriteContext,
    *,
    on_refused: Callable[[ordering.Parameter, HostError], None] | None,
) -> None:
    name, value = parameter.name, parameter.value
    try:
        if name.startswith(_OF_CONNTRACK) and sysctl.read(name) is None:
            load_conntrack(context.run)  # its parameters appear with the module
        sysctl.write(name, value)
    except HostError as error:
        if on_refused is None:
            raise
        on_refused(parameter, error)


def load_conntrack(run: Runner) -> None:
    """Load connection tracking, if the kernel has it as a module; whether it is there then, its parameters tell."""
    with suppress(MissingToolError):
        run(Command(("modprobe", "nf_conntrack")))
