"""Canaries: maps that choose an upstream for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.nginx.locations.expressions import bounded
from rulegen.backends.nginx.names import header_variable
from rulegen.backends.nginx.upstream import cookie_map, cookie_value
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.ir import Canary


def choice(name: str) -> str:
    """Return the variable that holds the chosen upstream of the location `name` stands for."""
    return f"to_{name}"


def canary_maps(name: str, main: str, canaries: Sequence[Canary], chance: Word) -> Iterator[Node]:
    """Yield the maps that choose: of several canaries the first that decides, else the main upstream.

    A share is taken of all values of `chance`.

    Each canary has a chain of variables from weight over cookie to header, of which each asks the next before it.
    """
    for number, canary in enumerate(canaries):
        prefix = f"c{number}_{name}"
        decided: Word = "0"
        if canary.share >= 100:
            decided = "1"
        elif canary.share > 0:
            yield _share(f"{prefix}_w", canary.share, chance)
            decided = variable(f"{prefix}_w")
        if canary.cookie:
            yield cookie_map(canary.cookie)
            yield _always_never(variable(cookie_value(canary.cookie)), f"{prefix}_c", decided)
            decided = variable(f"{prefix}_c")
        if canary.header:
            yield from _header(canary, prefix, decided)
            decided = variable(f"{prefix}_h")
        yield Directive("map", (template("%s", decided), f"${prefix}"), _then(canary.target))
    yield Directive("map", (_all(name, len(canaries)), f"${choice(name)}"), tuple(_firsts(main, canaries)))


def _then(target: str) -> tuple[Node, ...]:
    return Entry("default", "", KeyKind.FIXED), Entry("1", target)


def _all(name: str, count: int) -> Word:
    return template("|".join(["%s"] * count), *(variable(f"c{number}_{name}") for number in range(count)))


def _firsts(main: str, canaries: Sequence[Canary]) -> Iterator[Node]:
    yield Entry("default", main, KeyKind.FIXED)
    for number, canary in enumerate(canaries):
        before = r"\|" * number
        yield Entry(f"^{before}{regex.escape(canary.target)}(?:\\||$)", canary.target, KeyKind.REGEX)


def _share(name: str, share: float, chance: Word) -> Directive:
    """Return what decides by chance: nginx counts hundredths of a percent, and a share is neither none nor all."""
    entries = (Entry(f"{min(max(share, 0.01), 99.99):.2f}%", "1", KeyKind.FIXED), Entry("*", "0", KeyKind.FIXED))
    return Directive("split_clients", (template("%s%s", name, chance), f"${name}"), entries)


def _always_never(source: Word, name: str, otherwise: Word) -> Directive:
    entries = (
        Entry("default", otherwise, KeyKind.FIXED),
        Entry("^always$", "1", KeyKind.REGEX),
        Entry("^never$", "0", KeyKind.REGEX),
    )
    return Directive("map", (source, f"${name}"), entries)


def _header(canary: Canary, prefix: str, otherwise: Word) -> Iterator[Node]:
    source = variable(header_variable(canary.header))
    if canary.is_header_unreadable:
        entries = (Entry("default", "0", KeyKind.FIXED), Entry("", otherwise))
        yield Directive("map", (source, f"${prefix}_h"), entries)
        return
    if canary.header_value:
        pattern = f"^{regex.escape(canary.header_value)}$"
    elif canary.header_pattern:
        pattern = bounded(canary.header_pattern)
    else:
        yield _always_never(source, f"{prefix}_h", otherwise)
        return
    entries = (Entry("default", otherwise, KeyKind.FIXED), Entry(pattern, "1", KeyKind.REGEX))
    yield Directive("map", (source, f"${prefix}_h"), entries)
