"""A sync: changed Services are decided again, and the difference is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.agent.services.drift import written_keys
from rulegen.errors import HostError
from rulegen.host.dataplane.refused_services import is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from rulegen.agent.services.desired import DesiredServices
    from rulegen.agent.services.isolation import Isolation
    from rulegen.agent.services.record import KernelRecord
    from rulegen.agent.services.reports import SyncReports
    from rulegen.agent.services.schedule import Schedule
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.services.incremental import ServiceRules
    from rulegen.compiler.services.update import Update
    from rulegen.host.dataplane.dataplane import Dataplane
    from rulegen.kube.objects.names import ObjectName

OTHERS_S: Final = 5.0
"""Time for another proxy to write what a change requires, if differences are only reported."""


@dataclass(slots=True)
class UpdateWriter:
    """Writes the changes that Services cause.

    Attributes:
        take_waiting: Applies all waiting events.
        mends: Whether anything is written.
    """

    desired: DesiredServices
    writer: Dataplane
    isolation: Isolation
    record: KernelRecord
    schedule: Schedule
    reports: SyncReports
    state: AgentState
    take_waiting: Callable[[], None]
    clock: Callable[[], float]
    mends: bool
    _beside_s: float = 0.0

    def sync(self) -> None:
        """Write the changed Services: the small ones together, then the large one whose turn it is.

        Raises:
            HostError: A write failed.
        """
        rules, turns = self.desired.rules, self.desired.turns
        if rules is None:
            return
        small, large = self.desired.by_size(rules, self.clock())
        if (small or not large or rules.is_behind) and not self._sync(rules, small):
            return
        if small:
            turns.wrote_others(self.clock())
        name = turns.chosen(large, self.clock())
        if name is not None:  # also if everything is about to be read: constant foreign writes are read with pauses
            began, self._beside_s = self.clock(), 0.0
            self._sync(rules, {name}, writes_others=True)
            turns.wrote(name, self.clock() - began - self._beside_s, self.clock())

    def _sync(self, rules: ServiceRules, names: set[ObjectName], *, writes_others: bool = False) -> bool:
        """Write some of the changed Services; with `writes_others`, also those that change meanwhile.

        Returns:
            False if the write was rejected: everything is read next, and written in parts.

        Raises:
            HostError: A write failed.
        """
        began = self.clock()
        self.desired.dirty.services -= names
        keys: set[Hashable] = set()
        try:
            update = self.isolation.update(rules, names)
            keys = written_keys(update.plan)
            before = {name: rules.before(name) for name in update.services}
            between = self._beside(rules, update) if writes_others else None
            calls = self.writer.write_update(update, before, between) if self.mends else 0
            self.record.attempted |= keys if not self.mends else set()  # a program that writes here may be late
        except HostError as error:
            self.desired.dirty.services |= names
            self.record.attempted |= keys
            self.state.metrics.restore_failures.add()
            self.state.metrics.partial_restore_failures.add()
            if not is_refusal(error, self.writer.drivers):
                raise
            self.schedule.check_in(0.0)
            return False
        self._committed(rules, update, began, calls)
        return True

    def _committed(self, rules: ServiceRules, update: Update, began: float, calls: int) -> None:
        """Record that an update was written."""
        self.desired.commit(rules, update)
        self.isolation.settle(rules)
        self.reports.status(rules, update.services)
        dirty, state = self.desired.dirty, self.state
        if dirty.services or dirty.nodes:  # at least one change is waiting
            state.wrote(max(state.applied, state.desired - 1), oldest=self.desired.turns.oldest(self.clock()))
        else:
            state.wrote(state.desired)
        state.metrics.syncs.add(self.clock() - began)
        state.metrics.partial_syncs.add(self.clock() - began)
        self.schedule.synced()
        if not self.mends:  # the program that writes the rules here gets time for it, and is checked afterwards
            self.schedule.check_in(OTHERS_S)
        if calls:
            state.metrics.writes.add(calls)
            self.reports.log.debug("synced", services=len(update.services), calls=calls)

    def _beside(self, rules: ServiceRules, large: Update) -> Callable[[], None]:
        """Return a function that applies events and writes small changes between two parts of a large write."""
        put_off: set[ObjectName] = set()

        def write() -> None:
            self.take_waiting()
            if self.clock() < self.schedule.sync_at:
                return
            small = self.desired.by_size(rules, self.clock())[0] - large.services.keys() - put_off - rules.left_out
            if small and not self._sync_beside(rules, small, large):
                put_off.update(name for name in small if len(small) == 1 or not self._sync_beside(rules, {name}, large))

        return write

    def _sync_beside(self, rules: ServiceRules, names: set[ObjectName], large: Update) -> bool:
        """Write small Services while a large one is being written; return False if they must wait for it.

        Raises:
            HostError: A write failed: it is unknown which of both is written.
        """
        began = self.clock()
        update = self.desired.update_beside(rules, names, large)
        if update is None or self.isolation.refused(update):
            return False
        try:
            calls = self.writer.write_update(update, {name: rules.before(name) for name in update.services})
        except HostError:
            self.record.attempted |= written_keys(update.plan)
            raise
        self.desired.dirty.services -= names
        self._committed(rules, update, began, calls)
        self.desired.turns.wrote_others(self.clock())
        self._beside_s += self.clock() - began
        return True
