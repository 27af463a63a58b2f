"""Watches the cluster: each kind of object that networking on a node needs is listed once and then watched.

For programs that run for months. It requests what kube-proxy requests (see `rulegen.apiserver.lists`), and Secrets and
ConfigMaps by name, which can change. It stores no objects.
"""

from __future__ import annotations

import threading
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Self

from rulegen.apiserver.budget import Kept, Untaken
from rulegen.apiserver.lists import (
    ALL_NODES,
    FOREIGN_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    NAMESPACES,
    PAGE_SIZE,
    PODS,
    SERVICE_CIDRS,
    SERVICES,
    SHOWN_NAMES,
    SLICES,
    Collection,
)
from rulegen.apiserver.referred.follower import ReferredObjects
from rulegen.apiserver.referred.order import Key
from rulegen.apiserver.transport.connection import ApiConnection
from rulegen.apiserver.watching.backoff import ApiTiming
from rulegen.apiserver.watching.outage import Outage, OutageNotice, is_of_server
from rulegen.apiserver.watching.reflector import Reflector, Shared
from rulegen.apiserver.watching.revision import Revisions
from rulegen.apiserver.watching.stats import Counts, WatchStats
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects.kinds import title
from rulegen.kube.objects.names import ObjectKey
from rulegen.kube.objects.structs import ConfigMap, Secret
from rulegen.kube.syntax import is_label, is_subdomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rulegen.apiserver.limits import ApiTerms
    from rulegen.apiserver.transport.failures import ApiError
    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.names import ObjectName

MAX_NAMED: Final = 20_000
"""Maximum number of followed Secrets and ConfigMaps: as many as the maximum number of served hosts."""
END_S: Final = 1.0
"""Maximum time for stopping, in seconds."""


def _be_quiet(_: str) -> None:
    """Ignore a warning."""


