"""Upstreams: whom nginx passes requests to, and how it picks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.names import mark
from rulegen.backends.nginx.texts import written
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, Word, template, variable
from rulegen.model.ingress.ir import Balance
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.ir import Sticky, Upstream
    from rulegen.model.ingress.values.settings import Settings


UNJUDGED: Final = "max_fails=0"


_KEEPALIVE: Final = {"requests": "1000", "time": "3600s", "timeout": "60s"}
"""What nginx does with idle connections unless it is told otherwise."""


def upstream(decided: Upstream, settings: Settings) -> Directive:
    """Return the block of an upstream."""
    block: list[Node] = []
    match decided.balance:
        case Balance.HASH:
            key = variable(sticky_key(decided.sticky)) if decided.sticky else written(decided.hash_key)
            block.append(Directive("hash", (key, "consistent")))
        case Balance.LEAST_CONNECTIONS:
            block.append(Directive("least_conn"))
        case Balance.BETTER_OF_TWO:
            block.append(Directive("random", ("two", "least_conn")))
        case Balance.CLIENT_ADDRESS:
            block.append(Directive("ip_hash"))
        case Balance.ROUND_ROBIN:
            pass
    # nginx tells a failed server from a live one by itself; where there is a backup, it asks that meanwhile. Else it
    # answers 502 to all once each server has failed: one request that none can answer would do that for everybody.
    trust = () if decided.backup or len(decided.servers) == 1 else (UNJUDGED,)
    block += [Directive("server", (server, *trust)) for server in decided.servers]
    if decided.backup:
        # Behind the Service's own address are all servers: what one request meets there says nothing about the next.
        block.append(Directive("server", (decided.backup, "backup", UNJUDGED)))
    block += _keepalive(decided, settings)
    return Directive("upstream", (decided.name,), tuple(block))


def _keepalive(decided: Upstream, settings: Settings) -> Iterator[Node]:
    if not decided.keepalive:
        return
    yield Directive("keepalive", (str(decided.keepalive),))
    wanted = {
        "requests": str(settings.upstream_keepalive_requests),
        "time": f"{settings.upstream_keepalive_time}s",
        "timeout": f"{settings.upstream_keepalive_timeout}s",
    }
    for name, value in wanted.items():
        if value != _KEEPALIVE[name]:
            yield Directive(f"keepalive_{name}", (value,))


def server_upstreams(decided: Upstream, settings: Settings) -> Iterator[Directive]:
    """Yield an upstream for each server of one whose clients stay with theirs; the others stand in for it."""
    for server in decided.servers:
        others = (decided.backup,) if decided.backup else tuple(other for other in decided.servers if other != server)
        block: list[Node] = [Directive("server", (server,))]
        block += [Directive("server", (other, "backup", UNJUDGED)) for other in others]
        block += _keepalive(decided, settings)
        yield Directive("upstream", (f"{decided.name}.{mark(server)}",), tuple(block))


def sticky_name(decided: Upstream) -> str:
    """Return what the variables of a cookie that names servers start with."""
    return f"sticky_{mark(decided.name)}"


def sticky_key(sticky: Sticky) -> str:
    """Return the variable that holds what a server is chosen by, where a cookie does not name it."""
    return f"key_{mark(sticky.cookie)}"


def side(decided: Upstream) -> str:
    """Return what a cookie names a Service and its port by, so that its client stays at a canary or at the main path.

    It is what ingress-nginx writes, so a client whose cookie is from there stays, too.
    """
    name = "-".join(decided.name.split(".")[:3])
    inner = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return hashlib.md5(f"{inner}{name}".encode(), usedforsecurity=False).hexdigest()


def sticky_set(decided: Upstream, sticky: Sticky) -> str:
    """Return the variable that holds the cookie to set, if any."""
    if sticky.is_persistent:
        return f"{sticky_name(decided)}_set"
    return f"set_{mark(sticky.cookie, sticky.attributes, sticky.path, sticky.is_secure)}"


def sticky_maps(decided: Upstream, sticky: Sticky) -> Iterator[Node]:
    """Yield the maps for a cookie that keeps a client with its server.

    The cookie is `value|side`. Balanced: the key to choose by is the value; a client without one gets this request's id
    for a key, and in its cookie. Persistent: `…_to` is the upstream that the value names, or that of all servers; in
    the latter case the cookie is set to name the server that has answered.
    """
    name = sticky_name(decided)
    cookie, key = variable(cookie_value(sticky.cookie)), sticky_key(sticky)
    yield cookie_map(sticky.cookie)
    known = Entry(rf"^(?<{key}_value>[^|]+)", variable(f"{key}_value"), KeyKind.REGEX)
    yield Directive("map", (cookie, f"${key}"), (Entry("default", variable("request_id"), KeyKind.FIXED), known))
    if not sticky.is_persistent:
        value = template("%s|%s", variable("request_id"), variable("sticky_side"))
        news: tuple[Node, ...] = (
            Entry("default", "", KeyKind.FIXED),
            Entry("^[0-9a-f]+ $", _fresh(sticky, value), KeyKind.REGEX),
        )
        source = template("%s %s", variable("sticky_side"), cookie)
        yield Directive("map", (source, f"${sticky_set(decided, sticky)}"), news)
        return
    chosen: list[Node] = [Entry("default", decided.name, KeyKind.FIXED)]
    chosen += [Entry(mark(server), f"{decided.name}.{mark(server)}") for server in decided.servers]
    yield Directive("map", (variable(key), f"${name}_to"), tuple(chosen))
    answered: list[Node] = [Entry("default", "", KeyKind.FIXED)]
    answered += [
        Entry(f"(?:^|[ ,:]){regex.escape(server)}$", mark(server), KeyKind.REGEX) for server in decided.servers
    ]
    yield Directive("map", (variable("upstream_addr"), f"${name}_by"), tuple(answered))
    fresh = _fresh(sticky, template("%s|%s", variable(f"{name}_by"), side(decided)))
    news = (
        Entry("default", fresh, KeyKind.FIXED),
        Entry(f"{decided.name} ", ""),
        Entry(f"^{regex.escape(decided.name)}\\.", "", KeyKind.REGEX),
    )
    yield Directive("map", (template("%s %s", variable(f"{name}_to"), variable(f"{name}_by")), f"${name}_set"), news)


def _fresh(sticky: Sticky, value: Word) -> Word:
    path: Word = sticky.path or variable("sticky_path")
    secure: Word = variable("sticky_secure") if sticky.is_secure is None else "; Secure" * sticky.is_secure
    return template("%s=%s; Path=%s; %s%s", sticky.cookie, value, path, sticky.attributes, secure)


def cookie_value(cookie: str) -> str:
    """Return the variable that holds a cookie's value."""
    return f"told_{mark(cookie)}"


def cookie_map(cookie: str) -> Directive:
    """Return the map that puts a cookie's value into a variable; `$cookie_…` knows no names with `-` in them.

    All hosts that look at a cookie of this name share the variable, each with the same map: nginx has room in every
    request for each variable that there is, and reads a configuration in a time that grows with their square.
    """
    name = cookie_value(cookie)
    capture = f"{name}_value"
    pattern = f"(?:^|;[ ]*){regex.escape(cookie)}=(?<{capture}>[^;]*)"
    entries = (Entry("default", "", KeyKind.FIXED), Entry(pattern, variable(capture), KeyKind.REGEX))
    return Directive("map", (variable("http_cookie"), f"${name}"), entries)
