"""Risk levels of annotations, for the setting `annotations-risk-level`.

Source: ingress-nginx's documentation, "Annotations Scope and Risk". It ranks snippets highest. They are not listed
here, because their content is checked instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.values.setting import PartialValueError
from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEVELS: Final = ("Low", "Medium", "High", "Critical")

_MEDIUM_NAMES: Final = (
    "allowlist-source-range auth-realm auth-secret canary-by-cookie canary-by-header canary-by-header-pattern"
    " canary-by-header-value auth-tls-secret auth-tls-verify-client cors-allow-headers cors-allow-methods"
    " cors-allow-origin cors-expose-headers custom-headers denylist-source-range auth-cache-duration auth-cache-key"
    " auth-proxy-set-headers auth-request-redirect auth-response-headers auth-signin-redirect-param fastcgi-index"
    " fastcgi-params-configmap opentelemetry-operation-name proxy-body-size proxy-cookie-domain proxy-cookie-path"
    " proxy-next-upstream proxy-redirect-from proxy-redirect-to proxy-ssl-ciphers proxy-ssl-secret permanent-redirect"
    " temporal-redirect app-root force-ssl-redirect preserve-trailing-slash rewrite-target affinity-mode"
    " session-cookie-domain session-cookie-expires session-cookie-max-age session-cookie-name session-cookie-path"
    " x-forwarded-prefix"
)
_MEDIUM: Final = frozenset(_MEDIUM_NAMES.split())
_HIGH_NAMES: Final = (
    "server-alias auth-tls-error-page auth-tls-match-cn auth-signin auth-url mirror-host mirror-target"
    " modsecurity-transaction-id proxy-ssl-name upstream-hash-by"
)
_HIGH: Final = frozenset(_HIGH_NAMES.split())


def risk_level(text: str) -> str:
    """Return a risk level; case does not matter.

    Raises:
        PartialValueError: The text is no level. As in ingress-nginx, the lowest level applies.
    """
    level = text.capitalize()
    if level not in LEVELS:
        raise PartialValueError(LEVELS[0], f"{quoted(text)} is not one of {', '.join(LEVELS)}: {LEVELS[0]} applies")
    return level


def too_risky(names: Iterable[str], level: str) -> Mapping[str, str]:
    """Return those annotations whose risk is above a level, each with its risk."""
    highest = LEVELS.index(level)
    risks = {name: "High" if name in _HIGH else "Medium" if name in _MEDIUM else "Low" for name in names}
    return {name: risk for name, risk in risks.items() if LEVELS.index(risk) > highest}
