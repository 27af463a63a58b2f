"""Cross-origin requests (CORS, Fetch standard): allowed origins and response headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, variable
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.ir import Cors


def origins_map(name: str, cors: Cors) -> Directive:
    """Return the map that sets the variable `name` to the request's origin if it is allowed, else to an empty text."""
    entries: list[Node] = [Entry("default", "", KeyKind.FIXED)]
    for origin in cors.origins:
        pattern = regex.escape(origin).replace(r"\*\.", r"[A-Za-z0-9-]+\.", 1)
        entries.append(Entry(f"^{pattern}$", variable("http_origin"), KeyKind.REGEX_ANY_CASE))
    return Directive("map", (variable("http_origin"), f"${name}"), tuple(entries))


def cors_directives(name: str, cors: Cors) -> Iterator[Node]:
    """Yield the response headers for an allowed origin, and the response to a preflight request.

    Args:
        name: Variable of `origins_map`.
        cors: The settings.
    """
    headers: dict[str, Word] = {
        "cors_origin": "*" if cors.any_origin else variable(name),
        "cors_methods": cors.methods,
        "cors_headers": cors.headers,
        "cors_max_age": str(cors.max_age_s),
        "cors_credentials": "true" if cors.credentials else "",
        "cors_expose": cors.expose,
    }
    yield from (Directive("set", (f"${key}", value)) for key, value in headers.items() if value)
    yield Directive("if", ("(", "$cors_preflight", ")"), (Directive("return", ("204",)),))
