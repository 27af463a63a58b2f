"""Which objects of a node belong to rulegen, by language. Backends use these functions for the languages they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.addresses.state import AddressKey, DeviceKey
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.ipset.script import TEMPORARY
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.ipvs.state import TimeoutsKey
from rulegen.languages.listeners.language import NAME as LISTENERS
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.languages.nftables.state import in_tables, table_key
from rulegen.languages.routes.language import NAME as ROUTES
from rulegen.model.services.node.context import PROXY_TABLE
from rulegen.ownership import ipsets, nftables, virtual_servers

if TYPE_CHECKING:
    from rulegen.languages.addresses.state import Links
    from rulegen.languages.ipvs.state import IpvsState
    from rulegen.languages.listeners.state import ProxyKey, ProxyValue
    from rulegen.languages.nftables.state import NftKey, NftObjects, NftValue
    from rulegen.languages.routes.state import Key, Present
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.net import Address, Family, Network


class OwnershipContext(msgspec.Struct, frozen=True, kw_only=True):
    """Input for the decision which objects of a language belong to rulegen.

    Attributes:
        family: The family; None for objects that belong to no family.
        is_first: Whether this is the first family: objects that belong to no family are counted there.
        node: Node-wide settings; None if everything of rulegen is to be removed.
        state: Complete observed state of this language.
        ours: By language, objects already recognised as those of rulegen, in the order of `ORDER`.
        desired: By language, the desired objects.
        node_addresses: Current and former addresses of this node.
        excluded: Prefixes in which only desired objects belong to rulegen.
        keeps_guard: Whether the rule that protects the loopback prefix must stay: it then counts as another program's.
    """

    family: Family | None
    is_first: bool
    node: ResolvedNode | None
    state: Any
    ours: Mapping[str, Mapping[Any, Any]]
    desired: Mapping[str, Mapping[Any, Any]]
    node_addresses: Collection[Address]
    excluded: Sequence[Network]
    keeps_guard: bool = False


class Ownership(Protocol):
    """Separates the objects of rulegen in one language and family from those of other programs."""

    def ours(self, state: Any) -> Mapping[Any, Any] | None:
        """Return the observed objects of rulegen; None if the language was not observed."""


OwnershipOf = Callable[[OwnershipContext], Ownership]
"""Returns the ownership of one language and family."""


class _Links(msgspec.Struct, frozen=True):
    """The device belongs to rulegen, with each address on it."""

    family: Family | None

    def ours(self, state: Links) -> Mapping[Any, Any]:
        if self.family is None:
            names = (name for name in state.devices if name == virtual_servers.DEVICE)
            return {DeviceKey(name): state.devices[name] for name in names}
        return {
            key: bound
            for key, bound in state.addresses.items()
            if key.family is self.family and key.device == virtual_servers.DEVICE
        }


class _Sets(msgspec.Struct, frozen=True):
    """Sets with the names of rulegen belong to it, with all their entries."""

    names: tuple[str, ...]

    def ours(self, state: Mapping[ipset.Key, ipset.Value]) -> ipset.Objects:
        return ipset.owned_objects(state, self.names)


class _Servers(msgspec.Struct, frozen=True):
    """Virtual servers are recognised by the sets and the device, see `rulegen.ownership.virtual_servers`."""

    context: OwnershipContext

    def ours(self, state: IpvsState) -> Mapping[Any, Any] | None:
        context = self.context
        if context.family is None:
            return {} if state.timeouts is None else {TimeoutsKey(): state.timeouts}
        if state.servers is None:
            return None
        bound = {*context.ours.get(LINKS, ()), *context.desired.get(LINKS, ())}
        return virtual_servers.owned_servers(
            state.servers,
            context.family,
            entries=context.ours.get(IPSET, {}),
            bound={key for key in bound if isinstance(key, AddressKey)},
            wanted=context.desired.get(IPVS, {}),
            node_addresses=context.node_addresses,
            excluded=context.excluded,
        )


class _Routes(msgspec.Struct, frozen=True):
    """Rules by mark that lead to the routing table of the proxy, and local routes in it, belong to rulegen."""

    family: Family | None

    def ours(self, state: Mapping[Key, Present]) -> Mapping[Key, Present]:
        return {key: value for key, value in state.items() if key.family is self.family and key.table == PROXY_TABLE}


class _Proxy(msgspec.Struct, frozen=True):
    """The proxy of rulegen serves nothing else."""

    family: Family | None

    def ours(self, state: Mapping[ProxyKey, ProxyValue]) -> Mapping[ProxyKey, ProxyValue]:
        return {key: value for key, value in state.items() if key.family is self.family}


class _Tables(msgspec.Struct, frozen=True):
    """The tables of both layouts belong to rulegen, with everything in them."""

    context: OwnershipContext

    def ours(self, state: Mapping[NftKey, NftValue]) -> NftObjects:
        context = self.context
        if context.family is None:
            return {}
        objects = in_tables(state, nftables.TABLES)
        if context.keeps_guard:
            guard = nftables.LOOPBACK_GUARD
            is_used = table_key(guard.key.table) in context.desired.get(NFTABLES, {})
            objects = guard.without(objects, keeps_table=is_used)
        is_unknown = context.node is not None and not context.node.service_networks
        return nftables.without_ranges(objects) if is_unknown else objects


def _sets_of(context: OwnershipContext) -> _Sets:
    if context.family is None:
        return _Sets(())
    names = ipsets.names(context.family)
    if context.is_first:  # it belongs to no family, and must be deleted before the first one is written
        names += (TEMPORARY,)
    return _Sets(names)


OWNERSHIP: Final[Mapping[str, OwnershipOf]] = MappingProxyType(
    {
        NFTABLES: _Tables,
        ROUTES: lambda context: _Routes(context.family),
        LISTENERS: lambda context: _Proxy(context.family),
        LINKS: lambda context: _Links(context.family),
        IPSET: _sets_of,
        IPVS: _Servers,
    }
)
"""By language, in the order of recognition: virtual servers are recognised by sets and addresses."""
