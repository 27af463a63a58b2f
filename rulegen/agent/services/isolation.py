"""A write without the Services that the kernel rejects: they are found, and left out until they are tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.compiler.services.attribution import Belongings
from rulegen.compiler.services.pinned import held
from rulegen.host.dataplane.apply_in_parts import Apart
from rulegen.host.dataplane.refused_services import lacking_text
from rulegen.kube.objects.names import ObjectName

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.agent.services.desired import DesiredServices
    from rulegen.agent.services.left_out import LeftOut
    from rulegen.agent.services.record import KernelRecord
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.incremental import ServiceRules
    from rulegen.compiler.services.update import Update
    from rulegen.errors import HostError
    from rulegen.host.dataplane.dataplane import Dataplane, KernelReadout
    from rulegen.plan.fragments import OwnedObjects
    from rulegen.plan.plan import Plan


def name_of(owner: str) -> ObjectName:
    """Return the name of a Service from `namespace/name`."""
    namespace, _, name = owner.partition("/")
    return ObjectName(namespace, name)


@dataclass(frozen=True, slots=True)
class Isolation:
    """Prevents Services that the kernel rejects from blocking all others.

    Attributes:
        left_out: The Services that are left out now.
    """

    desired: DesiredServices
    writer: Dataplane
    left_out: LeftOut
    record: KernelRecord
    log: AgentLog
    clock: Callable[[], float]

    def update(self, rules: ServiceRules, names: Collection[ObjectName]) -> Update:
        """Decide about Services; leave out those that need a feature that the kernel rejects for every Service."""
        update = self.desired.update(rules, names)
        refused = self.refused(update)
        if not refused:
            return update
        reasons = {name_of(owner): reason for owner, reason in refused.items()}
        self.left_out.add(reasons, self.clock())
        return self.desired.update_without(rules, reasons)

    def refused(self, update: Update) -> dict[str, str]:
        """Return the Services of an update that need a feature that the kernel has just rejected, with the reasons."""
        fragments = (fragment for fragment in update.fragments.values() if fragment is not None)
        belongings = Belongings(fragments, self.desired.tables.languages)
        return self.left_out.refused(belongings, self.clock(), lacking_text)

    def write_without_refused(self, rules: ServiceRules, plan: Plan, first: KernelReadout, error: HostError) -> None:
        """Find the rejected Services, write the others, and keep the previous state of the rejected ones.

        Args:
            rules: The decisions.
            plan: The rejected plan.
            first: The state of the kernel before the write.
            error: The error of the write.

        Raises:
            HostError: No Service is the cause.
        """
        compiled = rules.compiled()
        writer = self.writer
        apart = Apart(compiled, plan, writer.write, lambda: writer.plan(compiled), writer.drivers)
        verdict = apart.search(error)
        if not verdict.refused:
            raise error
        reasons = {name_of(owner): reason for owner, reason in verdict.refused.items()}
        self.desired.leave_out(rules, reasons, self._there(compiled, first, verdict.refused))
        now = self.clock()  # of both: when the Services are tried again, the missing feature must be tested again
        self.left_out.add(reasons, now, {name_of(owner) for owner in verdict.untried})
        self.left_out.add_lacking(verdict.lacking, now)
        self.log.info("written in parts", tries=verdict.tries, left_out=len(reasons))

    def leave_out_again(self, rules: ServiceRules, readout: KernelReadout, touched: set[ObjectName]) -> None:
        """Leave out Services that were rejected before everything was decided again, unless they have changed."""
        names = {name for name in self.left_out.names - touched if rules.before(name) is not None}
        if names:
            there = self._there(rules.compiled(), readout, {str(name) for name in names})
            self.desired.leave_out(rules, names, there)

    def settle(self, rules: ServiceRules) -> None:
        """Record after a write which Services are still left out, and their state on the node."""
        self.left_out.settle(rules.left_out)
        self.record.held = rules.held

    def _there(self, compiled: Compiled, readout: KernelReadout, owners: Collection[str]) -> list[OwnedObjects]:
        """Return the state of some Services on the node: as recorded when they were left out, else as recognised.

        A Service's old rules are not all recognised by its new form, for example if its protocol has changed.
        """
        known = [objects for objects in self.record.held if objects.owner in owners]
        return [*held(compiled, self.writer.observed(compiled, readout), owners), *known]
