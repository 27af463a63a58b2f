"""Closes what Ingresses protected that are not served any more.

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

if TYPE_CHECKING:
    from collections.abc import Collection
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
    PATHS = "its paths"
    """By passwords, an auth server, networks, limits or a snippet for its locations."""
    HOSTS = "its hosts"
    """By client certificates or a server-snippet: all paths of its hosts, including those of other Ingresses."""


class UnservedIngress(NamedTuple):
    """An Ingress that is not served.

    Attributes:
        verdict: Reason: rejected, in quarantine or over a limit.
        hosts: Hosts whose Ingresses would get its requests.
    """

    ingress: k.Ingress
    verdict: Verdict
    hosts: frozenset[str]

    @classmethod
    def of(cls, ingress: k.Ingress, verdict: Verdict, served: Collection[str]) -> UnservedIngress:
        """Return an Ingress that is not served.

        If its paths can be written, they are closed on its own hosts. Otherwise its requests go to the Ingresses of
        these hosts; for a host without any, to those of a matching wildcard host, else to the default server.

        Args:
            ingress: The Ingress.
            verdict: Why it is not served.
            served: Hosts of all served Ingresses.
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
        """Whether its hosts and paths are written to the configuration, whose size is limited."""
        return self.verdict is not Verdict.OVER_LIMIT and route_count(self.ingress) <= MAX_ROUTES

    def message(self, guard: Guard) -> str:
        """Return why other Ingresses are closed."""
        return f"Ingress {self.name} {_WHY[self.verdict]}, and it may keep requests out of {guard.value}"


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


def held(left_out: UnservedIngress, prefix: str, served: AbstractSet[str]) -> HeldIngress:
    """Return the closed replacement of an Ingress that is not served and may protect something.

    Args:
        left_out: The Ingress.
        prefix: Prefix of annotations.
        served: Hosts of all other Ingresses.
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
