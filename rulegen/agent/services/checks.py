"""A check: read the kernel, compare it with the desired state, write the difference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.agent.runtime.memory import trim
from rulegen.agent.services.drift import written_keys
from rulegen.compiler.services.guards import lost_masquerade
from rulegen.errors import HostError
from rulegen.host.dataplane.refused_services import is_refusal
from rulegen.host.nftables import without_iptables
from rulegen.kube.snapshot.cluster import Touched

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.services.desired import DesiredServices
    from rulegen.agent.services.isolation import Isolation
    from rulegen.agent.services.record import KernelRecord
    from rulegen.agent.services.reports import SyncReports
    from rulegen.agent.services.schedule import Schedule
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.services.incremental import ServiceRules
    from rulegen.host.dataplane.dataplane import Dataplane, KernelReadout
    from rulegen.kube.objects.names import ObjectName
    from rulegen.net import Address
    from rulegen.plan.plan import Plan

MAX_ROUNDS: Final = 3
"""Maximum number of searches for rejected Services in one check."""


@dataclass(slots=True)
class KernelCheck:
    """Compares the kernel with the desired state.

    Attributes:
        mends: Whether the difference is written; otherwise it is only reported.
    """

    desired: DesiredServices
    writer: Dataplane
    isolation: Isolation
    record: KernelRecord
    schedule: Schedule
    reports: SyncReports
    state: AgentState
    log: AgentLog
    clock: Callable[[], float]
    mends: bool
    _warned: int = -1

    def check(self) -> None:
        """Read the kernel, report changes by other programs, and write the difference.

        Raises:
            HostError: The kernel cannot be read or written.
        """
        began, generation = self.clock(), self.state.desired
        self.refresh()
        desired = self.desired
        if desired.rules is not None and desired.rules.is_behind:
            desired.rules = None  # otherwise changes caused by new node addresses would be reported as drift
        changed, desired.dirty = desired.dirty, Touched(site=desired.dirty.site)
        try:
            rules, readout, has_changed = self._compare_and_write(changed.services)
        except HostError as error:
            desired.rules, desired.dirty.services = None, desired.dirty.services | changed.services
            if is_refusal(error, self.writer.drivers):
                self.record.held = ()  # maybe it was of what is kept of a Service, which must not stop all others
            raise
        self.warn(rules)
        self.reports.problems.connections(readout.conntrack_error)
        # The revision before reading, so that changes during reading or writing are checked again.
        self.record.revision = readout.mark
        self.schedule.must_check = False
        self.reports.status(rules)
        self.state.wrote(generation)
        took_s = self.clock() - began
        self.state.metrics.syncs.add(took_s)
        self.state.metrics.full_syncs.add(took_s)
        self.schedule.checked(took_s, has_changed=has_changed)
        del readout
        trim()

    def _compare_and_write(self, touched: set[ObjectName]) -> tuple[ServiceRules, KernelReadout, bool]:
        """Decide what has changed, compare with the kernel, and write.

        Returns:
            The decisions, the observed state, and whether the last plan has changed anything.

        Raises:
            HostError: The kernel cannot be read or written.
        """
        is_first = self.desired.rules is None
        with ThreadPoolExecutor(1, "read") as pool:  # a tool prints the rules while the desired rules are computed
            reading = pool.submit(self.writer.read)
            rules = self.desired.rules
            if rules is None:
                rules = self.desired.decide(self.writer.facts)
            elif touched:
                touched = self._decide_touched(rules, touched)
            readout = reading.result()
        if is_first:
            self.isolation.leave_out_again(rules, readout, touched)
        compiled = rules.compiled()
        plan = self.writer.plan(compiled, readout)
        for warning in lost_masquerade(compiled, plan):
            self.log.warning(warning)
        self.reports.drift(plan, touched, self.record.attempted, is_first=is_first)
        plan = self._write(rules, plan, readout)
        self.record.notes = plan.notes
        self.reports.refused_parameters(self.writer.refused)
        rules.remember_kernel_state(plan)
        self.isolation.settle(rules)
        self.record.attempted.clear()
        return rules, readout, not plan.is_empty

    def _decide_touched(self, rules: ServiceRules, touched: set[ObjectName]) -> set[ObjectName]:
        """Decide about Services that this check also writes; return them and those that share a frontend with them."""
        leaving = set(rules.leaving)  # they are deleted with their virtual server
        update = self.isolation.update(rules, touched)
        self.desired.commit(rules, update, is_written=False)
        self.record.attempted |= written_keys(update.plan) | leaving
        return set(update.services)

    def _write(self, rules: ServiceRules, plan: Plan, readout: KernelReadout) -> Plan:
        """Write a complete plan; rejected Services are left out, and the rest is written.

        Returns:
            The plan that was written last.

        Raises:
            HostError: The write was rejected, whichever Services are left out.
        """
        first = readout
        for _ in range(MAX_ROUNDS):
            try:
                self._write_whole(plan)
            except HostError as error:
                self.state.metrics.restore_failures.add()
                if not is_refusal(error, self.writer.drivers):
                    raise
                self.isolation.write_without_refused(rules, plan, first, error)
                plan = self.writer.plan(rules.compiled(), self.writer.read())
            else:
                return plan
        self._write_whole(plan)
        return plan

    def _write_whole(self, plan: Plan) -> None:
        if plan.is_empty or not self.mends:
            return
        calls = self.writer.write(plan)
        self.state.metrics.writes.add(calls)
        self.state.metrics.deleted_flows.add(len(plan.flows))
        self.log.info("written", changes=len(plan.items), calls=calls)

    def is_untouched(self) -> bool:
        """Return whether nothing can have changed since the last write, so that a complete read is unnecessary."""
        rules, revision = self.desired.rules, self.record.revision
        if rules is None or rules.is_behind or revision is None:
            return False
        try:
            self.refresh()
            rules = self.desired.rules
            if rules is None or rules.is_behind:
                return False
            is_untouched = self.writer.has_parameters(rules.sysctls) and self.writer.is_untouched(revision)
        except HostError:  # everything is read next, and the failure is reported then
            return False
        if is_untouched:
            self.desired.settle_comments()
        return is_untouched

    def skip(self, rules: ServiceRules) -> None:
        """Do the other work of a check when no read is needed."""
        self.schedule.is_untouched()
        if self._warned != self.state.applied:
            self.warn(rules)
            self._warned = self.state.applied
        self.reports.status(rules, {})
        self.reconcile()

    def warn(self, rules: ServiceRules) -> None:
        """Report warnings about the rules and the last plan."""
        unseen = without_iptables.warnings(self.writer.unseen)
        self.reports.warnings(rules, (*filter(None, [self.writer.beside]), *unseen, *self.record.notes))

    def refresh(self) -> frozenset[Address]:
        """Read the facts of the host and decide what depends on them; return the new addresses of the node.

        Raises:
            HostError: The facts cannot be read.
        """
        self.schedule.host_read()
        if name := self.reports.node.new_name():
            self.log.warning(
                "the host name has changed; the node name stays the same",
                name=name,
                node=self.reports.node.name,
                hint="to use the Node of the new name, restart rulegen; to keep the current name, give it with --node",
            )
        gained = self.writer.refresh()
        self.desired.follow_host(self.writer.facts)
        return gained

    def reconcile(self) -> None:
        """Delete UDP connections that no Service serves any more, even if no Service has changed since.

        A failure is reported and tried again next time, because no rule depends on it.
        """
        rules = self.desired.rules
        if rules is None or not self.mends:
            return
        try:
            self.writer.reconcile(rules.services, rules.nodes)
        except HostError as error:
            self.reports.problems.connections(error)
        else:
            self.reports.problems.connections(None)
