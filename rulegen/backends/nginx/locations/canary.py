"""Canaries: maps that choose an upstream for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rulegen.backends.nginx.locations.expressions import bounded
from rulegen.backends.nginx.names import header_variable
from rulegen.backends.nginx.upstream import cookie_map, cookie_value, side, sticky_key, sticky_name
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.ir import Canary, Sticky, Upstream


class Cookie(NamedTuple):
    """The cookie by which clients stay with the upstream that they came to once.

    Attributes:
        main: The main upstream.
        sticky: The cookie.
        others: Upstreams of canaries that clients stay with, by name.
    """

    main: Upstream
    sticky: Sticky
    others: Mapping[str, Upstream]

    @property
    def upstreams(self) -> list[Upstream]:
        """All upstreams that clients stay with."""
        return [self.main, *self.others.values()]


def choice(name: str) -> str:
    """Return the variable that holds the chosen upstream of the location `name` stands for."""
    return f"to_{name}"


def address(name: str, cookie: Cookie | None) -> str:
    """Return the variable that holds where requests go: the chosen upstream, or the server that a cookie names."""
    return f"at_{name}" if cookie is not None and cookie.sticky.is_persistent else choice(name)


def chosen_side(name: str) -> str:
    """Return the variable that holds what a balanced cookie names the chosen upstream by; empty if none leads to it."""
    return f"side_{name}"


def chosen_cookie(name: str) -> str:
    """Return the variable that holds the persistent cookie to set, if any."""
    return f"set_{name}"


def canary_maps(name: str, main: str, canaries: Sequence[Canary], cookie: Cookie | None) -> Iterator[Node]:
    """Yield the maps that choose: of several canaries the first that decides, else the main upstream.

    Each canary has a chain of variables from weight over cookie to header, of which each asks the next before it. The
    cookie that keeps a client goes before all of them.
    """
    for number, canary in enumerate(canaries):
        prefix = f"c{number}_{name}"
        decided: Word = "0"
        if canary.share >= 100:
            decided = "1"
        elif canary.share > 0:
            yield _share(f"{prefix}_w", canary.share, _chance(canary, cookie))
            decided = variable(f"{prefix}_w")
        if canary.cookie:
            yield cookie_map(canary.cookie)
            yield _always_never(variable(cookie_value(canary.cookie)), f"{prefix}_c", decided)
            decided = variable(f"{prefix}_c")
        if canary.header:
            yield from _header(canary, prefix, decided)
            decided = variable(f"{prefix}_h")
        yield Directive("map", (template("%s", decided), f"${prefix}"), _then(canary.target))
    decided_by = choice(name) if cookie is None else f"by_{name}"
    yield Directive("map", (_all(name, len(canaries)), f"${decided_by}"), tuple(_firsts(main, canaries)))
    if cookie is not None:
        yield from _keeping(name, decided_by, cookie)


def _chance(canary: Canary, cookie: Cookie | None) -> Word:
    """Return what decides about a share: for a client whose cookie names no side, the same each time."""
    keeps = cookie is not None and not cookie.sticky.is_persistent and canary.target in cookie.others
    return variable(sticky_key(cookie.sticky) if cookie is not None and keeps else "request_id")


def _keeping(name: str, decided_by: str, cookie: Cookie) -> Iterator[Node]:
    """Yield the maps that put the upstream that a cookie names before the one that was chosen, and what names this."""
    kept: list[Node] = [Entry("default", variable(decided_by), KeyKind.FIXED)]
    kept += [Entry(rf"\|{side(known)}$", known.name, KeyKind.REGEX) for known in cookie.upstreams]
    yield cookie_map(cookie.sticky.cookie)
    yield Directive("map", (variable(cookie_value(cookie.sticky.cookie)), f"${choice(name)}"), tuple(kept))
    if not cookie.sticky.is_persistent:
        yield _by_upstream(name, chosen_side(name), {known.name: side(known) for known in cookie.upstreams}, "")
        return
    servers = {known.name: variable(f"{sticky_name(known)}_to") for known in cookie.upstreams}
    yield _by_upstream(name, address(name, cookie), servers, variable(choice(name)))
    cookies = {known.name: variable(f"{sticky_name(known)}_set") for known in cookie.upstreams}
    yield _by_upstream(name, chosen_cookie(name), cookies, "")


def _by_upstream(name: str, made: str, values: Mapping[str, Word], otherwise: Word) -> Directive:
    """Return the map that has a value for each upstream that may be chosen."""
    entries = [Entry("default", otherwise, KeyKind.FIXED), *(Entry(key, value) for key, value in values.items())]
    return Directive("map", (variable(choice(name)), f"${made}"), tuple(entries))


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
