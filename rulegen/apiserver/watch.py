"""The cluster as it changes: each kind of object that networking on a node needs, listed once and watched from then on.

For programs that run for months. What is asked for is what kube-proxy asks for (see `rulegen.apiserver.lists`), Secrets
and ConfigMaps one by one by their names, which come and go. Nothing is kept here of what was told.
"""

from __future__ import annotations

import threading
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Self

from rulegen.apiserver.budget import Kept, Untaken
from rulegen.apiserver.lists import (
    INGRESS_CLASSES,
    INGRESSES,
    NAMESPACES,
    NODES,
    PAGE_SIZE,
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
from rulegen.kube.objects.kinds import title
from rulegen.kube.objects.names import ObjectKey
from rulegen.kube.objects.structs import ConfigMap, Node, Secret
from rulegen.kube.syntax import is_label, is_subdomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rulegen.apiserver.limits import ApiTerms
    from rulegen.apiserver.transport.failures import ApiError
    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.names import ObjectName

MAX_NAMED: Final = 20_000
"""Secrets and ConfigMaps that are followed at the same time: as many as the hosts that are served at most."""
END_S: Final = 1.0
"""How long the end may take."""


def _be_quiet(_: str) -> None:
    """Warn nobody."""


class Watch:
    """Follows the cluster, in a thread for each collection, and tells each event as it comes.

    Events of a kind are told in order, by the same thread; those of several kinds at the same time. `emit` must take an
    event and return: it must not wait for a thread that calls a method of this class.

    Attributes:
        url: Of the API server.
        link: The connection to it, for whoever has something to write; ends with the watch.
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
        warn: Callable[[str], None] = _be_quiet,
        notice: Callable[[OutageNotice], None] | None = None,
        meanwhile: Callable[[], str] | None = None,
        timing: ApiTiming | None = None,
        page_size: int = PAGE_SIZE,
        terms: ApiTerms | None = None,
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        """Read the configuration; nothing is sent before `start`.

        Args:
            emit: Is given each event.
            kubeconfig: As for `ApiServer`.
            context: As for `ApiServer`.
            node: The Node to follow; none by default.
            namespaces: Whether labels of namespaces decide about Ingresses.
            ingress: Whether Ingresses are served: then they, their classes, and all Services are followed.
            warn: Is given what a person must know, one line each, when it begins to be so.
            notice: Is given the same of the server with its fields, and when it is over; without it, `warn` is.
            meanwhile: Returns what goes on while the server is away, for people.
            timing: How long to wait for what.
            page_size: How many objects to ask for at once.
            terms: What the kubeconfig may do, and answers may cost.
            waiting: How many events that `emit` was given are still to be taken: while they need much memory, no
                further change is read.

        Raises:
            HostError: There is no configuration, or none that can be used.
        """
        self._timing = timing or ApiTiming()
        self._say = notice or (lambda item: None if item.is_well else warn(str(item)))
        self._tally = WatchStats(self._timing.clock, self._say)
        self.link = self._link = ApiConnection(kubeconfig, context, terms=terms)
        self.url = self._link.url
        self._outage = Outage(self.url, self._timing, self._say)
        self._outage.meanwhile = meanwhile or self._meanwhile
        self._link.on_good = lambda: self._outage.good(self._link)
        revisions = Revisions(self._timing.clock, self._begin_era)
        untaken = Untaken(self._link.terms, waiting)
        self._shared = Shared(self._tally, self._outage, revisions, Kept(self._link.terms), untaken)
        for text in self._link.cautions:
            warn(text)
        self._lock = threading.Lock()
        self._is_over = False
        self._followers = [
            Reflector(self._link, each, emit, self._shared, self._timing, page_size=page_size)
            for each in _collections(node, ingress=ingress, namespaces=namespaces)
        ]
        self._referred = ReferredObjects(self._link, emit, self._shared, self._timing)
        self._named: set[Key] = set()
        self._beyond: set[Key] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to follow."""
        self._outage.start()
        for each in self._followers:
            each.start()

    def stop(self) -> bool:
        """End all threads; no event is told after this returns.

        Returns:
            Whether all ended within a second. One that is just making a connection ends a few seconds later.
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
        self._link.cut()  # what one of them began meanwhile
        return not any(each.is_alive() for each in threads)

    def refer_to(self, *, secrets: Iterable[ObjectName] = (), config_maps: Iterable[ObjectName] = ()) -> None:
        """Follow just these Secrets and ConfigMaps from now on.

        Each is told as `Changed` or `Gone`, soon after it was first named here, unless we may not read it (`refused`);
        of one that is no longer named, nothing is told any more. What can be the name of none is passed over.

        Where there are more than can be followed, those that are followed stay, and of the others each namespace has as
        many as any other; the rest counts as what we may not read, and a line says so.
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
        """Note what kept somebody who writes to the server from it, and tell whether that is said here.

        Args:
            who: Who asked.
            error: What was in the way.
            wake: Has it try again; called when the server answers.
        """
        if not is_of_server(error):
            return False
        self._outage.failed(who, error, wake)
        return True

    def went_well(self, who: object) -> None:
        """Note that the server did what somebody asked for."""
        self._outage.good(who)

    @property
    def has_synced(self) -> bool:
        """Whether each collection was told once as a whole; those that are followed by name do not count."""
        return all(each.is_listed for each in self._followers)

    def unanswered(self) -> tuple[str, ...]:
        """Return what was not told yet even once, as `services`, `Secret shop/tls`."""
        named = [title(key.kind.__name__, *key.name) for key in self._referred.unanswered()]
        return (*(each.collection.noun for each in self._followers if not each.is_listed), *named)

    def refused(self) -> frozenset[ObjectKey]:
        """Return the Secrets and ConfigMaps that the server lets us not read, or that are beyond the limit."""
        kept_out = self._referred.refused()
        with self._lock:
            return frozenset(ObjectKey(key.kind.__name__, key.name) for key in (*kept_out, *self._beyond))

    def counts(self) -> Counts:
        """Return what was counted up to now, for metrics."""
        return self._tally.counts()

    def _begin_era(self, revision: int, before: int) -> None:
        """Have all listed anew: the server was set back."""
        fields = {"server": self.url, "revision": str(revision), "before": str(before)}
        fields["meanwhile"] = "all objects are listed again"
        self._say(OutageNotice("the API server went back to an older state, as after a restore from a backup", fields))
        for follower in self._followers:
            follower.begin_era()
        self._referred.begin_era()

    def _meanwhile(self) -> str:
        waits = "nothing is passed on before all lists were received"
        return "the last known objects are kept" if self.has_synced else waits


def _collections(node: str | None, *, ingress: bool, namespaces: bool) -> list[Collection]:
    """Return what is listed and watched as a whole."""
    wanted = [SERVICES, SLICES]
    if ingress:
        wanted = [*(each._replace(labels="", fields="") for each in wanted), INGRESSES, INGRESS_CLASSES]
    if namespaces:
        wanted.append(NAMESPACES)
    if node:
        wanted.append(Collection(Node, NODES, "nodes", fields=f"metadata.name={_literal(node)}"))
    return wanted


def _in_turn(keys: Iterable[Key]) -> list[Key]:
    """Return objects in an order that takes one of each namespace, then a second of each, and so on."""
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
    r"""Return a value as it stands in a field selector.

    >>> _literal("a,b=c")
    'a\\,b\\=c'
    """
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
