"""Spare backends of HAProxy: a new pool takes one of its kind at run time, so that a new Service needs no reload.

A kind is a family and an affinity. A map of HAProxy says which pool a spare backend serves, and which backends serve
none any more; HAProxy itself uses no entry of it. A fresh configuration has a backend for each pool, and all spare ones
are free.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.errors import RulegenError
from rulegen.languages.listeners.state import ProxyListener, ServerPool, family_of_pool, short
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.listeners.state import ProxyKey, ProxyValue

POOLS_FILE: Final = "pools.map"
NO_POOL: Final = "-"
"""The value of a backend that was in use and serves no pool now; it is not used again before a reload."""
BACKEND: Final = re.compile(r"(?P<pool>[a-z0-9.-]+\.v[46])(?:\.a(?P<affinity>[0-9]{1,6}))?")
_SPARE: Final = re.compile(r"spare[0-9]{1,4}\.v[46]")
_FEWEST: Final = 2
_WITHOUT_AFFINITY: Final = 16
_SHARE: Final = 4
"""There is a spare backend for each four pools of a kind. With less than a quarter of them free, HAProxy reloads."""
_MOST: Final = 128
"""The most spare backends of a kind: each costs HAProxy 15 KB."""
_USUAL_S: Final = 10_800
"""The affinity of a Service that names no time."""


class UnexpectedReportError(RulegenError):
    """HAProxy reports an object that rulegen never writes."""


def backend_name(pool: str, value: ServerPool) -> str:
    """Return the name of a pool's backend.

    >>> backend_name("demo.web.http.v4", ServerPool(10_800))
    'demo.web.http.v4.a10800'
    """
    return pool if value.affinity_s is None else f"{pool}.a{value.affinity_s}"


def spares_of(objects: Mapping[ProxyKey, ProxyValue]) -> Iterator[tuple[Family, ServerPool, str]]:
    """Yield the spare backends of a fresh configuration: family, affinity and name."""
    pools = [(key.family, value) for key, value in objects.items() if isinstance(value, ServerPool)]
    uses = Counter(pools)
    families = {key.family for key, value in objects.items() if isinstance(value, ProxyListener)}
    for family in (family for family in Family if family in families):
        usual = {ServerPool(None): _WITHOUT_AFFINITY, ServerPool(_USUAL_S): _FEWEST}
        kinds = {value for known, value in pools if known is family} | usual.keys()
        for value in sorted(kinds, key=lambda value: value.affinity_s or 0):
            for number in range(max(usual.get(value, _FEWEST), min(uses[family, value] // _SHARE, _MOST))):
                yield family, value, backend_name(f"spare{number}.{short(family)}", value)


@dataclass(slots=True)
class Placement:
    """Which backends of a running HAProxy serve which pools.

    Attributes:
        backends: The backend of each pool.
        free: The free spare backends of each kind.
        spares: The number of spare backends of each kind, free or not.
    """

    backends: dict[str, str] = field(default_factory=dict)
    free: dict[tuple[Family, ServerPool], list[str]] = field(default_factory=dict)
    spares: Counter[tuple[Family, ServerPool]] = field(default_factory=Counter)

    def take(self, family: Family, pool: str, value: ServerPool) -> str:
        """Return a spare backend, which serves a pool from now on; empty if none is free."""
        free = self.free.get((family, value))
        if not free:
            return ""
        self.backends[pool] = free.pop(0)
        return self.backends[pool]

    @property
    def is_low(self) -> bool:
        """Whether less than a quarter of the spare backends of some kind is free."""
        return any(len(self.free.get(kind, ())) * _SHARE < count for kind, count in self.spares.items())


def is_spare(pool: str) -> bool:
    """Whether a backend is a spare one, by its name without affinity; names of pools have more dots."""
    return bool(_SPARE.fullmatch(pool))


def placement_of(backends: Iterator[str], pools: Mapping[str, str]) -> Placement:
    """Return which of these backends serve which pools.

    Args:
        backends: The names of all backends.
        pools: The entries of the map of pools.

    Raises:
        UnexpectedReportError: A name is none of ours.
    """
    placement = Placement()
    for name in backends:
        match = BACKEND.fullmatch(name)
        if match is None:
            raise UnexpectedReportError(f"HAProxy reports a backend in an unknown format: {name[:80]!a}")
        kind = family_of_pool(match["pool"]), ServerPool(int(match["affinity"]) if match["affinity"] else None)
        pool = pools.get(name, NO_POOL if is_spare(match["pool"]) else match["pool"])
        if is_spare(match["pool"]):
            placement.spares[kind] += 1
            if name not in pools:
                placement.free.setdefault(kind, []).append(name)
        if pool != NO_POOL:
            placement.backends[pool] = name
    return placement


def read_pools(report: str) -> dict[str, str]:
    """Return the entries of the map of pools from `show map`; none if HAProxy has no such map.

    Raises:
        UnexpectedReportError: A line is none of ours.
    """
    entries = {}
    for row in report.split("\n"):
        if not row or row.startswith(("#", "Unknown map")):
            continue
        words = row.split(" ")
        is_known = len(words) == 3 and bool(BACKEND.fullmatch(words[1]))
        if not is_known or not (words[2] == NO_POOL or BACKEND.fullmatch(words[2])):
            raise UnexpectedReportError(f"HAProxy reports a map entry in an unknown format: {row[:80]!a}")
        entries[words[1]] = words[2]
    return entries
