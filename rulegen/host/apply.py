"""Making a plan so, step by step, and saying at any failure what was written and what was not.

The order: counters, which rules refer to; rules, each family in its own order (`rulegen.languages.iptables.script`);
kernel parameters, since opening the loopback prefix needs the rule that guards it; and last the connections to forget,
which would come back as they were before the rules changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.errors import ApplyError, HostError
from rulegen.host import conntrack, iptables, nfacct, sysctl
from rulegen.host.restore_error import RestoreError
from rulegen.host.variant import Variant
from rulegen.languages.iptables.script import CHAINS_PER_COMMIT, is_large, script
from rulegen.languages.iptables.state import ChainKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rulegen.host.runner import Runner
    from rulegen.model.conntrack import Flow
    from rulegen.net import Family
    from rulegen.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Step:
    """One write to the host; `title` tells people what it writes."""

    title: str
    write: Callable[[], None]


def steps(
    plan: Plan, run: Runner, variant: Variant, *, wait_s: int, on_wait: Callable[[str], None] | None = None
) -> tuple[Step, ...]:
    """Return the writes that make a plan so, in order; none for an empty plan.

    Args:
        plan: What must change.
        run: What runs the tools.
        variant: Where the rules live.
        wait_s: How long to wait for the xtables lock, in seconds; 0 waits for ever.
        on_wait: Told who holds the lock, once we wait.
    """
    return tuple(_steps(plan, run, variant, wait_s, on_wait))


def perform(steps: tuple[Step, ...], on_step: Callable[[int, Step], None] | None = None) -> None:
    """Do the writes one after the other.

    Args:
        steps: As `steps` returned them.
        on_step: Told of each step before it starts, with its number from 0.

    Raises:
        ApplyError: A write failed; the steps behind it were not done. Another apply goes on from there.
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
                hint=error.hint or "mend the cause and apply again: it goes on from what is there",
            ) from error


def _steps(
    plan: Plan, run: Runner, variant: Variant, wait_s: int, on_wait: Callable[[str], None] | None
) -> Iterator[Step]:
    if plan.counters:
        yield Step(f"counters {', '.join(plan.counters)}", lambda: _ensure_counters(plan.counters))
    chains_per_commit = CHAINS_PER_COMMIT if variant is Variant.NFT else None
    for family, part in plan.iptables.items():
        comments = not is_large(sum(isinstance(key, ChainKey) for key in part.desired))
        for restore in script(part.changes, part.desired, chains_per_commit=chains_per_commit, comments=comments):
            yield Step(f"{family} {restore.title}", _restore(run, variant, family, restore.text, wait_s, on_wait))
    for name, _, value in plan.sysctls:
        if value is not None:
            yield Step(f"{name} = {value}", _set(name, value))
    by_family: dict[Family, list[Flow]] = {}
    for stale in plan.flows:
        by_family.setdefault(stale.flow.family, []).append(stale.flow)
    for family, flows in by_family.items():
        yield Step(f"{family} {len(flows)} stale connections", _forget(flows))


def _ensure_counters(names: tuple[str, ...]) -> None:
    nfacct.ensure(names)


def _restore(
    run: Runner, variant: Variant, family: Family, text: str, wait_s: int, on_wait: Callable[[str], None] | None
) -> Callable[[], None]:
    return lambda: iptables.restore(run, variant, family, text, on_wait, wait_s=wait_s)


def _set(name: str, value: str) -> Callable[[], None]:
    return lambda: sysctl.write(name, value)


def _forget(flows: list[Flow]) -> Callable[[], None]:
    def forget() -> None:
        conntrack.delete(flows)

    return forget
