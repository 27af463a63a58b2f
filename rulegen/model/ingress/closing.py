"""Closes the paths that were protected by Ingresses that are not served any more.

An Ingress that is rejected, in quarantine or over a limit is not served. Its requests would then go to another Ingress
of the same host, or of a wildcard host. If the Ingress may have kept requests out, these requests are rejected instead.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.routing import SERVER_ALIAS

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

INGRESS: Final = "Ingress"
MAX_PATH: Final = 250
"""Maximum length of a path in bytes: nginx stores the length of a location in one byte (ngx_http_core_module.h)."""
MAX_ROUTES: Final = 5000
"""Maximum number of rules, paths and `tls` entries of one Ingress. Each needs about 15 KB of nginx's memory."""

_PLAIN: Final = re.compile(r"/[A-Za-z0-9._~/-]*\Z")
"""A path that every program reads in the same way."""
_MAKE_EXPRESSIONS: Final = ("use-regex", "rewrite-target")
_WHY: Final = {
    Verdict.REJECTED: "is rejected",
    Verdict.QUARANTINED: "is in quarantine",
    Verdict.OVER_LIMIT: "is over a limit",
}


class Guard(enum.Enum):
    """What an Ingress may protect."""

    NOTHING = ""
    """It checks no request. Its paths are closed only where another Ingress would get its requests."""
    PATHS = "its paths"
    """By passwords, an auth server, networks, limits or a snippet for its locations."""
    HOSTS = "its hosts"
    """By client certificates or a server-snippet: all paths of its hosts, including those of other Ingresses."""


class UnservedIngress(NamedTuple):
    """An Ingress that is not served.

    Attributes:
        verdict: Reason: rejected, in quarantine or over a limit.
        hosts: Hosts whose Ingresses would get its requests.
        may_guard_all: Whether it is unknown what it protects.
    """

    ingress: k.Ingress
    verdict: Verdict
    hosts: frozenset[str]
    may_guard_all: bool = False

    @classmethod
    def of(cls, ingress: k.Ingress, verdict: Verdict, prefix: str, *, may_guard_all: bool = False) -> UnservedIngress:
        """Return an Ingress that is not served.

        If it is written, its paths are closed on its own hosts. Otherwise its requests go to the Ingresses of these
        hosts, of a matching wildcard host or of the default server. Which of them is known only when all others are
        read: an Ingress with the same host may be rejected too. So all of these hosts count.

        Args:
            ingress: The Ingress.
            verdict: Why it is not served.
            prefix: Prefix of annotations.
            may_guard_all: Whether it is unknown what it protects.
        """
        own = cls(ingress, verdict, frozenset(hosts_of(ingress)), may_guard_all)
        if own.is_written:
            return own
        names = names_of(ingress, prefix)
        return own._replace(hosts=frozenset({"", *names, *map(wildcard_above, names)} if names else ()))

    @property
    def name(self) -> ObjectName:
        """Its name."""
        return ObjectName(self.ingress.metadata.namespace, self.ingress.metadata.name)

    @property
    def is_written(self) -> bool:
        """Whether its hosts are written to the configuration, whose size is limited."""
        return self.verdict is not Verdict.OVER_LIMIT

    def message(self, guard: Guard) -> str:
        """Return why other Ingresses are closed."""
        return f"Ingress {self.name} {_WHY[self.verdict]}, and it may refuse requests for {guard.value}"


class HeldIngress(NamedTuple):
    """The closed replacement of an Ingress that is not served.

    Attributes:
        ingress: An Ingress with only hosts, paths and backends.
        unwritten: Hosts with paths that cannot be written, because it is unknown which requests they match.
    """

    ingress: k.Ingress
    unwritten: frozenset[str]


def route_count(ingress: k.Ingress) -> int:
    """Return the number of rules, paths and `tls` entries of an Ingress."""
    spec = ingress.spec
    return len(spec.rules) + sum(len(rule.http.paths) for rule in spec.rules if rule.http) + len(spec.tls)


def hosts_of(ingress: k.Ingress) -> set[str]:
    """Return the hosts of an Ingress; an empty name means the default server."""
    hosts = {rule.host for rule in ingress.spec.rules}
    return hosts or ({""} if ingress.spec.default_backend is not None else set())


def aliases_of(ingress: k.Ingress, prefix: str) -> tuple[str, ...]:
    """Return the additional names of the hosts of an Ingress; none if they cannot be read."""
    text = ingress.metadata.annotations.get(f"{prefix}/{SERVER_ALIAS.name}")
    if not text:  # most Ingresses
        return ()
    try:
        return SERVER_ALIAS.read(text.strip())
    except ValueError:
        return ()


def names_of(ingress: k.Ingress, prefix: str) -> set[str]:
    """Return the hosts of an Ingress, and their additional names."""
    return hosts_of(ingress).union(aliases_of(ingress, prefix))


def wildcard_above(host: str) -> str:
    """Return the wildcard host that gets the requests of a host without a server."""
    return f"*.{host.partition('.')[2]}"


def held(left_out: UnservedIngress, prefix: str, served: AbstractSet[str]) -> HeldIngress:
    """Return the closed replacement of an Ingress that is not served.

    With too many paths, only its hosts are written.

    Args:
        left_out: The Ingress.
        prefix: Prefix of annotations.
        served: Hosts of all other Ingresses.
    """
    ingress, rules, unwritten = left_out.ingress, list[k.IngressRule](), set[str]()
    texts = ingress.metadata.annotations
    is_expression = any(f"{prefix}/{name}" in texts for name in _MAKE_EXPRESSIONS)
    paths: dict[str, list[k.HTTPIngressPath]] = {}
    for rule in ingress.spec.rules:
        paths.setdefault(rule.host, []).extend(rule.http.paths if rule.http is not None else ())
    has_too_many = route_count(ingress) > MAX_ROUTES
    for host, all_of_host in paths.items():
        plain = [] if is_expression or has_too_many else [path for path in all_of_host if _is_plain(path.path)]
        if len(plain) < len(all_of_host):
            unwritten.add(host)
            if host not in served:
                plain = [k.HTTPIngressPath(path="/", path_type="Prefix")]
        rules.append(k.IngressRule(host=host, http=k.HTTPIngressRuleValue(paths=tuple(plain))))
    spec = k.IngressSpec(rules=tuple(rules), default_backend=ingress.spec.default_backend)
    metadata = msgspec.structs.replace(ingress.metadata, annotations={})
    return HeldIngress(k.Ingress(metadata=metadata, spec=spec), frozenset(unwritten))


def _is_plain(path: str) -> bool:
    return not path or (len(path) <= MAX_PATH and "//" not in path and _PLAIN.match(path) is not None)
