"""Which objects of a node are ours, by language: what a backend's row takes for the languages that modes share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.addresses.state import AddressKey, DeviceKey
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.ipset.script import TEMPORARY
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.ipvs.state import TimeoutsKey
from rulegen.ownership import ipsets, virtual_servers

if TYPE_CHECKING:
    from rulegen.languages.addresses.state import Links
    from rulegen.languages.ipvs.state import IpvsState
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.net import Address, Family, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipContext:
    """What decides which objects of a language are ours.

    Attributes:
        family: Which; None for what belongs to no family.
        is_first: Whether it is the first family: what is neither's counts as its.
        node: What holds for all Services; None where all that is ours goes.
        state: All that the kernel has in this language.
        ours: By language, what was found to be ours already, in the order of `ORDER`.
        desired: By language, what is wanted.
        node_addresses: Addresses that this node has or has had.
        excluded: Prefixes in which nothing is ours that is not wanted.
        keeps_guard: Whether the rule that guards the loopback prefix must stay: it then counts as others'.
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
    """Tells our objects of one language and family from others'."""

    def ours(self, state: Any) -> Mapping[Any, Any] | None:
        """Return our objects as they are; None where nobody looked."""


OwnershipOf = Callable[[OwnershipContext], Ownership]
"""Returns the ownership of one language, for a family."""


@dataclass(frozen=True, slots=True)
class _Links:
    """The device is ours, and each address on it."""

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


@dataclass(frozen=True, slots=True)
class _Sets:
    """Sets of our names are ours, and each entry of them."""

    names: tuple[str, ...]

    def ours(self, state: Mapping[ipset.Key, ipset.Value]) -> ipset.Objects:
        return ipset.owned_objects(state, self.names)


@dataclass(frozen=True, slots=True)
class _Servers:
    """Virtual servers are ours by what our sets and our device have, see `rulegen.ownership.virtual_servers`."""

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


def _sets_of(context: OwnershipContext) -> _Sets:
    if context.family is None:
        return _Sets(())
    names = ipsets.names(context.family)
    if context.is_first:  # it is neither's, and must be gone before the first is written
        names += (TEMPORARY,)
    return _Sets(names)


OWNERSHIP: Final[Mapping[str, OwnershipOf]] = MappingProxyType(
    {
        LINKS: lambda context: _Links(context.family),
        IPSET: _sets_of,
        IPVS: _Servers,
    }
)
"""By language, in the order in which what is ours is found: of virtual servers the sets and addresses tell."""
