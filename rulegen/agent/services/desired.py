"""The desired state of this node: the objects, the decisions about them, and what has changed since."""

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
    """The Services of the cluster and their rules. One thread changes them; any thread may call `compiled`.

    Attributes:
        counts: Whether rules have nfacct counters.
        cluster: All objects.
        known: The Node object used for the last decisions; its values stay in use while a newer one has none.
        tables: The known languages and backends.
        serves: Whether the rules of Services are managed; otherwise no rules are made.
        rules: The decisions; None before the first ones, and when everything must be decided again.
        dirty: Services that have changed since.
        turns: When large Services may be written.
    """

    options: Options
    counts: bool
    cluster: SharedCluster = field(default_factory=SharedCluster)
    known: Node | None = None
    tables: Tables = TABLES
    serves: bool = True
    rules: ServiceRules | None = None
    dirty: Touched = field(default_factory=Touched)
    turns: Turns = field(default_factory=Turns)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def compiled(self) -> Compiled | None:
        """Return the complete desired state, for any thread; None before it is known."""
        with self._lock:
            return self.rules.compiled() if self.rules is not None else None

    def services(self) -> Collection[ResolvedService]:
        """Return the Services as committed to the kernel."""
        return self.rules.services if self.rules is not None else ()

    def decide(self, facts: HostFacts) -> ServiceRules:
        """Decide about all Services."""
        self.rules = ServiceRules(
            self.cluster.objects,
            self.options,
            facts,
            counts=self.counts,
            known=self.known,
            tables=self.tables,
            serves=self.serves,
        )
        self.known = self.rules.known
        return self.rules

    def follow_host(self, facts: HostFacts) -> None:
        """Decide again what depends on the host and the Node object; about all Services if necessary."""
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
        """Return the changes that some Services cause."""
        with self._lock:
            return rules.update(names)

    def update_without(self, rules: ServiceRules, refused: Collection[ObjectName]) -> Update:
        """Leave Services out and return the resulting changes; their state on the node is the last committed one."""
        with self._lock:
            rules.leave_out(refused)
            return rules.update(())

    def update_beside(self, rules: ServiceRules, names: Collection[ObjectName], large: Update) -> Update | None:
        """Return the changes while a large Service is being written; None if these Services must wait for it."""
        with self._lock:
            return rules.update_beside(names, large)

    def commit(self, rules: ServiceRules, update: Update, *, is_written: bool = True) -> None:
        """Record that an update is in the kernel, or that the next check will write it."""
        with self._lock:
            rules.commit(update, is_written=is_written)

    def leave_out(self, rules: ServiceRules, names: Collection[ObjectName], there: list[OwnedObjects]) -> None:
        """Leave Services out and keep their state on the node; Services that share a frontend with them get it now."""
        with self._lock:
            rules.leave_out(names, there)
            rules.commit(rules.update(()))

    def settle_comments(self) -> None:
        """Drop comment texts that no rule uses any more, if there are many."""
        if self.rules is not None and self.rules.has_outgrown:
            with self._lock:
                self.rules.settle_comments()

    def by_size(self, rules: ServiceRules, now: float) -> tuple[set[ObjectName], set[ObjectName]]:
        """Return the changed Services: those that are written at once, and the large ones."""
        names = self.dirty.services
        if not self.serves:
            return set(names), set()
        large = {name for name in names if is_large(self.cluster.objects.service(name), rules.before(name))}
        self.turns.wait(large, now)
        return names - large, large

    def has_changes(self, now: float) -> bool:
        """Return whether any change may be written now."""
        if self.rules is None:
            return bool(self.dirty.services)
        if self.rules.is_behind:
            return True
        small, large = self.by_size(self.rules, now)
        return bool(small) or self.turns.chosen(large, now) is not None

    def next_sync_at(self, now: float, sync_at: float, check_at: float) -> float:
        """Return the time of the next sync if it may start at `sync_at`; `check_at` if no change waits for one."""
        if self.rules is None or self.rules.is_behind or not self.dirty.services:
            return sync_at if self.has_changes(now) else check_at
        small, large = self.by_size(self.rules, now)
        if small:
            return sync_at
        return max(sync_at, min(self.turns.next_at(name) for name in large))
