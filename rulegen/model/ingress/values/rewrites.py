"""Readers of what is replaced in the answers of backends: redirects, and domains and paths of cookies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.readers import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = frozenset({"off", "default"})
"""Values with which nothing is replaced."""


def pair(reader: Callable[[str], str]) -> Callable[[str], tuple[str, str] | None]:
    """Return the reader of a text and its replacement; None if nothing is replaced."""

    def read(text: str) -> tuple[str, str] | None:
        if text in NOTHING:
            return None
        parts = text.split()
        if len(parts) != 2:
            raise ValueError(f'{quoted(text)} is neither "off" nor two words (text and its replacement)')
        return reader(parts[0]), reader(parts[1])

    return read


def redirect_part(text: str) -> str:
    """Return the beginning of a redirect, or what replaces it."""
    if text in NOTHING:
        return text
    if text.startswith("/"):
        return readers.cookie_path(text)
    # A URL is also accepted without its scheme.
    readers.url()(text if "://" in text else f"http://{text}")
    return text


def redirect_rewrite(before: str | None, after: str | None) -> tuple[str, str] | None:
    """Return what is replaced in redirects, and by what; None for nothing.

    nginx's own default would replace the upstream's address, which no backend knows.
    """
    if not before or before in NOTHING or not after or after in NOTHING:
        return None
    return before, after
