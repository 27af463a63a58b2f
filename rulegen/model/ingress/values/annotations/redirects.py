"""Targets of redirects: a path or a URL, which may contain variables of the requested URL."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.readers import quoted
from rulegen.model.ingress.values.texts import IN_URLS, OF_LOCATION, Subject, Text, read_text

IN_REDIRECT_HOSTS: Final = OF_LOCATION - {Subject.INGRESS_PATH} | {
    Subject.HOST,
    Subject.HOST_HEADER,
    Subject.OUTSIDE_HOST,
    Subject.SERVER_NAME,
}
"""Allowed in the host of a redirect."""
_SCHEMES: Final = ("$scheme", "${scheme}", "$pass_access_scheme", "${pass_access_scheme}")

_url: Final = readers.url(IN_REDIRECT_HOSTS, IN_URLS, captures=True)


def redirect(text: str) -> Text:
    """Return a path on the same host, or an absolute URL, whose scheme may be that of the request."""
    if text.startswith("/") and not text.startswith("//"):
        if not readers.re.match(r"[A-Za-z0-9._~:/?#@!&'()*+,;=%${}-]{1,2000}\Z", text):
            raise ValueError(f"{quoted(text)} is not a path such as /new")
        return read_text(text, IN_URLS, captures=True)
    scheme = next((scheme for scheme in _SCHEMES if text.startswith(f"{scheme}://")), "")
    if not scheme:
        return _url(text).text
    read = _url(f"https{text.removeprefix(scheme)}").text
    return read_text(scheme, IN_URLS).joined(Text(("://",)), read.without("https://"))


def plain_redirect(text: str) -> Text:
    """Return the same as `redirect`, without captures and variables of a location."""
    read = redirect(text)
    if read.has_captures or not OF_LOCATION.isdisjoint(read.subjects):
        raise ValueError(f"{quoted(text)}: captures and variables of a location may not be used here")
    return read
