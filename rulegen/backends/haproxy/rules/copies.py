"""Copies of requests for a mirror, whose answers are discarded: a Lua program sends them with HAProxy's HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.frontend import put_text, variable
from rulegen.backends.haproxy.rules.auth_server import address_lines
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.tree import log_format, matches, sample, statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.haproxy.tree import ConfigLine
    from rulegen.model.ingress.ir import IngressModel, Mirror

_WAIT: Final = "2s"


def mirror_lines(mirror: Mirror, model: IngressModel) -> Iterator[ConfigLine]:
    """Yield the lines that send a copy of each request.

    Raises:
        UnwritableError: HAProxy cannot send it there.
    """
    url = mirror.url
    yield from address_lines("mirror", url, mirror.target, model)
    parts = [f"{url.scheme}://", *written(url.authority).parts]
    if not url.rest:
        parts.append(variable("request_uri"))
    else:
        parts += written(url.rest).parts
    yield put_text("mirror_url", log_format(*parts))
    if url.rest and url.rest.literal is not None:  # as with nginx, the query of the request follows
        query = sample("query")
        longer = log_format(*parts, "?", query)
        yield put_text("mirror_url", longer, when=("{", query, "-m", "found", "}"))
    yield put_text("mirror_host", written(mirror.host))
    if mirror.passes_body:
        unsafe = matches(sample("method"), "str", "POST", "PUT")
        yield statement("http-request", "wait-for-body", "time", _WAIT, when=unsafe)
    yield statement("http-request", "lua.rulegen_mirror", "body" if mirror.passes_body else "-")
