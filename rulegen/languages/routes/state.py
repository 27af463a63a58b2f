"""Policy routing rules and local routes as objects with keys, and their text for `ip`.

A rule sends packets with a mark to a routing table. A local route in that table delivers all packets to this host,
whatever their destination address. Source: ip-rule(8), ip-route(8).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.errors import InputError
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterable


class MarkRuleKey(NamedTuple):
    """The key of a rule: packets with all bits of `mark` use a routing table.

    Attributes:
        priority: Rules apply in ascending order; 32766 is the main table.
    """

    family: Family
    table: int
    priority: int
    mark: int

    def __str__(self) -> str:
        mark = f"fwmark {self.mark:#x}/{self.mark:#x}"
        return f"from {_ANYWHERE[self.family]} {mark} lookup {self.table} priority {self.priority}"


class LocalRouteKey(NamedTuple):
    """The key of a route that delivers every packet to this host."""

    family: Family
    table: int

    def __str__(self) -> str:
        return f"local {_ANYWHERE[self.family]} dev lo table {self.table}"


class Present(msgspec.Struct, frozen=True):
    """The value of a rule or route that exists."""


PRESENT = Present()
Key = MarkRuleKey | LocalRouteKey
Objects = dict[Key, Present]

_NOUNS = {MarkRuleKey: "rule", LocalRouteKey: "route"}
_ANYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
_OPTIONS = {Family.IPV4: "-4", Family.IPV6: "-6"}
_FAMILIES = {text: family for family, text in _ANYWHERE.items()}
_LINE = re.compile(
    r"(?:-[46] )?(?:rule add from (?P<rule>0\.0\.0\.0/0|::/0) fwmark (?P<mark>0x[0-9a-f]{1,8})/(?P=mark)"
    r" lookup (?P<of>[0-9]{1,9}) priority (?P<priority>[0-9]{1,9})"
    r"|route add local (?P<route>0\.0\.0\.0/0|::/0) dev lo table (?P<table>[0-9]{1,9}))"
)


def line(key: Key, verb: str = "add") -> str:
    """Return a command on one line, without the line break.

    >>> line(LocalRouteKey(Family.IPV6, 7), "del")
    'route del local ::/0 dev lo table 7'
    """
    return f"{_NOUNS[type(key)]} {verb} {key}"


def is_dump(text: str) -> bool:
    """Whether a text is that of `format_routes`."""
    return _LINE.match(text) is not None


def read(text: str, source: str) -> Objects:
    """Return the rules and routes that `format_routes` has written.

    Raises:
        InputError: A line has another format; the message has its number.
    """
    objects: Objects = {}
    for number, each in enumerate(text.split("\n"), start=1):
        if not each:
            continue
        match = _LINE.fullmatch(each)
        if match is None:
            raise InputError(source, f"line {number}: not a rule or route of rulegen: {each[:80]!r}")
        if match["rule"]:
            family = _FAMILIES[match["rule"]]
            objects[MarkRuleKey(family, int(match["of"]), int(match["priority"]), int(match["mark"], 16))] = PRESENT
        else:
            objects[LocalRouteKey(_FAMILIES[match["route"]], int(match["table"]))] = PRESENT
    return objects


def format_routes(keys: Iterable[Key]) -> str:
    """Return the arguments of `ip` that add rules and routes, one command on each line; routes come first.

    `xargs -L 1 ip` runs them. `ip -batch` does not: it has one family for all lines, and takes a rule for IPv4.
    """
    ordered = sorted(keys, key=lambda key: (isinstance(key, MarkRuleKey), key))
    return "".join(f"{_OPTIONS[key.family]} {line(key)}\n" for key in ordered)
