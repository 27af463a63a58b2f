"""Where a client may be sent: a path or a URL, which may hold variables of the URL that it asked for."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.readers import quoted

SAFE_VARIABLES: Final = ("args", "host", "http_host", "is_args", "query_string", "request_uri", "scheme")
"""Variables that a redirect may hold: what the client sent as its URL, and nothing that it keeps to itself."""


def redirect(text: str) -> str:
    """Return a path of the same host, or an absolute URL."""
    if text.startswith("/") and not text.startswith("//"):
        readers.check_variables(text, SAFE_VARIABLES)
        if not readers.re.match(r"[A-Za-z0-9._~:/?#@!&'()*+,;=%${}-]{1,2000}\Z", text):
            raise ValueError(f"{quoted(text)} is not a path such as /new")
        return text
    return readers.url(*SAFE_VARIABLES)(text).text
