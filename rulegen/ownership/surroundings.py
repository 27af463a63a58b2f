"""Context of an object without an owner in the desired state: its former Service, and the objects that belong to it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from rulegen.languages.addresses.state import AddressKey
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.ipset.state import EntryKey, SetKey, filled, ip_port, ip_port_ip
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.ipvs.state import RealServerKey, VirtualServerKey
from rulegen.ownership import ipsets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.languages.ipvs.state import Frontend
    from rulegen.net import Address, Family
    from rulegen.ownership.served import Served

_CLUSTER_IP_SETS: Final = ipsets.CLUSTER_IP.removeprefix("KUBE-")


class NodeSurroundings:
    """Observed and desired objects of all languages in one family."""

    def __init__(
        self,
        ours: Mapping[str, Mapping[Any, Any]],
        desired: Mapping[str, Mapping[Any, Any]],
        owners: Mapping[str, Mapping[Any, str]],
        served: Served,
    ) -> None:
        """Take the objects; indexes are built when they are first used.

        Args:
            ours: The observed objects by language.
            desired: The desired objects by language.
            owners: By language, the owners that want an object.
            served: The Services that this node serves.
        """
        self._ours, self._desired, self._owners, self._served = ours, desired, owners, served

    @property
    def names(self) -> Collection[str]:
        """`namespace/name` of each Service that this node serves."""
        return self._served.names

    @cached_property
    def filled(self) -> frozenset[str]:
        """Names of the sets that have entries."""
        return filled(self._ours.get(IPSET, ()))

    def rule_owner(self, chain: Any, rule: Any, family: Family) -> str:
        """Return the Service of a rule; empty if unknown."""
        return self._served.rule_owner(chain, rule, family)

    def owner(self, language: str, key: Any, family: Family | None) -> str | None:
        """Return the owner of an object, or of an object that belongs to it or refers to it; None if unknown."""
        owner = self._owners.get(language, {}).get(key)
        if owner is not None or family is None:
            return owner
        if isinstance(key, EntryKey) and key.entry in self._hairpins:
            key = self._hairpins[key.entry]
        if isinstance(key, RealServerKey):
            owner = self._owners.get(IPVS, {}).get(VirtualServerKey(key.frontend))
        return owner or self._served.key_owner(key, family) or self._left.get(_frontend_text(key)) or None

    def was_there(self, language: str, key: Any) -> bool:  # noqa: ARG002 - keys of these languages differ by type
        """Whether objects that belong to this one still exist, and no changed Kubernetes object can be the reason.

        A virtual server, its set entry and its address are created and deleted together: if two of them exist, the
        third was deleted by something else.
        """
        sets = self._ours.get(IPSET, {})
        match key:
            case AddressKey():
                return key.address in self._addresses
            case VirtualServerKey():
                frontend = key.frontend
                entry = ip_port(frontend.address, frontend.protocol, frontend.port)
                return any(EntryKey(name, entry) in sets for name in self._cluster_ip_sets)
            case EntryKey() if key.name in self._cluster_ip_sets:
                return key.entry in self._standing
            case _:
                return False

    @cached_property
    def _hairpins(self) -> Mapping[str, RealServerKey]:
        """Observed real servers, by the set entry that masquerades their connections to themselves."""
        return {
            ip_port_ip(key.address, key.frontend.protocol, key.port, key.address): key
            for key in self._ours.get(IPVS, ())
            if isinstance(key, RealServerKey)
        }

    @cached_property
    def _addresses(self) -> frozenset[Address]:
        """Addresses of the observed virtual servers."""
        return frozenset(key.frontend.address for key in self._ours.get(IPVS, ()))

    @cached_property
    def _cluster_ip_sets(self) -> tuple[str, ...]:
        """Sets whose entries exist as long as their virtual server."""
        sets = (key for key in self._desired.get(IPSET, {}) if isinstance(key, SetKey))
        return tuple(key.name for key in sets if key.name.endswith(_CLUSTER_IP_SETS))

    @cached_property
    def _standing(self) -> frozenset[str]:
        """Observed virtual servers, in the format of set entries."""
        frontends = (key.frontend for key in self._ours.get(IPVS, ()) if isinstance(key, VirtualServerKey))
        return frozenset(ip_port(each.address, each.protocol, each.port) for each in frontends)

    @cached_property
    def _left(self) -> Mapping[str, str]:
        """The Service that left a frontend, by every text that a set entry or address can have for it.

        The real servers show it: all of them are endpoints of this Service only. Texts that match frontends of several
        Services are not included.
        """
        by_frontend: dict[Frontend, set[str]] = {}
        for key in self._ours.get(IPVS, ()):
            if isinstance(key, RealServerKey):
                by_frontend.setdefault(key.frontend, set()).add(self._served.server_owner(key))
        by_text: dict[str, set[str]] = {}
        for frontend, owners in by_frontend.items():
            address, port = frontend.address, frontend.port
            for text in (str(frontend), ip_port(address, frontend.protocol, port), str(address), str(port)):
                by_text.setdefault(text, set()).update(owners)
        return {text: next(iter(owners)) for text, owners in by_text.items() if len(owners) == 1}


def _frontend_text(key: Any) -> str:
    """Return the text that identifies the frontend of an object, as in `NodeSurroundings._left`; empty for none."""
    match key:
        case VirtualServerKey() | RealServerKey():
            return str(key.frontend)
        case EntryKey():
            return ",".join(key.entry.split(",")[:2])  # without a source range at the end
        case AddressKey():
            return str(key.address)
        case _:
            return ""
