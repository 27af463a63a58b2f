"""The redirect to a sign-in page, with a parameter that contains the URL to return to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.redirects import IN_REDIRECT_HOSTS
from rulegen.model.ingress.values.readers import quoted
from rulegen.model.ingress.values.texts import IN_URLS, NO_TEXT, Reference, Subject, text_of

if TYPE_CHECKING:
    from rulegen.model.ingress.values.readers import Url
    from rulegen.model.ingress.values.texts import Part, Text

_ESCAPED: Final = frozenset({Subject.ESCAPED_REQUEST_URI, Subject.ESCAPED_URL})
_UNESCAPED: Final = frozenset({Subject.PATH, Subject.RAW_PATH, Subject.QUERY, Subject.QUERY_MARK})
_HERE: Final = "https://$http_host"
_read: Final = readers.url(IN_REDIRECT_HOSTS, IN_URLS | {Subject.ESCAPED_REQUEST_URI})


def signin_url(text: str) -> Url:
    """Return the URL of a sign-in page; it may contain the client's URL at most once, and in the query only escaped.

    A path is a page of the client's host. Without escaping, a client could add parameters of its choice. Other parts of
    its URL are therefore not allowed in the query.
    """
    url = _here(text) if text.startswith("/") and not text.startswith("//") else _read(text)
    rest = _escaping(url.rest)
    if sum(isinstance(part, Reference) and part.subject in _ESCAPED for part in rest.parts) > 1:
        raise ValueError(f"{quoted(text)}: it may contain the URL of the request only once")
    return url._replace(rest=rest)


def _here(path: str) -> Url:
    """Return the URL of a path on the client's host, with the scheme of the request."""
    try:
        return _read(f"{_HERE}{path}")._replace(scheme="")
    except ValueError as error:
        raise ValueError(str(error).replace(_HERE, "", 1)) from None


def _escaping(rest: Text) -> Text:
    parts: list[Part] = []
    is_query = False
    for part in rest.parts:
        if is_query and part == Reference(Subject.REQUEST_URI):
            parts.append(Reference(Subject.ESCAPED_REQUEST_URI))
        elif is_query and isinstance(part, Reference) and part.subject in _UNESCAPED:
            raise ValueError("the query may contain a part of the request's URL only as $escaped_request_uri")
        else:
            parts.append(part)
        is_query = is_query or (isinstance(part, str) and "?" in part)
    return text_of(parts)


def with_way_back(url: Url, parameter: str) -> Text:
    """Return the URL with a parameter for the client's URL, unless it has this parameter or that URL already."""
    if any(isinstance(part, Reference) and part.subject in _ESCAPED for part in url.rest.parts):
        return url.text
    rest, fragment = _without_fragment(url.rest)
    literals = "".join(part if isinstance(part, str) else "x" for part in rest.parts)
    if any(word.partition("=")[0] == parameter for word in literals.partition("?")[2].split("&")):
        return url.text
    sign = "&" if "?" in literals else "?"
    address = url._replace(rest=rest).text
    return text_of([*address.parts, f"{sign}{parameter}=", Reference(Subject.ESCAPED_URL), *fragment.parts])


def _without_fragment(rest: Text) -> tuple[Text, Text]:
    """Return the text before the fragment, and the fragment."""
    for number, part in enumerate(rest.parts):
        if isinstance(part, str) and "#" in part:
            before, sign, fragment = part.partition("#")
            return text_of([*rest.parts[:number], before]), text_of([sign + fragment, *rest.parts[number + 1 :]])
    return rest, NO_TEXT
