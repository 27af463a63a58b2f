"""Making a plan so, step by step, and saying at any failure what was written and what was not.

The order is that of `rulegen.compiler.services.ordering`; before all, schedulers that virtual servers are to have are
tried.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rulegen.compiler.services import ordering
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import Command, MissingToolError
from rulegen.host.ipvs import addresses, servers
from rulegen.host.netfilter import conntrack, ipset, iptables, nfacct
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.host.netfilter.variant import Variant
from rulegen.host.node import sysctl
from rulegen.languages.iptables.script import CHAINS_PER_COMMIT
from rulegen.languages.ipvs.state import RealServer, VirtualServer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from rulegen.compiler.services.ordering import Work
    from rulegen.host.commands.runner import Runner
    from rulegen.languages.ipvs.state import Frontend
    from rulegen.plan.plan import Plan


LEAVE_S = 10.0
"""How long connections of virtual servers may go on that another mode takes over from."""
LOOK_S = 0.3
_OF_CONNTRACK = "net.netfilter.nf_conntrack_"


@dataclass(frozen=True, slots=True)
class Step:
    """One write to the host; `title` tells people what it writes."""

    title: str
    write: Callable[[], None]


def steps(
    plan: Plan,
    run: Runner,
    variant: Variant,
    *,
    wait_s: int,
    on_wait: Callable[[str], None] | None = None,
    on_refused: Callable[[ordering.Parameter, HostError], None] | None = None,
) -> tuple[Step, ...]:
    """Return the writes that make a plan so, in order; none for an empty plan.

    Args:
        plan: What must change.
        run: What runs the tools.
        variant: Where the rules live.
        wait_s: How long to wait for the xtables lock, in seconds; 0 waits for ever.
        on_wait: Told who holds the lock, once we wait.
        on_refused: Told of a kernel parameter that may not be written, and raises where the rest must not be done
            without it; None where each is an error.
    """
    writer = _Writer(run, variant, wait_s, on_wait, on_refused)
    chains_per_commit = CHAINS_PER_COMMIT if variant is Variant.NFT else None
    tasks = ordering.tasks(plan, chains_per_commit=chains_per_commit)
    work = [Step(task.title, partial(writer.do, task.work)) for task in tasks]
    if any(_is_for_ipvs(task.work) for task in tasks):  # before anything is written
        schedulers = sorted({name for task in tasks for name in _schedulers(task.work)})
        work.insert(0, Step(" ".join(("IPVS", *schedulers)), partial(servers.load, run, schedulers)))
    return tuple(work)


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
                hint=error.hint or "fix the cause and apply again: apply continues from the current state",
            ) from error


def _is_for_ipvs(work: Work) -> bool:
    """Whether it can only be done where IPVS is loaded."""
    return isinstance(work, (ordering.ChangeVirtualServers, ordering.SetIpvsTimeouts)) or (
        isinstance(work, ordering.Parameter) and work.name in servers.PARAMETERS
    )


def _schedulers(work: Work) -> Iterator[str]:
    """Yield the schedulers that it has virtual servers begin to use."""
    if isinstance(work, ordering.ChangeVirtualServers):
        yield from (c.value.scheduler for c in work.commands if isinstance(c.value, VirtualServer))


class _Writer:
    """Does each kind of work."""

    def __init__(
        self,
        run: Runner,
        variant: Variant,
        wait_s: int,
        on_wait: Callable[[str], None] | None,
        on_refused: Callable[[ordering.Parameter, HostError], None] | None,
    ) -> None:
        self._run, self._variant, self._wait_s = run, variant, wait_s
        self._on_wait, self._on_refused = on_wait, on_refused

    def do(self, work: Work) -> None:
        """Do it.

        Raises:
            HostError: It was refused.
        """
        match work:
            case ordering.EnsureCounters(names):
                nfacct.ensure(names)
            case ordering.RestoreRules(family, text, beside):
                variant = self._variant.other if beside else self._variant
                iptables.restore(self._run, variant, family, text, self._on_wait, wait_s=self._wait_s)
            case ordering.RestoreIpsets(text):
                ipset.restore(self._run, text)
            case ordering.ChangeVirtualServers(commands):
                servers.write(commands)
            case ordering.WaitForDrain(frontends):
                _await(frontends)
            case ordering.ChangeAddresses(commands):
                addresses.write(commands)
            case ordering.SetIpvsTimeouts(timeouts):
                servers.set_timeouts(timeouts)
            case ordering.Parameter():
                self._set(work)
            case ordering.DeleteConntrackEntries(flows):
                conntrack.delete(flows)

    def _set(self, parameter: ordering.Parameter) -> None:
        name, value = parameter.name, parameter.value
        try:
            if name.startswith(_OF_CONNTRACK) and sysctl.read(name) is None:
                load_conntrack(self._run)  # its parameters appear with the module
            sysctl.write(name, value)
        except HostError as error:
            if self._on_refused is None:
                raise
            self._on_refused(parameter, error)


def load_conntrack(run: Runner) -> None:
    """Load connection tracking, if the kernel has it as a module; whether it is there then, its parameters tell."""
    with suppress(MissingToolError):
        run(Command(("modprobe", "nf_conntrack")))


def _await(frontends: Collection[Frontend]) -> None:
    """Wait until virtual servers have no established connection, for a while at most.

    Raises:
        HostError: They cannot be read.
    """
    until = time.monotonic() + LEAVE_S
    while time.monotonic() < until:
        time.sleep(LOOK_S)  # also before the first look: a handshake is no connection yet
        there = servers.observe().items()
        if not any(
            key.frontend in frontends and isinstance(value, RealServer) and value.active for key, value in there
        ):
            return
