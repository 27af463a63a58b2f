"""Writes a plan step by step; an error says what was written and what was not.

The order is that of `rulegen.compiler.services.ordering`; first, each driver prepares its work.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

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
from rulegen.languages.language import Phase
from rulegen.waits import WAITS, StoppingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import Driver, WriteContext
    from rulegen.net import Family
    from rulegen.plan.plan import Plan

_OF_CONNTRACK = "net.netfilter.nf_conntrack_"


class Step(msgspec.Struct, frozen=True):
    """One write to the host.

    Attributes:
        title: What it writes, for people.
        write: Writes it.
        family: The only family that it concerns; None for both.
        opens: Whether it sets a kernel parameter that is only safe with the rules written before.
    """

    title: str
    write: Callable[[], None]
    family: Family | None = None
    opens: bool = False


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
        plan: The changes.
        context: What the writes need.
        tables: The known languages and backends.
        drivers: The driver of each language.
        on_refused: Called with a kernel parameter that cannot be written; raises if the rest must not be written
            without it. None to make each an error.
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
    work = [
        Step(
            task.title,
            partial(writes[type(task.work)], task.work, context),
            getattr(task.work, "family", None),
            opens=task.phase is Phase.PARAMETERS_OPENED,
        )
        for task in tasks
    ]
    first = (driver.preparation(tasks, context.run) for driver in drivers.values())
    return (*(Step(each.title, each.prepare) for each in first if each is not None), *work)


def perform(steps: tuple[Step, ...], on_step: Callable[[int, Step], None] | None = None) -> None:
    """Execute the writes in order.

    Args:
        steps: The result of `steps`.
        on_step: Called before each step, with its number from 0.

    Raises:
        ApplyError: A write failed; the following steps were not executed. Another apply continues from there.
        StoppingError: This process is stopping; the following steps were not executed.
    """
    for number, step in enumerate(steps):
        if on_step:
            on_step(number, step)
        WAITS.check(step.title)
        try:
            with WAITS.waiting(f"writing {step.title}"):
                step.write()
        except StoppingError:
            raise
        except HostError as error:
            done = [s.title for s in steps[:number]]
            pending = [s.title for s in steps[number:]]
            message = error.message
            if isinstance(error, RestoreError):
                done += [f"{step.title}, table {table}" for table in error.committed]
                message = f"{message}\n{error.excerpt}".rstrip()
            raise ApplyError(
                message,
                applied=tuple(done),
                pending=tuple(pending),
                hint=error.hint or "fix the cause: the next write continues from the current state",
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
    """Load the conntrack module, if the kernel has it; its parameters show whether it is loaded."""
    with suppress(MissingToolError):
        run(Command(("modprobe", "nf_conntrack")))
