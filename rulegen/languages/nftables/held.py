"""The objects in the kernel of a Service that is left out of a plan: they stay, with all that they lead to."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from rulegen.languages.keyed import SharedHolder
from rulegen.languages.nftables.expressions import VerdictCode
from rulegen.languages.nftables.script import references
from rulegen.languages.nftables.state import ElementValue, NftChain, NftKey, chain_key, set_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rulegen.languages.language import FrontendKey
    from rulegen.languages.nftables.state import NftObjects, NftValue


class TablesHolder(SharedHolder):
    """Finds the objects of a Service in the kernel: by what it would want, and by its frontends."""

    def __init__(self, ours: NftObjects, others: Mapping[NftKey, NftValue], frontend_maps: frozenset[str]) -> None:
        """Take our objects in the kernel, the wanted ones of other owners, and the names of the maps of frontends."""
        super().__init__(ours, others)
        self._tables, self._wanted, self._frontend_maps = ours, others, frontend_maps

    def held(self, content: Mapping[NftKey, NftValue], frontends: Collection[FrontendKey]) -> NftObjects | None:
        """Return the objects of a Service in the kernel; None if there are none.

        The Service may have had another shape: what the objects of its frontends lead to stays as well.
        """
        mine: NftObjects = dict(super().held(content, frontends) or {})
        for key in content:
            if key.is_element and key.name in self._frontend_maps:
                for other in self._by_frontend.get((key.table, *key.element), ()):
                    if other not in self._wanted:
                        mine[other] = self._tables[other]
        left = list(mine)
        while left:
            key = left.pop()
            for needed in self._needed(key):
                if needed not in mine and needed in self._tables and needed not in self._wanted:
                    mine[needed] = self._tables[needed]
                    left.append(needed)
        return mine or None

    @cached_property
    def _by_frontend(self) -> Mapping[tuple[str, ...], list[NftKey]]:
        """The elements whose keys begin with a frontend, which has the address, if any, before protocol and port."""
        elements: dict[tuple[str, ...], list[NftKey]] = {}
        for key in self._tables:
            if key.is_element:
                for length in (2, 3):
                    elements.setdefault((key.table, *key.element[:length]), []).append(key)
        return elements

    def _needed(self, key: NftKey) -> Iterator[NftKey]:
        """Yield what an object refers to: the chain of a verdict; of a chain, other chains and sets."""
        value = self._tables[key]
        if key.is_element:
            yield set_key(key.table, key.name)
        if isinstance(value, ElementValue) and isinstance(value.data, VerdictCode) and value.data.target:
            yield chain_key(key.table, value.data.target)
        if isinstance(value, NftChain):
            yield from (set_key(key.table, name) for name in references(value))
            yield from (chain_key(key.table, target) for rule in value.rules for target in rule.targets)
