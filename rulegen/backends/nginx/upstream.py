"""Upstreams: whom nginx passes requests to, and how it picks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.names import mark
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, Word, template, variable
from rulegen.model.ingress import regex
from rulegen.model.ingress.ir import Balance
from rulegen.model.ingress.values import split_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.ir import Sticky, Upstream


SOON: Final = "fail_timeout=2s"


def interpolated(text: str) -> Word:
    """Return a checked text in which variables stand by name as a value."""
    parts: list[Word] = []
    for literal, name in split_variables(text):
        parts.append(literal)
        if name:
            parts.append(variable(name.lower()))
    return template("%s" * len(parts), *parts)


def upstream(told: Upstream) -> Directive:
    """Return the block of an upstream."""
    block: list[Node] = []
    match told.balance:
        case Balance.HASH:
            key = variable(sticky_key(told.host, told.sticky)) if told.sticky else interpolated(told.hash_key)
            block.append(Directive("hash", (key, "consistent")))
        case Balance.LEAST_CONN:
            block.append(Directive("least_conn"))
        case Balance.RANDOM_TWO:
            block.append(Directive("random", ("two", "least_conn")))
        case Balance.IP_HASH:
            block.append(Directive("ip_hash"))
        case Balance.ROUND_ROBIN:
            pass
    # nginx tells a failed server from a live one by itself. Where there is a backup, that is asked meanwhile, and is
    # itself soon asked again; where there is none, all of them are, or an outage of a second would last for ten.
    alone = len(told.servers) == 1
    trust = () if told.backup or alone else (SOON,)
    block += [Directive("server", (server, *trust)) for server in told.servers]
    if told.backup:
        block.append(Directive("server", (told.backup, "backup", SOON)))
    if told.keepalive:
        block.append(Directive("keepalive", (str(told.keepalive),)))
    return Directive("upstream", (told.name,), tuple(block))


def sticky_key(host: str, sticky: Sticky) -> str:
    """Return the name of the variable with the key of a client."""
    return f"sticky_{mark(host, sticky.cookie)}"


def sticky_maps(host: str, sticky: Sticky) -> Iterator[Node]:
    """Yield the maps for a cookie that keeps a client with its server.

    The key is the cookie's value; a client without one gets this request's id for a key, and as its cookie.
    """
    key = sticky_key(host, sticky)
    yield cookie_map(f"{key}_told", sticky.cookie)
    yield Directive(
        "map",
        (variable(f"{key}_told"), f"${key}"),
        (Entry("default", variable(f"{key}_told"), KeyKind.FIXED), Entry("", variable("request_id"))),
    )
    yield Directive(
        "map",
        (variable(f"{key}_told"), f"${key}_set"),
        (
            Entry("default", "", KeyKind.FIXED),
            Entry("", template("%s=$request_id; %s", sticky.cookie, sticky.attributes)),
        ),
    )


def cookie_map(name: str, cookie: str) -> Directive:
    """Return the map that puts a cookie's value into a variable; `$cookie_…` knows no names with `-` in them."""
    capture = f"{name}_value"
    pattern = f"(?:^|;[ ]*){regex.escape(cookie)}=(?<{capture}>[^;]*)"
    entries = (Entry("default", "", KeyKind.FIXED), Entry(pattern, variable(capture), KeyKind.REGEX))
    return Directive("map", (variable("http_cookie"), f"${name}"), entries)
