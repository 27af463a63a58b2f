"""What the node has of a Service that is left out: its old rules stay as they are, whole, and nothing of the new."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.languages.ipset.state import EntryKey
from rulegen.languages.iptables import state
from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.languages.iptables.state import Block, BlockKey, BlockValue, ChainKey, ChainValue, Kind, found
from rulegen.languages.ipvs.state import RealServerKey, VirtualServerKey
from rulegen.ownership import ipsets
from rulegen.plan.fragments import IPSET, IPVS, LINKS, OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.compiler.services.compile import Compiled, Observed
    from rulegen.languages.iptables.rules import Rule
    from rulegen.net import Family

_FRONTEND: Final = re.compile(r"^(?:-d (?P<address>\S+) )?-p (?P<protocol>\S+) .*--dport (?P<port>\d+)(?: |$)")


class _Frontend(NamedTuple):
    """What a rule of a dispatch chain answers on: the address as rules have it, empty for any of the node."""

    address: str
    protocol: str
    port: str


class _PinnedRules:
    """The rules of one family: what is there of ours, and what others want of it than the Services that are held."""

    def __init__(
        self, compiled: Compiled, observed: Observed, family: Family, owners: Collection[str], without: Compiled
    ) -> None:
        ruleset = observed.rulesets[family]
        layout = compiled.backend.layout(compiled.model.nodes[family], ruleset)
        self._there = found(ruleset, layout)
        others = [fragment for fragment in without.rules(family) if fragment.owner not in owners]
        self._of_others = set(state.wanted(others).objects) | {ChainKey(name) for name in layout.chains}
        self._by_target: defaultdict[ChainName, list[BlockKey]] = defaultdict(list)
        self._before: defaultdict[ChainName, list[ChainName]] = defaultdict(list)
        self._by_frontend: defaultdict[_Frontend, list[BlockKey]] = defaultdict(list)
        for key, value in self._there.items():
            if isinstance(key, BlockKey) and isinstance(value, BlockValue) and key not in self._of_others:
                self._index(key, value, is_dispatch=layout.kind(key.name) is Kind.DISPATCH)
            elif isinstance(key, ChainKey) and isinstance(value, ChainValue) and key not in self._of_others:
                for rule in value.rules:
                    self._before[ChainName(key.name.table, target(rule))].append(key.name)

    def _index(self, key: BlockKey, value: BlockValue, *, is_dispatch: bool) -> None:
        if not is_dispatch:
            return
        for rule in value.copies[0]:
            goes_to = ChainName(key.name.table, target(rule))
            if ChainKey(goes_to) in self._there:
                self._by_target[goes_to].append(key)
            elif (frontend := _frontend(rule)) is not None:
                self._by_frontend[frontend].append(key)

    def held(self, fragment: state.RulesFragment) -> state.RulesFragment:
        """Return what is there of a Service, of which this is what it wants."""
        exact = dict(self._chains(fragment.exact))
        frontends = {one for block in fragment.blocks for rule in block.rules if (one := _frontend(rule)) is not None}
        keys = {key for name in exact for key in self._by_target[name]}
        keys |= {key for frontend in frontends for key in self._by_frontend[frontend]}
        blocks = [block for key in sorted(keys) for block in self._blocks(key)]
        return replace(fragment, exact=exact, dispatch=(), blocks=tuple(blocks))

    def _chains(self, names: Iterable[ChainName]) -> Iterator[tuple[ChainName, tuple[Rule, ...]]]:
        """Yield the chains of a Service that are there, and those that lead to them or that they lead to.

        Chains of endpoints of before, and those for frontends of before, are no chains of what it wants now.
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


def held(
    compiled: Compiled, observed: Observed, owners: Collection[str], without: Compiled | None = None
) -> list[OwnedObjects]:
    """Return what the node has of some Services, a fragment for each and each family; none where it has nothing.

    Args:
        compiled: What is wanted, of these Services too.
        observed: What the node had before anything was written.
        owners: The Services, `namespace/name`.
        without: What is wanted without these Services: others then have the frontends that they claim too. None where
            nobody else has got them yet.
    """
    fragments: list[OwnedObjects] = []
    of_others = _servers_of_others(without or compiled, owners)
    for family in observed.rulesets:
        wanted = [fragment for fragment in compiled.fragments[family] if fragment.owner in owners]
        rules = _PinnedRules(compiled, observed, family, owners, without or compiled) if wanted else None
        for fragment in wanted:
            assert rules is not None  # noqa: S101 - for the type checker: there is a fragment
            mine = OwnedObjects(
                fragment.owner, family, rules.held(fragment.rules), _objects(fragment, observed, of_others)
            )
            if mine.rules.exact or mine.rules.blocks or mine.objects:
                fragments.append(mine)
    return fragments


def _servers_of_others(wanted: Compiled, owners: Collection[str]) -> frozenset[VirtualServerKey]:
    """Return the virtual servers of all Services but these."""
    return frozenset(
        key
        for fragments in wanted.fragments.values()
        for fragment in fragments
        if fragment.owner not in owners
        for key in fragment.objects.get(IPVS, {})
        if isinstance(key, VirtualServerKey)
    )


def _objects(
    fragment: OwnedObjects, observed: Observed, of_others: Collection[VirtualServerKey]
) -> Mapping[str, Mapping[Any, Any]]:
    """Return the servers, entries and addresses of a Service that is served; nothing of one that is not."""
    servers = observed.servers or {}
    frontends = {
        key.frontend
        for key in fragment.objects.get(IPVS, {})
        if isinstance(key, VirtualServerKey) and key in servers and key not in of_others
    }
    if not frontends:
        return {}
    mine = {key: value for key, value in servers.items() if key.frontend in frontends}
    starts = {(str(one.address), f"{one.protocol.lower()}:{one.port}") for one in frontends}
    starts |= {
        (str(key.address), f"{key.frontend.protocol.lower()}:{key.port}")
        for key in mine
        if isinstance(key, RealServerKey)
    }
    wanted, names = fragment.objects.get(IPSET, {}), ipsets.names(fragment.family)
    entries = {
        key: value
        for key, value in (observed.sets or {}).items()
        if isinstance(key, EntryKey)
        and key.name in names
        and (key in wanted or tuple(key.entry.split(",")[:2]) in starts)
    }
    bound = observed.links.addresses if observed.links is not None else {}
    links = {key: value for key, value in fragment.objects.get(LINKS, {}).items() if key in bound}
    return {IPVS: mine, IPSET: entries, LINKS: links}


def _frontend(rule: Rule) -> _Frontend | None:
    told = _FRONTEND.match(rule.spec)
    return _Frontend(told["address"] or "", told["protocol"], told["port"]) if told else None
