"""Dependencies between keys of the ConfigMap: a key has no effect without another one, which is reported."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rulegen.model.ingress.values.settings import Settings

_GROUPS: Final = (
    ("use-forwarded-headers", "compute-full-forwarded-for forwarded-host-header"),
    ("global-auth-url", "global-auth-method global-auth-signin global-auth-response-headers"),
    ("global-auth-url", "global-auth-request-redirect global-auth-always-set-cookie global-auth-cache-key"),
    ("global-auth-cache-key", "global-auth-cache-duration"),
    ("global-auth-signin", "global-auth-signin-redirect-param"),
    ("hsts", "hsts-max-age hsts-include-subdomains hsts-preload"),
    ("use-gzip", "gzip-level gzip-min-length gzip-types gzip-disable"),
    ("use-http2", "http2-max-concurrent-streams"),
    ("ssl-session-cache", "ssl-session-cache-size"),
)
NEEDS: Final[Mapping[str, str]] = MappingProxyType({key: needed for needed, keys in _GROUPS for key in keys.split()})
"""By key: the key that must be set or true."""


def idle_settings(keys: Collection[str], settings: Settings) -> Iterator[tuple[Verdict, str]]:
    """Yield reports about keys without effect; only a note if the key that they need is switched off explicitly.

    Args:
        keys: Keys of the ConfigMap.
        settings: The settings with their values.
    """
    for key in sorted(keys):
        needed = NEEDS.get(key)
        if (
            needed is None
            or getattr(settings, needed.replace("-", "_"))
            or not getattr(settings, key.replace("-", "_"))
        ):
            continue
        verdict = Verdict.NOTE if needed in keys else Verdict.IGNORED
        yield verdict, f"data.{key}: it has no effect without {needed}"
