"""The endpoints that start or stop getting connections with a change of the tables, by frontend.

A frontend leads to a chain that has its endpoints, or its endpoints are elements of a map with the frontend in the key.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rulegen.diff.items import ItemEndpoint
from rulegen.languages.nftables.expressions import AnonymousMap, Concat, Literal, MapLookup, VerdictCode
from rulegen.languages.nftables.state import ElementValue, NftChain, chain_key
from rulegen.languages.nftables.statements import Dnat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.languages.nftables.state import NftKey, NftValue

    Objects = Mapping[NftKey, NftValue]

_DEEPEST: Final = 2
"""How many chains are followed: that of a port, and with session affinity that of an endpoint."""


def frontend_text(parts: tuple[str, ...]) -> str:
    """Return a frontend as text.

    >>> frontend_text(("fd00::1", "tcp", "80"))
    'TCP [fd00::1]:80'
    >>> frontend_text(("udp", "30053"))
    'UDP *:30053'
    """
    *address, protocol, port = parts
    return f"{protocol.upper()} {_host_port(address[0] if address else '*', port)}"


class MovedEndpoints:
    """Finds the endpoints that change with an object."""

    def __init__(self, ours: Objects, desired: Objects, served: frozenset[str]) -> None:
        """Take our objects in the kernel, the wanted ones, and the names of the maps from frontends to chains."""
        self._before, self._after, self._served = ours, desired, served

    def of(self, change: Change[NftKey, NftValue]) -> tuple[ItemEndpoint, ...]:
        """Return the endpoints that start or stop getting connections; those that other objects show are not included.

        An endpoint that moves to another object of its frontend both stops and starts.
        """
        key, before, after = change
        if key.is_element:
            if len(key.element) < 2:
                return ()
            if key.name in self._served:
                moves = _differences(_behind(self._before, key, before), _behind(self._after, key, after))
                return tuple(_named(moves, frontend_text(key.element)))
            return tuple(self._of_place(key, before, after))
        if isinstance(before, NftChain) and isinstance(after, NftChain) and (key.table, key.name) in self._frontends:
            moves = _differences(
                set(_endpoints(self._before, key.table, before)), set(_endpoints(self._after, key.table, after))
            )
            return tuple(each for text in self._frontends[key.table, key.name] for each in _named(moves, text))
        return ()

    def _of_place(self, key: NftKey, before: NftValue | None, after: NftValue | None) -> Iterator[ItemEndpoint]:
        """Yield those of an element whose key is a frontend and a number: without those that other numbers have."""
        was, is_ = _target(before), _target(after)
        if was == is_:
            return
        frontend = frontend_text(key.element[:-1])
        if is_ and is_ not in self._places_before.get(_pool(key), ()):
            yield ItemEndpoint(is_gained=True, of=frontend, text=is_)
        if was and was not in self._places_after.get(_pool(key), ()):
            yield ItemEndpoint(is_gained=False, of=frontend, text=was)

    @cached_property
    def _places_before(self) -> Mapping[tuple[str, ...], set[str]]:
        return _places(self._before)

    @cached_property
    def _places_after(self) -> Mapping[tuple[str, ...], set[str]]:
        return _places(self._after)

    @cached_property
    def _frontends(self) -> Mapping[tuple[str, str], list[str]]:
        """By table and chain, the frontends that lead to a chain of one port."""
        frontends: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for key, value in self._after.items():
            if key.is_element and key.name in self._served and (chain := _own_chain(value)):
                frontends[key.table, chain].append(frontend_text(key.element))
        return frontends


def _differences(before: set[str], after: set[str]) -> list[tuple[bool, str]]:
    """Return the endpoints that only one of the sets has, each with whether it is gained."""
    return [*((True, text) for text in sorted(after - before)), *((False, text) for text in sorted(before - after))]


def _named(moves: list[tuple[bool, str]], frontend: str) -> Iterator[ItemEndpoint]:
    return (ItemEndpoint(is_gained, frontend, text) for is_gained, text in moves)


def _own_chain(value: NftValue | None) -> str:
    """Return the chain that a frontend leads to, if it belongs to one port; others have a single slash in the name."""
    if isinstance(value, ElementValue) and isinstance(value.data, VerdictCode) and value.data.target.count("/") > 1:
        return value.data.target
    return ""


def _behind(objects: Objects, key: NftKey, value: NftValue | None) -> set[str]:
    """Return the endpoints of the chain that an element leads to."""
    name = _own_chain(value)
    chain = objects.get(chain_key(key.table, name)) if name else None
    return set(_endpoints(objects, key.table, chain)) if isinstance(chain, NftChain) else set()


def _endpoints(objects: Objects, table: str, chain: NftChain, depth: int = _DEEPEST) -> Iterator[str]:
    """Yield the endpoints that a chain sends connections to, by itself or by other chains."""
    for rule in chain.rules:
        for statement in rule.statements:
            match statement:
                case Dnat(MapLookup(_, AnonymousMap(items))):
                    for _, target in items:
                        match target:
                            case Concat((host, port)):
                                yield _host_port(str(host), str(port))
                            case _:
                                continue
                case Dnat(Literal() as host, Literal() as port):
                    yield _host_port(str(host), str(port))
                case _:
                    continue
        for name in rule.targets if depth else ():
            target_chain = objects.get(chain_key(table, name))
            if isinstance(target_chain, NftChain):
                yield from _endpoints(objects, table, target_chain, depth - 1)


def _pool(key: NftKey) -> tuple[str, ...]:
    """Return what the elements of a pool of a frontend have in common: their numbers have the same upper half."""
    *frontend, number = key.element
    return key.table, key.name, *frontend, number[:-4]


def _places(objects: Objects) -> Mapping[tuple[str, ...], set[str]]:
    """Return the endpoints of each pool of each frontend."""
    places: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for key, value in objects.items():
        if key.is_element and (target := _target(value)):
            places[_pool(key)].add(target)
    return places


def _target(value: NftValue | None) -> str:
    """Return the endpoint that an element of a map holds; empty if it holds none."""
    match value:
        case ElementValue((str(host), str(port))):
            return _host_port(host, port)
        case _:
            return ""


def _host_port(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
