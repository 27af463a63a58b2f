"""Finds the rules of one Service in the kernel: its chains, the chains they jump to, and the rules that lead there."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from rulegen.languages.iptables.frontends import frontend_of
from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.languages.iptables.state import (
    Block,
    BlockKey,
    BlockValue,
    ChainKey,
    ChainValue,
    Kind,
    Layout,
    Objects,
    RulesFragment,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.language import FrontendKey


class RulesHolder:
    """Finds rules of one family in the kernel that belong to Services which are left out of a plan."""

    def __init__(self, ours: Objects, layout: Layout, others: Mapping[Any, Any]) -> None:
        """Take our objects in the kernel, what decides which are ours, and the wanted objects of other owners."""
        self._there = ours
        self._of_others = set(others) | {ChainKey(name) for name in layout.chains}
        self._by_target: defaultdict[ChainName, list[BlockKey]] = defaultdict(list)
        self._before: defaultdict[ChainName, list[ChainName]] = defaultdict(list)
        self._by_frontend: defaultdict[FrontendKey, list[BlockKey]] = defaultdict(list)
        for key, value in self._there.items():
            if key in self._of_others:
                continue
            if isinstance(key, BlockKey) and isinstance(value, BlockValue):
                if layout.kind(key.name) is Kind.DISPATCH:
                    self._index(key, value)
            elif isinstance(key, ChainKey) and isinstance(value, ChainValue):
                for rule in value.rules:
                    self._before[ChainName(key.name.table, target(rule))].append(key.name)

    def _index(self, key: BlockKey, value: BlockValue) -> None:
        for rule in value.copies[0]:
            goes_to = ChainName(key.name.table, target(rule))
            if ChainKey(goes_to) in self._there:
                self._by_target[goes_to].append(key)
            elif (frontend := frontend_of(rule.spec)) is not None:
                self._by_frontend[frontend].append(key)

    def held(self, content: RulesFragment, frontends: Collection[FrontendKey]) -> RulesFragment | None:  # noqa: ARG002 - rules have their own
        """Return the rules of a Service in the kernel, None if there are none; `content` has those that it wants."""
        exact = dict(self._chains(content.exact))
        wanted = {
            frontend
            for block in content.blocks
            for rule in block.rules
            if (frontend := frontend_of(rule.spec)) is not None
        }
        keys = {key for name in exact for key in self._by_target[name]}
        keys |= {key for frontend in wanted for key in self._by_frontend[frontend]}
        blocks = tuple(block for key in sorted(keys) for block in self._blocks(key))
        return replace(content, exact=exact, dispatch=(), blocks=blocks) if exact or blocks else None

    def _chains(self, names: Iterable[ChainName]) -> Iterator[tuple[ChainName, tuple[Rule, ...]]]:
        """Yield the chains of these names that exist, and all chains that they jump to or that jump to them.

        This finds chains of former endpoints and frontends too, whose names are not among the wanted ones.
        """
        front, seen = list(names), set[ChainName]()
        while front:
            name = front.pop()
            value = self._there.get(ChainKey(name))
            if name in seen or not isinstance(value, ChainValue) or ChainKey(name) in self._of_others:
                continue
            seen.add(name)
            yield name, value.rules
            front += (ChainName(name.table, target(rule)) for rule in value.rules)
            front += self._before[name]

    def _blocks(self, key: BlockKey) -> Iterator[Block]:
        value = self._there[key]
        if isinstance(value, BlockValue):
            yield from (Block(key.name, copy) for copy in value.copies)
