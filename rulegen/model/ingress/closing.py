"""What Ingresses that are not served had guarded: it stays closed.

An Ingress that is rejected, in quarantine or over a limit is not served. Another Ingress of the same host, or one for a
wildcard above it, would then get its requests. If it may have kept requests out, they are closed instead.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Set as AbstractSet

INGRESS: Final = "Ingress"
MAX_PATH: Final = 250
"""Maximum length of a path in bytes: nginx stores the length of a location in one byte (ngx_http_core_module.h)."""
MAX_ROUTES: Final = 5000
"""Maximum number of rules, paths and `tls` entries of one Ingress. Each needs about 15 KB of nginx's memory."""

_PLAIN: Final = re.compile(r"/[A-Za-z0-9._~/-]*\Z")
"""A path that means the same to every program that reads it."""
_MAKE_EXPRESSIONS: Final = ("use-regex", "rewrite-target")
_WHY: Final = {
    Verdict.REJECTED: "is rejected",
    Verdict.QUARANTINED: "is in quarantine",
    Verdict.OVER_LIMIT: "is over a limit",
}


class Guard(enum.Enum):
    """What an Ingress may keep requests from."""

    NOTHING = ""
    PATHS = "its paths"
    """By passwords, an auth server, networks, limits or a snippet for its locations."""
    HOSTS = "its hosts"
    """By client certificates or a server-snippet, for all paths of its hosts, those of other Ingresses too."""


class UnservedIngress(NamedTuple):
    """An Ingress that is not served.

    Attributes:
        verdict: Why: rejected, in quarantine or over a limit.
        hosts: Hosts whose Ingresses would get its requests.
    """

    ingress: k.Ingress
    verdict: Verdict
    hosts: frozenset[str]

    @classmethod
    def of(cls, ingress: k.Ingress, verdict: Verdict, served: Collection[str]) -> UnservedIngress:
        """Return an Ingress that is not served.

        If its paths are written, they are closed on its own hosts. Else the Ingresses of these hosts get its requests,
        or where nobody has a host, those of the wildcard above it or of the host of every other name.

        Args:
            ingress: The Ingress.
            verdict: Why it is not served.
            served: The hosts that anybody is served for.
        """
        own = cls(ingress, verdict, frozenset(hosts_of(ingress)))
        if own.is_written:
            return own
        hosts = set()
        for host in own.hosts:
            above = f"*.{host.partition('.')[2]}"
            hosts.add(host if host in served else above if above in served else "")
        return own._replace(hosts=frozenset(hosts))

    @property
    def name(self) -> ObjectName:
        """Its name."""
        return ObjectName(self.ingress.metadata.namespace, self.ingress.metadata.name)

    @property
    def is_written(self) -> bool:
        """Whether its hosts and paths may become part of a configuration, which has a limited size."""
        return self.verdict is not Verdict.OVER_LIMIT and route_count(self.ingress) <= MAX_ROUTES

    def message(self, guard: Guard) -> str:
        """Return why others are closed."""
        return f"Ingress {self.name} {_WHY[self.verdict]}, and it may keep requests out of {guard.value}"


class HeldIngress(NamedTuple):
    """What is served instead of an Ingress that is not: its paths, closed.

    Attributes:
        ingress: With nothing but hosts, paths and backends.
        unwritten: Hosts on which some of its paths cannot be written, as nobody knows which requests they match.
    """

    ingress: k.Ingress
    unwritten: frozenset[str]


def route_count(ingress: k.Ingress) -> int:
    """Return how many rules, paths and entries for TLS an Ingress has."""
    spec = ingress.spec
    return len(spec.rules) + sum(len(rule.http.paths) for rule in spec.rules if rule.http) + len(spec.tls)


def hosts_of(ingress: k.Ingress) -> set[str]:
    """Return the hosts of an Ingress; an empty one is that of every other name."""
    hosts = {rule.host for rule in ingress.spec.rules}
    return hosts or ({""} if ingress.spec.default_backend is not None else set())


def held(left_out: UnservedIngress, prefix: str, served: AbstractSet[str]) -> HeldIngress:
    """Return what is served instead of an Ingress that is not, and may keep requests out.

    Args:
        left_out: The Ingress.
        prefix: Of annotations.
        served: The hosts that others are served for.
    """
    ingress, rules, unwritten = left_out.ingress, list[k.IngressRule](), set[str]()
    texts = ingress.metadata.annotations
    is_expression = any(f"{prefix}/{name}" in texts for name in _MAKE_EXPRESSIONS)
    for rule in ingress.spec.rules:
        paths = rule.http.paths if rule.http is not None else ()
        plain = () if is_expression else tuple(path for path in paths if _is_plain(path.path))
        if len(plain) < len(paths):
            unwritten.add(rule.host)
            if rule.host not in served:
                plain = (k.HTTPIngressPath(path="/", path_type="Prefix"),)
        rules.append(k.IngressRule(host=rule.host, http=k.HTTPIngressRuleValue(paths=plain)))
    spec = k.IngressSpec(rules=tuple(rules), default_backend=ingress.spec.default_backend)
    metadata = msgspec.structs.replace(ingress.metadata, annotations={})
    return HeldIngress(k.Ingress(metadata=metadata, spec=spec), frozenset(unwritten))


def _is_plain(path: str) -> bool:
    return not path or (len(path) <= MAX_PATH and "//" not in path and _PLAIN.match(path) is not None)
