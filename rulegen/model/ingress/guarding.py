"""Ingresses that are closed because of an Ingress that is not served, or that protects whole hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.errors import internal_error
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.closing import INGRESS, Guard, UnservedIngress, held, hosts_of, names_of
from rulegen.model.ingress.ir import LocationPolicy
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.from_ingress import hosts_with_expressions
from rulegen.model.ingress.routing.ingresses import ReadIngress, ResolvedIngress
from rulegen.model.ingress.routing.selection import age
from rulegen.model.ingress.values.annotations.reading import Annotations, read_annotations
from rulegen.model.ingress.values.annotations.routing import FROM_TO_WWW_REDIRECT, SERVER_ALIAS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from rulegen.kube.objects.structs import Ingress
    from rulegen.model.ingress.values.annotations.annotation import Annotation

_HELD = "its paths answer 503, because it may refuse requests for {}"
_OVERTAKEN = "its paths answer 503, because other Ingresses would get their requests"
_NAMES: Final[tuple[Annotation[Any], ...]] = (SERVER_ALIAS, FROM_TO_WWW_REDIRECT)
_FAILED: Final = ReadIngress(None, guard=Guard.HOSTS)


class Guarding(NamedTuple):
    """An Ingress that is not served, and what was read of it."""

    left_out: UnservedIngress
    read: ReadIngress


class Holding(NamedTuple):
    """What remains in effect of the Ingresses that are not served.

    Attributes:
        closers: Why paths are closed, by host and namespace; an empty namespace stands for all. If the Ingress is in
            the namespace that had the host first, it closes all paths, otherwise only those of its own namespace.
        expressions: Namespaces whose paths of a host are expressions, by host.
        tls: Hosts with TLS, so that requests over HTTP are redirected as before.
    """

    closers: dict[str, dict[str, str]]
    expressions: dict[str, frozenset[str]]
    tls: frozenset[str]


@dataclass(slots=True)
class Owners:
    """The Ingresses of a group as they were read.

    Attributes:
        prefix: Prefix of annotations.
        served: Served Ingresses, oldest first; after `hold`, also closed replacements of those that are not served.
        guarding: Ingresses that are not served.
        reasons: Why they are not served as specified.
    """

    prefix: str
    served: list[ResolvedIngress] = field(default_factory=list)
    guarding: list[Guarding] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    def read(self, ingress: Ingress, read: Callable[[Ingress], ReadIngress]) -> None:
        """Read an Ingress to serve. If this fails with an internal error, it is rejected, and may protect anything."""
        try:
            result = read(ingress)
        except Exception as error:  # noqa: BLE001 - a fault in one Ingress must not affect the others
            key = ObjectKey(INGRESS, ObjectName(ingress.metadata.namespace, ingress.metadata.name))
            result = _FAILED._replace(reasons=[Reason(key, Verdict.REJECTED, "", internal_error(error))])
        self.reasons += result.reasons
        if result.owner is not None:
            self.served.append(result.owner)
        else:
            self.guarding.append(Guarding(UnservedIngress.of(ingress, Verdict.REJECTED, self.prefix), result))

    def leave_out(self, left_out: UnservedIngress, read: Callable[[Ingress], ReadIngress]) -> None:
        """Record an Ingress that is not served. If it cannot be read, it may protect anything."""
        try:
            result = read(left_out.ingress) if not left_out.may_guard_all else _FAILED
        except Exception:  # noqa: BLE001 - it is not served, and the reason is reported already
            result = _FAILED
        self.guarding.append(Guarding(left_out, result))

    def hold(self, overtaken: AbstractSet[str]) -> Holding:
        """Add the closed replacements of Ingresses that are not served, and return what else remains in effect.

        Args:
            overtaken: Hosts whose requests go to a server of another name, if they have none of their own.
        """
        if not self.guarding:  # most groups
            return Holding(_closers(self.served, ()), {}, frozenset())
        unwritten: list[tuple[Guarding, Guard, frozenset[str]]] = []
        expressions: dict[str, frozenset[str]] = {}
        owners = [owner for owner in self.served if not owner.is_canary]
        hosts = {host for owner in owners for host in hosts_of(owner.ingress)}
        for guarding in self.guarding:
            left_out, read = guarding
            guard = _guard(guarding, owners)
            for host in read.expressions if not read.is_canary else ():
                if _has_own_paths(left_out.ingress, host, owners):
                    expressions[host] = expressions.get(host, frozenset()) | {left_out.name.namespace}
            if not left_out.is_written or read.is_canary:  # a canary has no paths of its own
                if guard is not Guard.NOTHING:
                    unwritten.append((guarding, guard, left_out.hosts))
                continue
            if guard is Guard.NOTHING and not self._is_overtaken(left_out, owners, overtaken):
                continue
            instead = held(left_out, self.prefix, hosts)
            if guard is not Guard.NOTHING:
                unwritten.append((guarding, guard, instead.unwritten))
            self.served.append(self._closed(left_out, instead.ingress))
            why = _HELD.format(guard.value) if guard is not Guard.NOTHING else _OVERTAKEN
            self.reasons.append(Reason(ObjectKey(INGRESS, left_out.name), Verdict.CLOSED, "", why))
        self.served.sort(key=lambda owner: age(owner.ingress))
        tls = frozenset(
            host
            for left_out, read in self.guarding
            if left_out.ingress.spec.tls and not read.is_canary
            for host in hosts_of(left_out.ingress)
        )
        return Holding(_closers(self.served, unwritten), expressions, tls)

    def _is_overtaken(
        self, left_out: UnservedIngress, owners: Sequence[ResolvedIngress], hosts: AbstractSet[str]
    ) -> bool:
        """Whether other Ingresses would get requests of an Ingress that is not served, or its wildcard host has TLS."""
        own = names_of(left_out.ingress, self.prefix)
        if left_out.ingress.spec.tls and any(host.startswith("*") for host in own):
            return True
        served = {host for owner in owners for host in hosts_of(owner.ingress)}
        if any(host in hosts and host not in served for host in own):
            return True
        return _may_take(owners, left_out.ingress) or _had_first(owners, left_out.ingress)

    def _closed(self, left_out: UnservedIngress, instead: Ingress) -> ResolvedIngress:
        """Return a closed replacement. It keeps the additional names of its hosts, which no other host may get."""
        about = ObjectKey(INGRESS, left_out.name)
        texts = left_out.ingress.metadata.annotations
        keys = [f"{self.prefix}/{annotation.name}" for annotation in _NAMES]
        names = read_annotations(about, {key: texts[key] for key in keys if key in texts}, self.prefix)
        return ResolvedIngress(
            left_out.name,
            instead,
            Annotations(about, self.prefix, names.values),
            LocationPolicy(is_closed=True, global_auth=False),
            is_canary=False,
            is_closed_by_settings=True,
            is_replacement=True,
        )


def _may_take(owners: Sequence[ResolvedIngress], ingress: Ingress) -> bool:
    """Whether a path of other Ingresses, or an expression, may match requests for a path of this Ingress."""
    own = _paths_of(ingress)
    for owner in owners:
        expressions = hosts_with_expressions(owner.ingress, owner.policy)
        for host, paths in _paths_of(owner.ingress).items():
            mine = own.get(host)
            if mine is None:
                continue
            if host in expressions or owner.ingress.spec.default_backend is not None:
                return True
            if any(not paths.isdisjoint(_with_parents(path)) for path in mine):
                return True
    return False


def _has_own_paths(ingress: Ingress, host: str, owners: Sequence[ResolvedIngress]) -> bool:
    """Whether older Ingresses leave at least one path of a host to this Ingress."""
    older = {key for owner in owners if age(owner.ingress) < age(ingress) for key in _keys(owner.ingress, host)}
    return not older.issuperset(_keys(ingress, host))


def _keys(ingress: Ingress, host: str) -> Iterator[tuple[str, bool]]:
    """Yield the paths of a host, each with whether the whole path is compared."""
    for rule in ingress.spec.rules:
        for path in rule.http.paths if rule.http is not None and rule.host == host else ():
            yield path.path or "/", path.path_type == "Exact"


def _had_first(owners: Sequence[ResolvedIngress], ingress: Ingress) -> bool:
    """Whether a host of this Ingress would belong to another namespace without it."""
    for host in hosts_of(ingress):
        oldest = next((owner for owner in owners if host in hosts_of(owner.ingress)), None)
        if oldest is None or oldest.name.namespace == ingress.metadata.namespace:
            continue
        if age(ingress) < age(oldest.ingress):
            return True
    return False


def _paths_of(ingress: Ingress) -> dict[str, set[str]]:
    """Return the paths of an Ingress without slash at the end, by host."""
    paths: dict[str, set[str]] = {host: set() for host in hosts_of(ingress)}
    for rule in ingress.spec.rules:
        paths[rule.host].update(path.path.rstrip("/") for path in (rule.http.paths if rule.http is not None else ()))
    return paths


def _with_parents(path: str) -> Iterator[str]:
    """Yield a path without slash at the end, and all paths above it."""
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path


def _guard(guarding: Guarding, owners: Sequence[ResolvedIngress]) -> Guard:
    """Return what an Ingress that is not served may protect: less, if another one verifies the same certificates."""
    left_out, read = guarding
    own = hosts_of(left_out.ingress)
    if read.client_auth is not None and own and all(_verifies(host, guarding, owners) for host in own):
        return read.guard_without_client_auth
    return read.guard


def _verifies(host: str, guarding: Guarding, owners: Sequence[ResolvedIngress]) -> bool:
    """Whether the host belongs to the same namespace, and verifies the same certificates."""
    having = [owner for owner in owners if host in hosts_of(owner.ingress)]
    namespace = guarding.left_out.name.namespace
    if not having or having[0].name.namespace != namespace:
        return False
    verifying = [owner for owner in having if owner.name.namespace == namespace and owner.client_auth is not None]
    return bool(verifying) and verifying[0].client_auth == guarding.read.client_auth


def _closers(
    owners: Sequence[ResolvedIngress], guarding: Sequence[tuple[Guarding, Guard, frozenset[str]]]
) -> dict[str, dict[str, str]]:
    """Return why paths are closed, by host and namespace.

    Args:
        owners: The served Ingresses, oldest first.
        guarding: Ingresses that are not served, each with what it may protect, and with the hosts where it is unknown
            which requests it protects.
    """
    closers: dict[str, dict[str, str]] = {}
    if not guarding and not any(owner.closes_hosts for owner in owners):  # most groups
        return closers
    first: dict[str, ResolvedIngress] = {}
    for owner in owners:
        if owner.is_canary:
            continue
        for host in hosts_of(owner.ingress):
            oldest = first.setdefault(host, owner)
            if owner.closes_hosts:
                whose = "" if oldest.name.namespace == owner.name.namespace else owner.name.namespace
                message = f"server-snippet of Ingress {owner.name} may refuse requests"
                closers.setdefault(host, {}).setdefault(whose, message)
    for (left_out, read), guard, unclear in guarding:
        namespace, message, ingress = left_out.name.namespace, left_out.message(guard), left_out.ingress
        own = frozenset(hosts_of(ingress))
        for host in own if read.is_canary else left_out.hosts if guard is Guard.HOSTS else unclear:
            older = first.get(host)
            is_first = older is not None and older.name.namespace == namespace
            if older is not None and host in own and not read.is_canary:
                is_first = is_first or age(ingress) < age(older.ingress)
            if is_first or not read.is_canary:  # a canary decides only about the hosts of its own namespace
                whose = "" if guard is Guard.HOSTS and is_first else namespace
                closers.setdefault(host, {}).setdefault(whose, message)
    return closers
