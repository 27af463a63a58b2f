"""Upstream blocks: servers, load balancing, connection reuse and session affinity."""

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


NEVER_FAILED: Final = "max_fails=0"


_NONE: Final = "site_none"
_REJECT_NONE: Final = (
    "Chrome/[456]",
    "CPU iPhone OS 12",
    "iPad; CPU OS 12",
    "^(?!.*Chrome)(?=.*Macintosh)(?=.*Intel Mac OS X 10_14)(?=.*Safari)",
)
_KEEPALIVE: Final = {"requests": "1000", "time": "3600s", "timeout": "60s"}
"""Default values of nginx's keepalive directives."""


def upstream(decided: Upstream, settings: Settings) -> Directive:
    """Return an upstream block."""
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
    # nginx marks a failed server as unavailable. While there is a backup, that is harmless. Without one, nginx responds
    # with 502 to everybody once all servers are marked, and one request that fails at every server marks them all.
    options = () if decided.backup or len(decided.servers) == 1 else (NEVER_FAILED,)
    block += [Directive("server", (server, *options)) for server in decided.servers]
    if decided.backup:
        # The backup is the Service's ClusterIP, with all servers behind it: one failure says nothing about the next
        # request.
        block.append(Directive("server", (decided.backup, "backup", NEVER_FAILED)))
    block += _keepalive(decided, settings)
    return Directive("upstream", (decided.name,), tuple(block))


def _keepalive(decided: Upstream, settings: Settings) -> Iterator[Node]:
    if not decided.keepalive:
        return
    yield Directive("keepalive", (str(decided.keepalive),))
    kept = decided.kept
    wanted = {
        "requests": str(settings.upstream_keepalive_requests if kept is None else kept.requests),
        "time": f"{settings.upstream_keepalive_time}s",
        "timeout": f"{settings.upstream_keepalive_timeout if kept is None else kept.timeout_s}s",
    }
    for name, value in wanted.items():
        if value != _KEEPALIVE[name]:
            yield Directive(f"keepalive_{name}", (value,))


def server_upstreams(decided: Upstream, settings: Settings) -> Iterator[Directive]:
    """Yield one upstream for each server of a sticky upstream; the other servers are its backups."""
    for server in decided.servers:
        others = (decided.backup,) if decided.backup else tuple(other for other in decided.servers if other != server)
        block: list[Node] = [Directive("server", (server,))]
        block += [Directive("server", (other, "backup", NEVER_FAILED)) for other in others]
        block += _keepalive(decided, settings)
        yield Directive("upstream", (f"{decided.name}.{mark(server)}",), tuple(block))


def sticky_name(decided: Upstream) -> str:
    """Return the prefix of the variables of an upstream with a persistent cookie."""
    return f"sticky_{mark(decided.name)}"


def sticky_key(sticky: Sticky) -> str:
    """Return the variable with the key of consistent hashing: the cookie's value, or a new one."""
    return f"key_{mark(sticky.cookie)}"


def side(decided: Upstream) -> str:
    """Return the identifier of a Service and its port in a cookie. It keeps a client at the canary or the main backend.

    ingress-nginx writes the same identifier, so its cookies stay valid.
    """
    name = "-".join(decided.name.split(".")[:3])
    inner = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return hashlib.md5(f"{inner}{name}".encode(), usedforsecurity=False).hexdigest()


def sticky_set(decided: Upstream, sticky: Sticky) -> str:
    """Return the variable with the value of the header Set-Cookie; empty if no cookie is needed."""
    if sticky.is_persistent:
        return f"{sticky_name(decided)}_set"
    more = (_NONE,) if sticky.is_none_conditional else ()
    return f"set_{mark(sticky.cookie, sticky.attributes, sticky.path, sticky.is_secure, *more)}"


