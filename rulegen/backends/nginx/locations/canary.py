"""Canaries: maps that choose the upstream of each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rulegen.backends.nginx.locations.expressions import bounded
from rulegen.backends.nginx.locations.targets import written_target
from rulegen.backends.nginx.names import header_variable
from rulegen.backends.nginx.upstream import cookie_map, cookie_value, side, sticky_key, sticky_name
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.ir import Canary, Sticky, Upstream


class Cookie(NamedTuple):
    """A cookie that keeps clients at the upstream that served their first request.

    Attributes:
        main: The main upstream.
        sticky: The cookie.
        others: Upstreams of those canaries that the cookie applies to, by name.
    """

    main: Upstream
    sticky: Sticky
    others: Mapping[str, Upstream]

    @property
    def upstreams(self) -> list[Upstream]:
        """All upstreams that the cookie applies to."""
        return [self.main, *self.others.values()]


def choice(name: str) -> str:
    """Return the variable with the chosen upstream of a location."""
    return f"to_{name}"


def address(name: str, cookie: Cookie | None) -> str:
    """Return the variable for `proxy_pass`: the chosen upstream, or that of the server in the cookie."""
    return f"at_{name}" if cookie is not None and cookie.sticky.is_persistent else choice(name)


def chosen_side(name: str) -> str:
    """Return the variable with the identifier of the chosen upstream in a balanced cookie; empty without affinity."""
    return f"side_{name}"


def chosen_cookie(name: str) -> str:
    """Return the variable with the persistent cookie to set; empty if none."""
    return f"set_{name}"


def canary_maps(name: str, main: str, canaries: Sequence[Canary], cookie: Cookie | None) -> Iterator[Node]:
    """Yield the maps that choose an upstream: the first canary that applies, else the main upstream.

    A canary is decided by its header, else by its cookie, else by its weight: one variable for each, with the next one
    as its default. A session cookie has priority over all canaries.

    Args:
        name: Identifier of the location.
        main: The main target as written; see `written_target`.
        canaries: The canaries, in order of priority.
        cookie: The session cookie; None without session affinity.
    """
    for number, canary in enumerate(canaries):
        prefix = f"c{number}_{name}"
        decided: Word = "0"
        if canary.share >= 100:
            decided = "1"
        elif canary.share > 0:
            yield _weighted(f"{prefix}_w", canary.share, _random_value(canary, cookie))
            decided = variable(f"{prefix}_w")
        if canary.cookie:
            yield cookie_map(canary.cookie, ignores_case=True)
            received = variable(cookie_value(canary.cookie, ignores_case=True))
            yield _always_never(received, f"{prefix}_c", decided)
            decided = variable(f"{prefix}_c")
        if canary.header:
            yield from _header(canary, prefix, decided)
            decided = variable(f"{prefix}_h")
        yield Directive("map", (template("%s", decided), f"${prefix}"), _target_entries(written_target(canary.target)))
    decided_by = choice(name) if cookie is None else f"by_{name}"
    yield Directive("map", (_joined(name, len(canaries)), f"${decided_by}"), tuple(_choice_entries(main, canaries)))
    if cookie is not None:
        yield from _session_maps(name, decided_by, cookie)


def _random_value(canary: Canary, cookie: Cookie | None) -> Word:
    """Return the random value of a weight; a client with a session cookie keeps its value."""
    is_balanced = cookie is not None and not cookie.sticky.is_persistent
    keeps = is_balanced and cookie is not None and written_target(canary.target) in cookie.others
    return variable(sticky_key(cookie.sticky) if cookie is not None and keeps else "request_id")


def _session_maps(name: str, decided_by: str, cookie: Cookie) -> Iterator[Node]:
    """Yield the maps that prefer the upstream in the session cookie, and those that set the cookie."""
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
    """Return the map from the chosen upstream to a value."""
    entries = [Entry("default", otherwise, KeyKind.FIXED), *(Entry(key, value) for key, value in values.items())]
    return Directive("map", (variable(choice(name)), f"${made}"), tuple(entries))


def _target_entries(target: str) -> tuple[Node, ...]:
    return Entry("default", "", KeyKind.FIXED), Entry("1", target)


def _joined(name: str, count: int) -> Word:
    return template("|".join(["%s"] * count), *(variable(f"c{number}_{name}") for number in range(count)))


def _choice_entries(main: str, canaries: Sequence[Canary]) -> Iterator[Node]:
    yield Entry("default", main, KeyKind.FIXED)
    for number, canary in enumerate(canaries):
        before, target = r"\|" * number, written_target(canary.target)
        yield Entry(f"^{before}{regex.escape(target)}(?:\\||$)", target, KeyKind.REGEX)


def _weighted(name: str, share: float, source: Word) -> Directive:
    """Return the random choice for a weight between 0 % and 100 %, in hundredths of a percent."""
    entries = (Entry(f"{min(max(share, 0.01), 99.99):.2f}%", "1", KeyKind.FIXED), Entry("*", "0", KeyKind.FIXED))
    return Directive("split_clients", (template("%s%s", name, source), f"${name}"), entries)


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
        unread = (Entry("default", "0", KeyKind.FIXED), Entry("", otherwise))
        yield Directive("map", (source, f"${prefix}_h"), unread)
        return
    if canary.header_value:
        pattern = f"^{regex.escape(canary.header_value)}$"
    elif canary.header_pattern:
        pattern = bounded(canary.header_pattern)
    else:
        yield _always_never(source, f"{prefix}_h", otherwise)
        return
    # Without the header, an expression that matches an empty text does not apply.
    absent = Entry("", otherwise)
    entries = (Entry("default", otherwise, KeyKind.FIXED), absent, Entry(pattern, "1", KeyKind.REGEX))
    yield Directive("map", (source, f"${prefix}_h"), entries)