class Watch:
    """Follows the cluster, with a thread for each collection, and reports each event at once.

    One thread reports the events of a kind in order; several threads may report at the same time. `emit` must not wait
    for a thread that calls a method of this class.

    Attributes:
        url: Of the API server.
        link: The connection to it, also for writes; it ends with the watch.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        node: str | None = None,
        ingress: bool = False,
        namespaces: bool = False,
        endpoints_from: EndpointsFrom = EndpointsFrom.SLICES,
        packs: bool = False,
        service_cidrs: bool = False,
        warn: Callable[[str], None] = _be_quiet,
        notice: Callable[[OutageNotice], None] | None = None,
        meanwhile: Callable[[], str] | None = None,
        timing: ApiTiming | None = None,
        page_size: int = PAGE_SIZE,
        terms: ApiTerms | None = None,
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        """Read the kubeconfig; nothing is sent before `start`.

        Args:
            emit: Receives each event.
            kubeconfig: As for `ApiServer`.
            context: As for `ApiServer`.
            node: The Node to follow; none by default.
            namespaces: Whether labels of namespaces select Ingresses.
            ingress: Whether Ingresses are served: then Ingresses, their classes, and all Services are followed.
            endpoints_from: Where endpoints come from. If from Pods, all Pods and all Nodes are followed.
            packs: Whether Services and EndpointSlices are reported packed, because most of them are never read.
            service_cidrs: Whether the ranges of ClusterIPs are followed, if the server has and allows them.
            warn: Receives new warnings, one line each.
            notice: Receives warnings about the server with fields, and their end; by default, `warn` does.
            meanwhile: Returns a text about what continues during an outage.
            timing: Times to wait.
            page_size: Number of objects in one request.
            terms: Limits for the kubeconfig and for answers.
            waiting: Returns the number of events that wait: while they need much memory, no further change is read.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        self._timing = timing or ApiTiming()
        self._say = notice or (lambda item: None if item.is_well else warn(str(item)))
        self._tally = WatchStats(self._timing.clock, self._say)
        link = self.link = self._link = ApiConnection(kubeconfig, context, terms=terms)
        self.url = link.url
        self._outage = Outage(link.url, self._timing, self._say)
        self._outage.meanwhile = meanwhile or self._meanwhile
        self._link.on_good = lambda: self._outage.good(self._link)
        shared = Revisions(self._timing.clock, self._begin_era), Kept(link.terms), Untaken(link.terms, waiting)
        self._shared = Shared(self._tally, self._outage, *shared)
        self._warn_of_link(warn)
        self._lock, self._is_over = threading.Lock(), False
        wanted = _collections(node, endpoints_from, ingress=ingress, namespaces=namespaces, packs=packs)
        ranges = [SERVICE_CIDRS] if service_cidrs else []
        self._followers = [self._reflector(each, emit, page_size) for each in wanted + ranges]
        self._referred = ReferredObjects(self._link, emit, self._shared, self._timing)
        self._named, self._beyond = set[Key](), set[Key]()

    def _warn_of_link(self, warn: Callable[[str], None]) -> None:
        for text in self._link.cautions:
            warn(text)

    def _reflector(self, collection: Collection, emit: Callable[[Event], None], page_size: int) -> Reflector:
        return Reflector(self._link, collection, emit, self._shared, self._timing, page_size=page_size)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start following."""
        self._outage.start()
        for each in self._followers:
            each.start()

    def stop(self) -> bool:
        """End all threads; no event is reported after this returns.

        Returns:
            Whether all ended within a second. A thread that is connecting ends a few seconds later.
        """
        with self._lock:
            self._is_over = True
        threads: list[Reflector | ReferredObjects | Outage] = [*self._followers, self._referred, self._outage]
        for each in threads:
            each.end()
        self._link.cut()
        until = self._timing.clock() + END_S
        for each in threads:
            each.join(until - self._timing.clock())
        self._link.cut()  # connections that one of them started meanwhile
        return not any(each.is_alive() for each in threads)

    def refer_to(self, *, secrets: Iterable[ObjectName] = (), config_maps: Iterable[ObjectName] = ()) -> None:
        """Follow only these Secrets and ConfigMaps from now on.

        Each is reported as `Changed` or `Gone`, soon after it was first named here, unless access is denied
        (`refused`). Nothing more is reported about objects that are no longer named. Invalid names are ignored.

        If there are more than the maximum, objects that are already followed stay, and the rest is shared equally by
        namespaces. The remaining ones count as denied, and a warning names them.
        """
        wanted = {Key(Secret, name) for name in secrets} | {Key(ConfigMap, name) for name in config_maps}
        wanted = {key for key in wanted if is_label(key.name.namespace) and is_subdomain(key.name.name)}
        with self._lock:
            if self._is_over:
                return
            self._named &= wanted
            new = _in_turn(wanted - self._named)
            room = max(0, MAX_NAMED - len(self._named))
            had_room, self._beyond = not self._beyond, set(new[room:])
            self._named |= set(new[:room])
            self._referred.refer_to(self._named)
        if had_room and self._beyond:
            self._say(_too_many(sorted(key.name for key in self._beyond)))

    def failed(self, who: object, error: ApiError, wake: Callable[[], None]) -> bool:
        """Record why a write to the server failed, and return whether this class reports it.

        Args:
            who: The caller.
            error: The failure.
            wake: Called when the server answers again.
        """
        if not is_of_server(error):
            return False
        self._outage.failed(who, error, wake)
        return True

    def went_well(self, who: object) -> None:
        """Record a successful write to the server."""
        self._outage.good(who)

    @property
    def has_synced(self) -> bool:
        """Whether each collection was reported completely once; objects followed by name do not count."""
        return all(each.is_listed for each in self._followers)

    def unanswered(self) -> tuple[str, ...]:
        """Return what was never reported, such as `services`, `Secret shop/tls`."""
        named = [title(key.kind.__name__, *key.name) for key in self._referred.unanswered()]
        return (*(each.collection.noun for each in self._followers if not each.is_listed), *named)

    def refused(self) -> frozenset[ObjectKey]:
        """Return the Secrets and ConfigMaps that the server denies, or that exceed the maximum."""
        kept_out = self._referred.refused()
        with self._lock:
            return frozenset(ObjectKey(key.kind.__name__, key.name) for key in (*kept_out, *self._beyond))

    def counts(self) -> Counts:
        """Return the counts so far, for metrics."""
        return self._tally.counts()

    def _begin_era(self, revision: int, before: int) -> None:
        """List everything again: the server went back to an older state."""
        fields = {"server": self.url, "revision": str(revision), "before": str(before)}
        fields["meanwhile"] = "all objects are listed again"
        self._say(OutageNotice("the API server went back to an older state, as after a restore from a backup", fields))
        for follower in self._followers:
            follower.begin_era()
        self._referred.begin_era()

    def _meanwhile(self) -> str:
        waits = "no change is applied before all lists have been received"
        return "the last known objects are kept" if self.has_synced else waits


def _collections(
    node: str | None, endpoints_from: EndpointsFrom, *, ingress: bool, namespaces: bool, packs: bool
) -> list[Collection]:
    """Return the collections that are listed and watched as a whole."""
    services, slices = (each._replace(labels="", fields="") if ingress else each for each in (SERVICES, SLICES))
    services, slices = services._replace(packs=packs), slices._replace(packs=packs)
    if endpoints_from is EndpointsFrom.PODS:
        slices = slices._replace(labels=",".join(filter(None, (slices.labels, FOREIGN_SLICES))))
    wanted = [services, slices]
    if ingress:
        wanted += [INGRESSES, INGRESS_CLASSES]
    if namespaces:
        wanted.append(NAMESPACES)
    if endpoints_from.has_pods:
        wanted += [PODS, ALL_NODES]
    elif node:
        wanted.append(ALL_NODES._replace(fields=f"metadata.name={_literal(node)}"))
    return wanted


def _in_turn(keys: Iterable[Key]) -> list[Key]:
    """Return objects ordered so that each namespace has one, then each a second one, and so on."""
    of_namespace: dict[str, list[Key]] = {}
    for key in sorted(keys, key=lambda key: (key.kind.__name__, key.name)):
        of_namespace.setdefault(key.name.namespace, []).append(key)
    turns = zip_longest(*(of_namespace[namespace] for namespace in sorted(of_namespace)))
    return [key for turn in turns for key in turn if key is not None]


def _too_many(beyond: list[ObjectName]) -> OutageNotice:
    shown = ", ".join(str(name) for name in beyond[:SHOWN_NAMES])
    fields = {
        "limit": str(MAX_NAMED),
        "not_read": f"{len(beyond)}: {shown}{', …' if len(beyond) > SHOWN_NAMES else ''}",
    }
    return OutageNotice("Ingresses refer to more Secrets and ConfigMaps than can be watched", fields)


def _literal(value: str) -> str:
    r"""Return a value escaped for a field selector.

    >>> _literal("a,b=c")
    'a\\,b\\=c'
    """
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
