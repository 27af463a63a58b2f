"""What the API server answered of the Secrets and ConfigMaps that Ingresses name, and what is known from before.

An object of which the API server has sent nothing is unknown, and not absent: hosts that depend on it are served as
before, else they are closed, and all others are served.
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
"""How long a nginx that serves waits for the API server to send what is named for the first time."""
SILENCE_S: Final = 10.0
"""How long the first start waits for the next answer."""
FIRST_S: Final = 60.0
"""How long the first start waits for all answers."""
LOOK_S: Final = 0.05
"""How often to look for answers."""
NOTHING: Final = ReferencedNames(frozenset(), frozenset())


class SyncEndedError(Exception):
    """The thread is to end, and waits no longer."""


@dataclass(slots=True)
class Memory:
    """What objects said when they were last read, known to this process alone."""

    objects: Recollection = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, objects: Recollection) -> None:
        """Know these from now on, and nothing else."""
        self.objects = objects


@dataclass(slots=True)
class ReferencedObjects:
    """The cluster with the objects that its Ingresses name, as far as the API server has answered.

    Attributes:
        snapshot: Returns the cluster as it is now.
        watch: Follows the Secrets and ConfigMaps that Ingresses name.
        cluster: Knows of which Secrets and ConfigMaps the API server has sent anything; None where all is known.
        known: What objects said when they were last read.
        forget: Is given each Secret and ConfigMap that is not asked for any more.
        ended: Set when nobody waits any more.
        report_wait: Is given how many objects the first start waits for.
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
        """Return the cluster with what its Ingresses name, once the API server was given time to send it.

        Args:
            options: Which objects are named.
            is_first: Whether nothing was decided before.
            serves: Returns whether the engine serves anything.

        Raises:
            EndedError: The thread is to end.
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
            # Before anything was decided, waiting takes nothing from anybody: what nginx serves, it serves on.
            may_wait = is_first and not fresh.isdisjoint(unknown)
            until = min(answered_at + SILENCE_S, began + FIRST_S) if may_wait else began + ANSWER_S
            if may_wait:
                if serves() and not self.known.objects:
                    until = math.inf  # nobody remembers what these hosts are served with, so they are left alone
                self.report_wait(len(fresh))
            left = self._await(fresh, until=until)
            if len(left) < len(fresh) and may_wait:
                answered_at = self.clock()
            else:
                self._waited |= left

    def _await(self, keys: frozenset[ObjectKey], *, until: float) -> frozenset[ObjectKey]:
        """Wait for the API server to send objects, or to refuse them; return those that it did not answer."""
        while True:
            left = frozenset(key for key, why in self._reasons(keys).items() if why == UNANSWERED)
            if not left or self.clock() >= until:
                return left
            if self.ended.wait(LOOK_S):
                raise SyncEndedError

    def _looked(self, options: IngressOptions, *, is_first: bool) -> CompletedSnapshot:
        """Return the cluster as it is now, with what is known from before."""
        refused = self.watch.refused()
        gone = self.cluster.gone() if self.cluster is not None else None  # first: what comes meanwhile is in the world

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
        """Return those of some objects of which the API server has sent nothing, each with the reason."""
        if self.cluster is None:
            return {}
        refused, is_known = self.watch.refused(), self.cluster.is_told
        return {key: REFUSED if key in refused else UNANSWERED for key in keys if not is_known(key)}

    @property
    def is_all_answered(self) -> bool:
        """Whether the API server has answered all that it had not when the site was decided last."""
        return bool(self._unanswered) and not self._reasons(self._unanswered)

    @property
    def is_as_remembered(self) -> bool:
        """Whether nothing was answered, nor refused, since the site was decided last."""
        return self._unread == self._reasons(self._unread)

    def _refer(self, wanted: ReferencedNames) -> None:
        """Have the API server asked for these objects, and forget those that are not asked for any more."""
        if wanted == self._asked:
            return
        self.watch.refer_to(secrets=wanted.secrets, config_maps=wanted.config_maps)
        asked = self._asked
        if asked is None:  # an agent before this one asked for what the cluster has, and nobody follows the rest of it
            asked = self.cluster.named() if self.cluster is not None else NOTHING
        for kind, names in (
            (Secret, asked.secrets - wanted.secrets),
            (ConfigMap, asked.config_maps - wanted.config_maps),
        ):
            for name in sorted(names):
                self.forget(Unfollowed(kind, name))
        self._asked = wanted

    def remember(self, world: ClusterSnapshot, wanted: ReferencedNames, options: IngressOptions) -> None:
        """Know what was decided from, for the next time and for the next process.

        Raises:
            HostError: It cannot be written; this process knows it all the same.
        """
        self._unread = dict(world.unread)
        self._unread |= {key: why for key, why in world.recalled.items() if why in {UNANSWERED, REFUSED}}
        self._unanswered = frozenset(key for key, why in self._unread.items() if why == UNANSWERED)
        self._ingresses = {
            name: None if unread_by(ingress, world, options.prefix) else ingress
            for name, ingress in world.ingresses.items()
        }
        self.known.keep(renewed(world, wanted, options))
