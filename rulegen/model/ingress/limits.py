"""Limits for the Ingresses of one namespace, so that one namespace cannot slow down all others.

Each host is a server of nginx and each path a location, in each of its processes, and each reload reads all of them.
Beyond a limit, the oldest Ingresses of the namespace remain served and the others are left out completely.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.values.annotations.routing import SERVER_ALIAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.kube.objects.structs import Ingress, Secret

PATHS_PER_HOST: Final = 4
TEXT_PER_HOST: Final = 2_048
SECRETS_PER_HOST: Final = 16_384
UPSTREAM_SERVERS: Final = 10_000
"""Maximum number of endpoints of one Service in upstreams, for all its ports together."""
OPTION: Final = "--max-namespace-hosts"


@dataclass(slots=True)
class _Usage:
    """Usage of the served Ingresses of one namespace."""

    hosts: set[str] = field(default_factory=set)
    paths: int = 0
    text: int = 0
    secrets: set[str] = field(default_factory=set)
    secret_bytes: int = 0


class NamespaceLimits:
    """Usage and limits of each namespace; Ingresses must be passed oldest first."""

    def __init__(self, hosts: int, prefix: str, secrets: Mapping[ObjectName, Secret]) -> None:
        """Start without any usage.

        Args:
            hosts: Maximum number of hosts of one namespace; the other limits are multiples of it.
            prefix: Prefix of annotations that have a meaning.
            secrets: Known Secrets.
        """
        self._most, self._prefix, self._secrets = hosts, f"{prefix}/", secrets
        self._alias = self._prefix + SERVER_ALIAS.name
        self._used: defaultdict[str, _Usage] = defaultdict(_Usage)

    def for_more(self, ingresses: Iterable[Ingress], secrets: Mapping[ObjectName, Secret]) -> NamespaceLimits:
        """Return a copy for more Ingresses of these namespaces; the usage of others is shared."""
        limits = NamespaceLimits(self._most, self._prefix.removesuffix("/"), secrets)
        limits._used.update(self._used)
        for namespace in {ingress.metadata.namespace for ingress in ingresses}:
            used = self._used.get(namespace, _Usage())
            limits._used[namespace] = replace(used, hosts={*used.hosts}, secrets={*used.secrets})
        return limits

    def refusal(self, ingress: Ingress) -> str:
        """Return why an Ingress is not served. If it is served, add its usage and return an empty text."""
        namespace, spec, used = ingress.metadata.namespace, ingress.spec, self._used[ingress.metadata.namespace]
        hosts = {rule.host for rule in spec.rules}
        text = 0
        for name, value in ingress.metadata.annotations.items():
            if name.startswith(self._prefix):
                text += len(name) - len(self._prefix) + len(value)
                if name == self._alias:
                    hosts.update(value.split(","))
        hosts.discard("")
        paths = sum([max(1, len(rule.http.paths) if rule.http else 0) for rule in spec.rules]) or 1
        text *= paths
        secrets = {
            tls.secret_name: self._size(namespace, tls.secret_name)
            for tls in spec.tls
            if tls.secret_name and tls.secret_name not in used.secrets
        }
        secret_bytes = used.secret_bytes + sum(secrets.values())
        for what, has, most in (
            ("hosts", len(used.hosts) + len(hosts - used.hosts), self._most),
            ("paths", used.paths + paths, self._most * PATHS_PER_HOST),
            ("bytes of annotations, counted for each path", used.text + text, self._most * TEXT_PER_HOST),
            ("bytes of certificates and keys", secret_bytes, self._most * SECRETS_PER_HOST),
        ):
            if has > most:
                return f"with this Ingress, namespace {namespace} has {has} {what}; the limit is {most} ({OPTION})"
        used.hosts |= hosts
        used.paths += paths
        used.text += text
        used.secrets |= secrets.keys()
        used.secret_bytes = secret_bytes
        return ""

    def _size(self, namespace: str, name: str) -> int:
        secret = self._secrets.get(ObjectName(namespace, name))
        return sum(map(len, (*secret.data.values(), *secret.string_data.values()))) if secret is not None else 0
