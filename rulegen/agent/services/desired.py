"""What the cluster asks of this node: its objects, what was decided about them, and what has changed since."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.services.turns import Turns
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.compiler.tables import TABLES, Tables
from rulegen.kube.snapshot.cluster import Touched
from rulegen.model.services.limits import is_large

if TYPE_CHECKING:
    from collections.abc import Collection

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.update import Update
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import Node
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedService
    from rulegen.model.services.options import Options
    from rulegen.plan.fragments import OwnedObjects


@dataclass(slots=True)
class DesiredServices:
    """The Services of the cluster and the rules for them. One thread changes them; any may ask for `compiled`.

    Attributes:
        counts: Whether rules count with nfacct.
        cluster: All objects.
        known: The Node object that was last decided with; what it says holds while a newer one says nothing.
        tables: The languages and backends that there are.
        rules: What was decided; None before that, and when all is to be decided again.
        dirty: What has changed since.
        turns: When large Services may be written.
    """

    options: Options
    counts: bool
    cluster: SharedCluster = field(default_factory=SharedCluster)
    known: Node | None = None
    tables: Tables = TABLES
    rules: ServiceRules | None = None
    dirty: Touched = field(default_factory=Touched)
    turns: Turns = field(default_factory=Turns)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def compiled(self) -> Compiled | None:
        """Return all that the node should have now, for any thread to look at; None before it is known."""
        with self._lock:
            return self.rules.compiled() if self.rules is not None else None

    def services(self) -> Collection[ResolvedService]:
        """Return the Services as they are in the kernel."""
        return self.rules.services if self.rules is not None else ()

    def decide(self, facts: HostFacts) -> ServiceRules:
        """Decide about all Services."""
        self.rules = ServiceRules(
            self.cluster.objects, self.options, facts, counts=self.counts, known=self.known, tables=self.tables
        )
        self.known = self.rules.known
        return self.rules

    def follow_host(self, facts: HostFacts) -> None:
        """Decide again what depends on the host and the Node object; about all Services where that must be."""
        if self.rules is None:
            return
        with self._lock:
            touched = self.rules.follow(facts)
        if touched is None:
            self.rules = None
        else:
            self.known = self.rules.known
            self.dirty.services |= touched

    def update(self, rules: ServiceRules, names: Collection[ObjectName]) -> Update:
        """Return what changes of some Services come to."""
        with self._lock:
            return rules.update(names)

    def update_without(self, rules: ServiceRules, refused: Collection[ObjectName]) -> Update:
        """Leave Services out, and return what changes then; what the node has of them is what was committed last."""
        with self._lock:
            rules.leave_out(refused)
            return rules.update(())

    def update_beside(self, rules: ServiceRules, names: Collection[ObjectName], large: Update) -> Update | None:
        """Return the same while a large Service is being written; None where these Services must wait for it."""
        with self._lock:
            return rules.update_beside(names, large)

    def commit(self, rules: ServiceRules, update: Update, *, is_written: bool = True) -> None:
        """Note that an update is in the kernel; or that it is decided, for the next check to write."""
        with self._lock:
            rules.commit(update, is_written=is_written)

    def leave_out(self, rules: ServiceRules, names: Collection[ObjectName], there: list[OwnedObjects]) -> None:
        """Leave Services out, and what the node has of them as it is; who shared a claim with them has it from now."""
        with self._lock:
            rules.leave_out(names, there)
            rules.commit(rules.update(()))

    def settle_comments(self) -> None:
        """Drop texts of comments that no rule has any more, where they are many."""
        if self.rules is not None and self.rules.has_outgrown:
            with self._lock:
                self.rules.settle_comments()

    def by_size(self, rules: ServiceRules, now: float) -> tuple[set[ObjectName], set[ObjectName]]:
        """Return the Services that have changed: those that are written at once, and the large ones."""
        names = self.dirty.services
        large = {name for name in names if is_large(self.cluster.objects.service(name), rules.before(name))}
        self.turns.wait(large, now)
        return names - large, large

    def has_changes(self, now: float) -> bool:
        """Return whether anything has changed that may be written now."""
        if self.rules is None:
            return bool(self.dirty.services)
        if self.rules.is_behind:
            return True
        small, large = self.by_size(self.rules, now)
        return bool(small) or self.turns.chosen(large, now) is not None

    def next_sync_at(self, now: float, sync_at: float, check_at: float) -> float:
        """Return when a sync is due that may begin at `sync_at`; `check_at` where nothing waits for one."""
        if self.rules is None or self.rules.is_behind or not self.dirty.services:
            return sync_at if self.has_changes(now) else check_at
        small, large = self.by_size(self.rules, now)
        if small:
            return sync_at
        return max(sync_at, min(self.turns.next_at(name) for name in large))