def sticky_maps(decided: Upstream, sticky: Sticky) -> Iterator[Node]:
    """Yield the maps for a cookie that keeps a client at its server.

    The cookie is `value|side`; see `side`. In mode balanced, the value is the key of consistent hashing; a client
    without cookie gets its request ID as the key and as the value. In mode persistent, the value names a server: `…_to`
    is the upstream of that server, or the upstream of all servers if the value is unknown. In the second case, the
    response sets the cookie to the server that has responded.
    """
    name = sticky_name(decided)
    cookie, key = variable(cookie_value(sticky.cookie)), sticky_key(sticky)
    yield cookie_map(sticky.cookie)
    if sticky.is_none_conditional:
        yield _none_map()
    known = Entry(rf"^(?<{key}_value>[^|]+)", variable(f"{key}_value"), KeyKind.REGEX)
    yield Directive("map", (cookie, f"${key}"), (Entry("default", variable("request_id"), KeyKind.FIXED), known))
    if not sticky.is_persistent:
        value = template("%s|%s", variable("request_id"), variable("sticky_side"))
        new_cookies: tuple[Node, ...] = (
            Entry("default", "", KeyKind.FIXED),
            Entry("^[0-9a-f]+ $", _new_cookie(sticky, value), KeyKind.REGEX),
        )
        source = template("%s %s", variable("sticky_side"), cookie)
        yield Directive("map", (source, f"${sticky_set(decided, sticky)}"), new_cookies)
        return
    chosen: list[Node] = [Entry("default", decided.name, KeyKind.FIXED)]
    chosen += [Entry(mark(server), f"{decided.name}.{mark(server)}") for server in decided.servers]
    yield Directive("map", (variable(key), f"${name}_to"), tuple(chosen))
    answered: list[Node] = [Entry("default", "", KeyKind.FIXED)]
    answered += [
        Entry(f"(?:^|[ ,:]){regex.escape(server)}$", mark(server), KeyKind.REGEX) for server in decided.servers
    ]
    yield Directive("map", (variable("upstream_addr"), f"${name}_by"), tuple(answered))
    new_cookie = _new_cookie(sticky, template("%s|%s", variable(f"{name}_by"), side(decided)))
    new_cookies = (
        Entry("default", new_cookie, KeyKind.FIXED),
        Entry(f"{decided.name} ", ""),
        Entry(f"^{regex.escape(decided.name)}\\.", "", KeyKind.REGEX),
    )
    yield Directive(
        "map", (template("%s %s", variable(f"{name}_to"), variable(f"{name}_by")), f"${name}_set"), new_cookies
    )


def _new_cookie(sticky: Sticky, value: Word) -> Word:
    path: Word = sticky.path or variable("sticky_path")
    secure: Word = variable("sticky_secure") if sticky.is_secure is None else "; Secure" * sticky.is_secure
    none: Word = variable(_NONE) if sticky.is_none_conditional else ""
    return template("%s=%s; Path=%s; %s%s%s", sticky.cookie, value, path, sticky.attributes, none, secure)


def _none_map() -> Directive:
    """Return the map with the attribute SameSite=None; empty for browsers that reject a cookie with it.

    As in ingress-nginx, these are Chrome before version 70 and browsers that use the system of iOS 12 or macOS 10.14.
    """
    entries: list[Node] = [Entry("default", "; SameSite=None", KeyKind.FIXED)]
    entries += [Entry(pattern, "", KeyKind.REGEX) for pattern in _REJECT_NONE]
    return Directive("map", (variable("http_user_agent"), f"${_NONE}"), tuple(entries))


def cookie_value(cookie: str, *, ignores_case: bool = False) -> str:
    """Return the variable with the value of a cookie."""
    return f"any_case_{mark(cookie.lower())}" if ignores_case else f"received_{mark(cookie)}"


def cookie_map(cookie: str, *, ignores_case: bool = False) -> Directive:
    """Return the map that extracts a cookie's value; nginx's `$cookie_…` does not support names with `-`.

    All hosts share the variable of a cookie, with equal maps. nginx reserves memory for each variable in each request,
    and the time to load a configuration grows with the square of their number.

    As in ingress-nginx, the names of cookies of canaries ignore case, and may stand behind a comma and between spaces,
    like nginx's `$cookie_…`. Those of session cookies do not.
    """
    name = cookie_value(cookie, ignores_case=ignores_case)
    capture = f"{name}_value"
    if ignores_case:
        pattern = f"(?:^|[;,])[ ]*{regex.escape(cookie.lower())}[ ]*=[ ]*(?<{capture}>[^;]*)"
    else:
        pattern = f"(?:^|;[ ]*){regex.escape(cookie)}=(?<{capture}>[^;]*)"
    kind = KeyKind.REGEX_ANY_CASE if ignores_case else KeyKind.REGEX
    entries = (Entry("default", "", KeyKind.FIXED), Entry(pattern, variable(capture), kind))
    return Directive("map", (variable("http_cookie"), f"${name}"), entries)
