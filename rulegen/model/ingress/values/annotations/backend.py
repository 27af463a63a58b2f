"""Connections to backends: protocol, timeouts, buffers, rewriting of redirects and cookies."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import CLOSE, Annotation
from rulegen.model.ingress.values.readers import choice, integer, quoted, seconds, size
from rulegen.model.ingress.values.rewrites import pair, redirect_part
from rulegen.model.ingress.values.texts import IN_HOSTS, IN_URLS, NO_TEXT, OF_LOCATION, Text, literal, read_text


def _protocol(text: str) -> str:
    return choice("HTTP", "HTTPS", "AUTO_HTTP", "GRPC", "GRPCS", "FCGI")(text.upper())


def _script(text: str) -> str:
    return readers.cookie_path(f"/{text}")[1:]


_OF_MIRRORED: Final = IN_URLS - OF_LOCATION
_mirror_url: Final = readers.url(in_rest=_OF_MIRRORED)


def _mirror_host(text: str) -> Text:
    if "$" not in text:
        return literal(readers.host_and_port(text))
    if not readers.re.match(r"[A-Za-z0-9._:\[\]${}-]{1,500}\Z", text):
        raise ValueError(f"{quoted(text)} is not the name of a host")
    return read_text(text, IN_HOSTS - OF_LOCATION)


BACKEND_PROTOCOL: Final = Annotation(
    "backend-protocol", _protocol, "`HTTP`, `HTTPS`, `AUTO_HTTP`, `GRPC`, `GRPCS`, `FCGI`", default="HTTP"
)
PROXY_CONNECT_TIMEOUT: Final = Annotation("proxy-connect-timeout", seconds, "seconds, or with `s`, `m`, `h`")
PROXY_SEND_TIMEOUT: Final = Annotation("proxy-send-timeout", seconds, "seconds, or with `s`, `m`, `h`")
PROXY_READ_TIMEOUT: Final = Annotation("proxy-read-timeout", seconds, "seconds, or with `s`, `m`, `h`")
PROXY_BODY_SIZE: Final = Annotation("proxy-body-size", size(), "size; 0 for any")
CLIENT_BODY_BUFFER_SIZE: Final = Annotation("client-body-buffer-size", size(64 << 20), "size up to 64m")
PROXY_BUFFERING: Final = Annotation("proxy-buffering", choice("on", "off"), "`on`, `off`")
PROXY_REQUEST_BUFFERING: Final = Annotation("proxy-request-buffering", choice("on", "off"), "`on`, `off`")
PROXY_BUFFER_SIZE: Final = Annotation("proxy-buffer-size", size(16 << 20), "size up to 16m")
PROXY_BUFFERS_NUMBER: Final = Annotation("proxy-buffers-number", integer(2, 1024), "2–1024")
PROXY_BUSY_BUFFERS_SIZE: Final = Annotation(
    "proxy-busy-buffers-size", size(64 << 20), "size up to 64m; adjusted to the other two sizes"
)
PROXY_MAX_TEMP_FILE_SIZE: Final = Annotation("proxy-max-temp-file-size", size(), "size")
PROXY_NEXT_UPSTREAM: Final = Annotation("proxy-next-upstream", readers.next_upstream, "nginx's values")
PROXY_NEXT_UPSTREAM_TRIES: Final = Annotation(
    "proxy-next-upstream-tries", integer(0, 1_000_000), "0–1000000; 0: no limit"
)
PROXY_NEXT_UPSTREAM_TIMEOUT: Final = Annotation(
    "proxy-next-upstream-timeout", seconds, "seconds, or with `s`, `m`, `h`; 0: the read timeout"
)
PROXY_HTTP_VERSION: Final = Annotation("proxy-http-version", choice("1.0", "1.1"), "`1.0`, `1.1`")
PROXY_REDIRECT_FROM: Final = Annotation(
    "proxy-redirect-from", redirect_part, "`off`, `default`, path, URL, also without `http://`"
)
PROXY_REDIRECT_TO: Final = Annotation(
    "proxy-redirect-to", redirect_part, "`off`, `default`, path, URL, also without `http://`"
)
PROXY_COOKIE_DOMAIN: Final = Annotation("proxy-cookie-domain", pair(readers.cookie_domain), "`off`, or two domains")
PROXY_COOKIE_PATH: Final = Annotation("proxy-cookie-path", pair(readers.cookie_path), "`off`, or two paths")
FASTCGI_INDEX: Final = Annotation("fastcgi-index", _script, "file name", default="")
FASTCGI_PARAMS_CONFIGMAP: Final = Annotation(
    "fastcgi-params-configmap", readers.reference, "ConfigMap of the namespace", CLOSE, refers_to="ConfigMap"
)
MIRROR_TARGET: Final = Annotation(
    "mirror-target",
    _mirror_url,
    "URL to which each request is also sent, with variables of the request's URL; its answer is ignored",
)
MIRROR_HOST: Final = Annotation(
    "mirror-host", _mirror_host, "the header Host of these requests; default: the host of the URL", default=NO_TEXT
)
MIRROR_REQUEST_BODY: Final = Annotation(
    "mirror-request-body", choice("on", "off"), "`on` (default), `off`", default="on"
)
