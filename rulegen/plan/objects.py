"""Changes of sets, servers and addresses, told as items of a plan: for which Service, and whether it is drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rulegen.languages.ipset.state import EntryKey, EntryValue, SetKey, SetValue
from rulegen.languages.ipvs.state import RealServer, RealServerKey, VirtualServer, VirtualServerKey
from rulegen.languages.ipvs.text import real_server_words, virtual_server_words
from rulegen.languages.links.state import AddressKey
from rulegen.net import join_host_port
from rulegen.plan.items import Action, Drift, Item, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.diff import Change
    from rulegen.net import Family


@dataclass(frozen=True, slots=True)
class Seen:
    """What the changes of one language are told with.

    Attributes:
        language: Which language.
        family: Which family.
        observed, desired: Our objects as they are, and as they should be.
        owners: Who wants an object.
    """

    language: str
    family: Family
    observed: Mapping[Any, Any]
    desired: Mapping[Any, Any]
    owners: Mapping[Any, str]


def items(changes: Iterable[Change[Any, Any]], seen: Seen) -> Iterator[Item]:
    """Yield an item for each change of one language in one family, in the order of the changes."""
    for change in changes:
        key = change.key
        action = Action.ADD if change.before is None else Action.DELETE if change.after is None else Action.CHANGE
        kind, name = _named(key)
        owner = _owner(key, seen)
        yield Item(
            action=action,
            language=seen.language,
            family=seen.family.value,
            kind=kind,
            name=name,
            owner=owner or "",
            is_leftover=owner is None,
            drift=_drift(change, seen),
            lines=tuple(_lines(change)),
            key=key,
        )


def draining_text(key: RealServerKey) -> str:
    """Return a real server that is on its way out, for people."""
    return f"{join_host_port(key.address, key.port)} of {key.frontend}"


def _named(key: Any) -> tuple[str, str]:
    match key:
        case SetKey():
            return "set", key.name
        case EntryKey():
            return "entry", f"{key.name} {key.entry}"
        case VirtualServerKey():
            return "virtual server", str(key.frontend)
        case RealServerKey():
            return "real server", draining_text(key)
        case AddressKey():
            return "address", f"{key} on {key.device}"
        case _:
            raise TypeError(type(key).__name__)


def _owner(key: Any, seen: Seen) -> str | None:
    """Return who wants an object, or has what it belongs to; None for nobody."""
    owner = seen.owners.get(key)
    if owner is None and isinstance(key, RealServerKey):
        return seen.owners.get(VirtualServerKey(key.frontend))
    return owner


def _drift(change: Change[Any, Any], seen: Seen) -> Drift | None:
    """Tell what somebody did to the node from what a change of objects asks for, as far as that can be told."""
    key, before, after = change
    if not seen.observed or not seen.desired:
        return None
    if isinstance(key, SetKey):
        if before is None:
            return Drift.MISSING if any(isinstance(other, SetKey) for other in seen.observed) else None
        return Drift.FOREIGN if after is not None and before != after else None
    if isinstance(before, EntryValue) and isinstance(after, EntryValue):
        return Drift.FOREIGN
    if isinstance(before, RealServer):
        kept = after if isinstance(after, RealServer) else RealServer()
        return None if before.forwarding is kept.forwarding else Drift.FOREIGN
    if isinstance(key, VirtualServerKey) and before is None:
        lone = (isinstance(other, RealServerKey) and other.frontend == key.frontend for other in seen.observed)
        return Drift.MISSING if any(lone) else None
    return None


def _lines(change: Change[Any, Any]) -> Iterator[Line]:
    for sign, value in (("-", change.before), ("+", change.after)):
        if value is not None:
            yield Line(sign, _text(change.key, value))


def _text(key: Any, value: Any) -> str:
    match value:
        case SetValue():
            return value.options
        case EntryValue():
            return f"{key.entry} {value.options}".rstrip()
        case VirtualServer():
            return virtual_server_words(key.frontend, value).split(" ", 2)[2]
        case RealServer():
            words = real_server_words(key.frontend, key.address, key.port, value)
            return words.partition(" -r ")[2].partition(" ")[2]
        case _:
            return str(key)
