"""Secrets and ConfigMaps that Ingresses name: what the API server has answered, and what is known from earlier.

An object without an answer of the API server is unknown, not absent. Hosts that depend on it are served as before; if
that is not possible, they are closed. All other hosts are served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.events import Unfollowed
from rulegen.kube.objects.structs import ConfigMap, Secret
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.model.ingress.last_read import CompletedSnapshot, completed, held, renewed, unread_by
from rulegen.model.ingress.unread import REFUSED, UNANSWERED
from rulegen.model.ingress.values.references import ReferencedNames

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.agent.cluster import SharedCluster
    from rulegen.apiserver.watch import Watch
    from rulegen.compiler.ingress.engine import KnownObjects
    from rulegen.kube.objects.names import ObjectKey, ObjectName
    from rulegen.kube.objects.structs import Ingress
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.last_read import Recollection
    from rulegen.model.ingress.options import IngressOptions

ANSWER_S: Final = 1.0
"""How long a serving nginx waits for the API server's answer about objects that are named for the first time."""
SILENCE_S: Final = 10.0
"""How long the first start waits for the next answer."""
FIRST_S: Final = 60.0
"""How long the first start waits in total."""
LOOK_S: Final = 0.05
"""How often answers are checked."""
NOTHING: Final = ReferencedNames(frozenset(), frozenset())


class SyncEndedError(Exception):
    """The thread is about to end and stops waiting."""


@dataclass(slots=True)
class Memory:
    """Last known contents of objects, in this process only."""

    objects: Recollection = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, objects: Recollection) -> None:
        """Store these contents and drop all others."""
        self.objects = objects


@dataclass(slots=True)
class ReferencedObjects:
    """The cluster with the objects that its Ingresses name, as far as the API server has answered.

    Attributes:
        snapshot: Returns the current cluster.
        watch: Watches the Secrets and ConfigMaps that Ingresses name.
        cluster: Knows for which Secrets and ConfigMaps there was an answer; None if all are known.
        known: Last known contents of objects.
        forget: Called with each Secret and ConfigMap that is no longer requested.
        ended: Set when the thread must stop waiting.
        report_wait: Called with the number of objects that the first start waits for.
    """

    snapshot: Callable[[], ClusterSnapshot]
    watch: Watch
    cluster: SharedCluster | None
    known: KnownObjects
    forget: Callable[[Unfollowed], None]
    clock: Callable[[], float]
    ended: threading.Event
    report_wait: Callable[[int], None]
    _asked: ReferencedNames | None = None
    _ingresses: Mapping[ObjectName, Ingress | None] = field(default_factory=dict)
    _waited: frozenset[ObjectKey] = frozenset()
    _unanswered: frozenset[ObjectKey] = frozenset()
    _unread: Mapping[ObjectKey, str] = field(default_factory=dict)

    def completed(self, options: IngressOptions, *, is_first: bool, serves: Callable[[], bool]) -> CompletedSnapshot:
        """Return the cluster with the objects that its Ingresses name, after waiting for the API server's answers.

        Args:
            options: Define which objects are named.
            is_first: Whether this is the first decision.
            serves: Returns whether the engine serves anything.

        Raises:
            EndedError: The thread must end.
        """
        began = answered_at = self.clock()
        while True:
            world, wanted = self._looked(options, is_first=is_first)
            self._refer(wanted)
            unknown = {key for key, why in world.unread.items() if why == UNANSWERED}
            missing = frozenset(unknown | {key for key, why in world.recalled.items() if why == UNANSWERED})
            fresh = missing - self._waited
            if not fresh:
                self._waited &= missing
                return CompletedSnapshot(world, wanted)
            # Before the first decision, waiting harms nobody: nginx continues to serve its configuration.
            may_wait = is_first and not fresh.isdisjoint(unknown)
            until = min(answered_at + SILENCE_S, began + FIRST_S) if may_wait else began + ANSWER_S
            if may_wait:
                if serves() and not self.known.objects:
                    until = math.inf  # the served content of these hosts is not saved, so they stay as they are
                self.report_wait(len(fresh))
            left = self._await(fresh, until=until)
            if len(left) < len(fresh) and may_wait:
                answered_at = self.clock()
            else:
                self._waited |= left

    def _await(self, keys: frozenset[ObjectKey], *, until: float) -> frozenset[ObjectKey]:
        """Wait until the API server sends or denies objects; return those without an answer."""
        while True:
            left = frozenset(key for key, why in self._reasons(keys).items() if why == UNANSWERED)
            if not left or self.clock() >= until:
                return left
            if self.ended.wait(LOOK_S):
                raise SyncEndedError

    def _looked(self, options: IngressOptions, *, is_first: bool) -> CompletedSnapshot:
        """Return the current cluster, with the last known contents."""
        refused = self.watch.refused()
        gone = (
            self.cluster.gone() if self.cluster is not None else None
        )  # first, so that later changes are included in the snapshot

        def unread(key: ObjectKey) -> str:
            if gone is None or key in gone or not (is_label(key.name.namespace) and is_subdomain(key.name.name)):
                return ""
            return REFUSED if key in refused else UNANSWERED

        world, wanted = completed(self.snapshot(), options, self.known.objects, unread)
        if is_first or not world.unread:
            return CompletedSnapshot(world, wanted)
        earlier, also = completed(held(world, options, self._ingresses), options, self.known.objects, unread)
        return CompletedSnapshot(
            earlier, ReferencedNames(wanted.secrets | also.secrets, wanted.config_maps | also.config_maps)
        )

    def _reasons(self, keys: Iterable[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Return the unanswered ones of some objects, each with the reason."""
        if self.cluster is None:
            return {}
        refused, is_known = self.watch.refused(), self.cluster.is_reported
        return {key: REFUSED if key in refused else UNANSWERED for key in keys if not is_known(key)}

    @property
    def is_all_answered(self) -> bool:
        """Whether the API server has since answered all that was open at the last decision."""
        return bool(self._unanswered) and not self._reasons(self._unanswered)

    @property
    def is_as_remembered(self) -> bool:
        """Whether no answer and no denial has arrived since the last decision."""
        return self._unread == self._reasons(self._unread)

    def _refer(self, wanted: ReferencedNames) -> None:
        """Request these objects from the API server, and drop those that are no longer requested."""
        if wanted == self._asked:
            return
        self.watch.refer_to(secrets=wanted.secrets, config_maps=wanted.config_maps)
        asked = self._asked
        if (
            asked is None
        ):  # the previous agent requested the objects of the cluster; the others are not followed by anything
            asked = self.cluster.named() if self.cluster is not None else NOTHING
        for kind, names in (
            (Secret, asked.secrets - wanted.secrets),
            (ConfigMap, asked.config_maps - wanted.config_maps),
        ):
            for name in sorted(names):
                self.forget(Unfollowed(kind, name))
        self._asked = wanted

    def remember(self, world: ClusterSnapshot, wanted: ReferencedNames, options: IngressOptions) -> None:
        """Save the contents used for the decision, for the next decision and the next process.

        Raises:
            HostError: They cannot be saved; this process still knows them.
        """
        self._unread = dict(world.unread)
        self._unread |= {key: why for key, why in world.recalled.items() if why in {UNANSWERED, REFUSED}}
        self._unanswered = frozenset(key for key, why in self._unread.items() if why == UNANSWERED)
        self._ingresses = {
            name: None if unread_by(ingress, world, options.prefix) else ingress
            for name, ingress in world.ingresses.items()
        }
        self.known.keep(renewed(world, wanted, options))
