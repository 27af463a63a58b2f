"""Changes of sets, servers and addresses, told as items of a plan: for which Service, and whether it is drift."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rulegen.languages.addresses.state import AddressKey
from rulegen.languages.ipset.state import EntryKey, EntryValue, SetKey, SetValue, ip_port, ip_port_ip
from rulegen.languages.ipvs.state import Frontend, RealServer, RealServerKey, VirtualServer, VirtualServerKey
from rulegen.languages.ipvs.text import real_server_words, virtual_server_words
from rulegen.net import join_host_port
from rulegen.plan.fragments import IPSET, IPVS
from rulegen.plan.items import Action, Drift, Item, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.diff import Change
    from rulegen.net import Address, Family
    from rulegen.plan.items import Owners


@dataclass(frozen=True)
class Seen:
    """What the changes of one language are told with.

    Attributes:
        language: Which language.
        family: Which family.
        observed, desired: Our objects of all languages, as they are and as they should be.
        owners: By language, who wants an object.
        served: Tells whose an object is that nobody wants.
    """

    language: str
    family: Family
    observed: Mapping[str, Mapping[Any, Any]]
    desired: Mapping[str, Mapping[Any, Any]]
    owners: Mapping[str, Mapping[Any, str]]
    served: Owners

    @cached_property
    def hairpins(self) -> Mapping[str, RealServerKey]:
        """Real servers that are there, by the entry that lets each of them talk to itself."""
        return {
            ip_port_ip(key.address, key.frontend.protocol, key.port, key.address): key
            for key in self.observed.get(IPVS, ())
            if isinstance(key, RealServerKey)
        }

    @cached_property
    def addresses(self) -> frozenset[Address]:
        """Addresses that virtual servers stand on now."""
        return frozenset(key.frontend.address for key in self.observed.get(IPVS, ()))

    @cached_property
    def cluster_ips(self) -> tuple[str, ...]:
        """The sets of which an entry stands for a virtual server, and stays as long as that does."""
        sets = (key for key in self.desired.get(IPSET, {}) if isinstance(key, SetKey))
        return tuple(key.name for key in sets if key.name.endswith("CLUSTER-IP"))

    @cached_property
    def standing(self) -> frozenset[str]:
        """The virtual servers that are there, as sets of addresses and ports have them."""
        frontends = (key.frontend for key in self.observed.get(IPVS, ()) if isinstance(key, VirtualServerKey))
        return frozenset(ip_port(one.address, one.protocol, one.port) for one in frontends)

    @cached_property
    def left(self) -> Mapping[str, str]:
        """Which Service has left a frontend, by every text that an entry, or an address, can have for it.

        What its real servers are tells that: all of them are endpoints of this Service, and of no other. A text that
        stands for frontends of several Services is not in there.
        """
        by_frontend: dict[Frontend, set[str]] = {}
        for key in self.observed.get(IPVS, ()):
            if isinstance(key, RealServerKey):
                by_frontend.setdefault(key.frontend, set()).add(self.served.server_owner(key))
        by_text: dict[str, set[str]] = {}
        for frontend, owners in by_frontend.items():
            address, port = frontend.address, frontend.port
            for text in (str(frontend), ip_port(address, frontend.protocol, port), str(address), str(port)):
                by_text.setdefault(text, set()).update(owners)
        return {text: next(iter(owners)) for text, owners in by_text.items() if len(owners) == 1}


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
            is_leftover=owner is None or (owner != "" and owner not in seen.served.names),
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
    """Return who wants an object, has what it belongs to, or is reached by it; None for nobody known."""
    owner = seen.owners.get(seen.language, {}).get(key)
    if owner is not None:
        return owner
    if isinstance(key, EntryKey) and key.entry in seen.hairpins:
        key = seen.hairpins[key.entry]
    if isinstance(key, RealServerKey):
        owner = seen.owners.get(IPVS, {}).get(VirtualServerKey(key.frontend))
    return owner or seen.served.key_owner(key, seen.family) or seen.left.get(_frontend_text(key)) or None


def _frontend_text(key: Any) -> str:
    """Return what tells the frontend of an object, as `Seen.left` has it; empty for none."""
    match key:
        case VirtualServerKey() | RealServerKey():
            return str(key.frontend)
        case EntryKey():
            return ",".join(key.entry.split(",")[:2])  # without the source range that may follow
        case AddressKey():
            return str(key.address)
        case _:
            return ""


def _drift(change: Change[Any, Any], seen: Seen) -> Drift | None:
    """Tell what somebody did to the node from what a change of objects asks for, as far as that can be told."""
    key, before, after = change
    there = seen.observed[seen.language]
    if not seen.desired.get(seen.language):
        return None
    match key:
        case SetKey() if before is None:
            return Drift.MISSING if any(isinstance(other, SetKey) for other in there) else None
        case SetKey():
            return Drift.FOREIGN if after is not None and before != after else None
        case EntryKey() if isinstance(before, EntryValue) and isinstance(after, EntryValue):
            return Drift.FOREIGN
        case AddressKey() | EntryKey() | VirtualServerKey() if before is None:
            return Drift.MISSING if _was_there(key, seen) else None
        case RealServerKey() if isinstance(before, RealServer):
            kept = after if isinstance(after, RealServer) else RealServer()
            return None if before.forwarding is kept.forwarding else Drift.FOREIGN
        case _:
            return None


def _was_there(key: Any, seen: Seen) -> bool:
    """Whether what belongs to an object is there still, and no object that changed can have left it so.

    A virtual server, its entry and its address come together and go together: two of them without the third were three.
    """
    sets = seen.observed.get(IPSET, {})
    match key:
        case AddressKey():
            return key.address in seen.addresses
        case VirtualServerKey():
            frontend = key.frontend
            entry = ip_port(frontend.address, frontend.protocol, frontend.port)
            return any(EntryKey(name, entry) in sets for name in seen.cluster_ips)
        case _ if key.name in seen.cluster_ips:
            return key.entry in seen.standing
        case _:
            return False


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
