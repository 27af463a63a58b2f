"""TLS for clients and for backends."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.annotations.annotation import CLOSE, Annotation
from rulegen.model.ingress.values.annotations.redirects import plain_redirect
from rulegen.model.ingress.values.readers import boolean, choice, integer, quoted
from rulegen.model.ingress.values.texts import Text


def _proxy_protocols(text: str) -> str:
    return " ".join(choice("SSLv2", "SSLv3", *readers.PROTOCOLS)(word) for word in text.split())


def _depth(text: str) -> int:
    """Return the maximum length of a certificate chain; 0 means the default."""
    return integer(0, 100)(text) or 1


def _client_subject(text: str) -> str:
    """Return the expression for a client's subject. It starts with `CN=`, which is part of the expression."""
    if not text.startswith("CN="):
        raise ValueError(f"{quoted(text)} does not begin with CN=")
    return regex.check(text)


SSL_REDIRECT: Final = Annotation(
    "ssl-redirect", boolean, "`true`, `false`; applies if there is a `tls` section", is_exact=True
)
FORCE_SSL_REDIRECT: Final = Annotation("force-ssl-redirect", boolean, "`true`, `false`", is_exact=True)
PRESERVE_TRAILING_SLASH: Final = Annotation("preserve-trailing-slash", boolean, "`true`, `false`")
USE_PORT_IN_REDIRECTS: Final = Annotation(
    "use-port-in-redirects",
    boolean,
    "`true`, `false`; nginx's port in redirects to HTTPS, and in redirects whose target is only a path",
)
SSL_CIPHERS: Final = Annotation("ssl-ciphers", readers.ciphers, "list as for OpenSSL; for the whole host")
SSL_PREFER_SERVER_CIPHERS: Final = Annotation(
    "ssl-prefer-server-ciphers", boolean, "`true`, `false`; for the whole host"
)
AUTH_TLS_SECRET: Final = Annotation(
    "auth-tls-secret", readers.reference, "Secret with `ca.crt`; for the whole host", CLOSE, refers_to="Secret"
)
AUTH_TLS_VERIFY_CLIENT: Final = Annotation(
    "auth-tls-verify-client",
    choice("on", "off", "optional", "optional_no_ca"),
    "`on` (default), `off`, `optional`, `optional_no_ca`",
    CLOSE,
    default="on",
)
AUTH_TLS_VERIFY_DEPTH: Final = Annotation(
    "auth-tls-verify-depth", _depth, "0–100, default 1; 0 means 1", CLOSE, default=1
)
AUTH_TLS_MATCH_CN: Final = Annotation(
    "auth-tls-match-cn", _client_subject, "`CN=` and a regular expression", CLOSE, default=""
)
AUTH_TLS_ERROR_PAGE: Final = Annotation(
    "auth-tls-error-page",
    plain_redirect,
    "path or URL; variables of the request's URL",
    CLOSE,
    default=Text(),
)
AUTH_TLS_PASS_CERTIFICATE_TO_UPSTREAM: Final = Annotation(
    "auth-tls-pass-certificate-to-upstream", boolean, "`true`, `false`", CLOSE, default=False
)
PROXY_SSL_SECRET: Final = Annotation(
    "proxy-ssl-secret",
    readers.reference,
    "Secret with `tls.crt` and `tls.key`, or `ca.crt`, or all",
    CLOSE,
    refers_to="Secret",
)
PROXY_SSL_CIPHERS: Final = Annotation("proxy-ssl-ciphers", readers.ciphers, "OpenSSL's list", CLOSE, default="")
PROXY_SSL_PROTOCOLS: Final = Annotation(
    "proxy-ssl-protocols", _proxy_protocols, "of `TLSv1` to `TLSv1.3`", CLOSE, default=""
)
PROXY_SSL_NAME: Final = Annotation("proxy-ssl-name", readers.plain_host, "name", CLOSE, default="")
PROXY_SSL_SERVER_NAME: Final = Annotation(
    "proxy-ssl-server-name", choice("on", "off"), "`on`, `off`", CLOSE, default="off"
)
PROXY_SSL_VERIFY: Final = Annotation("proxy-ssl-verify", choice("on", "off"), "`on`, `off`", CLOSE, default="off")
PROXY_SSL_VERIFY_DEPTH: Final = Annotation(
    "proxy-ssl-verify-depth", _depth, "0–100, default 1; 0 means 1", CLOSE, default=1
)
