"""Our part of one family's ruleset as objects with keys, so that a comparison of rulesets is one of mappings.

Our rules are in three kinds of chains:

- An *exact* chain is ours alone, and the order of its rules matters. It is one object, with its rules as value.
- A *dispatch* chain is ours too. It has rules of all Services, in any order. Each rule is one object (a *block* of two
  rules if one must directly precede the other), so that a change of one Service leaves the rules of others as they
  are. Some blocks must be the last ones of the chain: the *tail*.
- A *built-in* chain belongs to all programs. Only the jumps to our chains are ours; other rules are ignored.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.languages.iptables.rules import Rule
from rulegen.languages.iptables.ruleset import Chain, ChainName, Ruleset, is_unreadable, may_be, target

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Iterable, Mapping

    from rulegen.net import Family


class Kind(enum.Enum):
    """The kind of a chain."""

    EXACT = "exact"
    DISPATCH = "dispatch"


class ChainPosition(enum.Enum):
    """The position of a block in its chain."""

    HEAD = "head"
    """A jump in a built-in chain. A new one is inserted before foreign rules."""
    BODY = "body"
    """Anywhere before the tail blocks."""
    TAIL = "tail"
    """After all body blocks."""
    ASTRAY = "astray"
    """A tail block that was found before a body block; never wanted."""


class ChainKey(NamedTuple):
    """The key of a chain."""

    name: ChainName


class BlockKey(NamedTuple):
    """The key of a block in a dispatch or built-in chain: the chain and the text of the rules."""

    name: ChainName
    specs: tuple[str, ...]


Key = ChainKey | BlockKey


class ChainValue(msgspec.Struct, frozen=True):
    """A chain of ours. An exact chain has its rules here; a dispatch chain has none."""

    rules: tuple[Rule, ...]
    kind: Kind


class BlockValue(msgspec.Struct, frozen=True):
    """A block of rules, the number of its copies, and its position.

    Attributes:
        copies: For each time that it stands there, its rules (whose comments may differ).
    """

    copies: tuple[tuple[Rule, ...], ...]
    place: ChainPosition


Value = ChainValue | BlockValue
Objects = dict[Key, Value]


class Block(msgspec.Struct, frozen=True):
    """Adjacent rules in a dispatch or built-in chain."""

    name: ChainName
    rules: tuple[Rule, ...]
    place: ChainPosition = ChainPosition.BODY


class RulesFragment(msgspec.Struct, frozen=True):
    """The wanted rules of one owner in one family; the owner is a Service or the node.

    Attributes:
        owner: `namespace/name` of the Service; empty for the node.
        exact: The chains of this owner alone, with their rules.
        dispatch: Dispatch chains that must exist (the node's fragment only).
        blocks: Rules in shared chains.
    """

    owner: str
    family: Family
    exact: Mapping[ChainName, tuple[Rule, ...]] = msgspec.field(default_factory=dict)
    dispatch: tuple[ChainName, ...] = ()
    blocks: tuple[Block, ...] = ()


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Decides which chains and rules of a ruleset are ours.

    Attributes:
        chains: The fixed chains that are ours.
        prefixes: By table, the prefixes of the names of our other chains, which are exact chains.
        tails: By chain, the targets that only tail blocks have.
        pair_marks: By chain, the text that marks a rule which must directly precede the next one.
        tolerated: By chain of ours, the foreign rules that may stand in it.
        others: The fixed chains that only another proxy mode has; they are leftovers.
        proof: The fixed chains that only a proxy in this mode creates; one of them shows that the mode was active.
        optional: The fixed chains that depend on an option.
        optional_rules: The rules that depend on an option.
        listed_rules: The rules whose order and number an object decides.
        shapes: By chain or prefix of a chain name, the form of rules that jump to no chain of ours, with any options.
        lasting: By dispatch chain, the prefixes of the chains that it must jump to while any rule jumps to them; each
            Service has a ClusterIP, for example.
    """

    chains: Mapping[ChainName, Kind]
    prefixes: Mapping[str, tuple[str, ...]]
    tails: Mapping[ChainName, frozenset[str]] = msgspec.field(default_factory=dict)
    pair_marks: Mapping[ChainName, str] = msgspec.field(default_factory=dict)
    tolerated: Mapping[ChainName, frozenset[str]] = msgspec.field(default_factory=dict)
    others: frozenset[ChainName] = frozenset()
    proof: frozenset[ChainName] = frozenset()
    optional: frozenset[ChainName] = frozenset()
    optional_rules: tuple[re.Pattern[str], ...] = ()
    listed_rules: tuple[re.Pattern[str], ...] = ()
    shapes: Mapping[ChainName, re.Pattern[str]] = msgspec.field(default_factory=dict)
    lasting: Mapping[ChainName, tuple[str, ...]] = msgspec.field(default_factory=dict)

    def ours(self, state: Ruleset) -> Objects:
        """Return our objects in a ruleset."""
        return owned_objects(state, self)

    def shape(self, name: ChainName) -> re.Pattern[str] | None:
        """Return the form of rules in a chain that jump to no chain of ours; None if they may have any form."""
        known = self.shapes.get(name)
        if known is not None or name in self.chains:
            return known
        starts = (start for start in self.shapes if start.table == name.table and name.chain.startswith(start.chain))
        return next((self.shapes[start] for start in starts), None)

    def leads_always(self, dispatch: ChainName, name: ChainName) -> bool:
        """Whether a dispatch chain must jump to a chain that exists, or always to this fixed chain."""
        return name in self.chains or name.chain.startswith(self.lasting.get(dispatch, ("?",)))

    def without(self, name: ChainName) -> Layout:
        """Return the layout without one of the fixed chains, which then is not ours."""
        return msgspec.structs.replace(self, chains={own: kind for own, kind in self.chains.items() if own != name})

    def kind(self, name: ChainName) -> Kind | None:
        """Return the kind of a chain; None if it is not ours."""
        fixed = self.chains.get(name)
        if fixed is None and name.chain.startswith(self.prefixes.get(name.table, ())):
            return Kind.EXACT
        return fixed


class Wanted(msgspec.Struct, frozen=True):
    """The wanted objects of one family, each with its owner; the node is the empty owner."""

    objects: Objects
    owners: Mapping[Key, str]

    def keeping(self, observed: Objects, referred: frozenset[ChainName]) -> Wanted:
        """Return the objects and, empty, our other chains that foreign rules refer to: they cannot be deleted."""
        kept: Objects = {}
        for name in sorted(referred):
            key = ChainKey(name)
            value = observed.get(key)
            if key not in self.objects and isinstance(value, ChainValue):
                kept[key] = ChainValue((), value.kind)
        return Wanted({**self.objects, **kept}, self.owners) if kept else self

    def without(self, tables: Collection[str]) -> Wanted:
        """Return the objects without those of tables that could not be read."""
        if not tables:
            return self
        return Wanted({key: value for key, value in self.objects.items() if key.name.table not in tables}, self.owners)


def wanted(fragments: Iterable[RulesFragment]) -> Wanted:
    """Return the union of the fragments; a block that several owners want has one copy for each."""
    objects: Objects = {}
    owners: dict[Key, str] = {}
    for fragment in fragments:
        for name, rules in fragment.exact.items():
            key = ChainKey(name)
            objects[key] = ChainValue(rules, Kind.EXACT)
            owners[key] = fragment.owner
        for name in fragment.dispatch:
            objects[ChainKey(name)] = ChainValue((), Kind.DISPATCH)
            owners[ChainKey(name)] = fragment.owner
        for block in fragment.blocks:
            _add(objects, block)
            owners.setdefault(BlockKey(block.name, tuple(r.spec for r in block.rules)), fragment.owner)
    return Wanted(objects, owners)


def owned_objects(ruleset: Ruleset, layout: Layout) -> Objects:
    """Return our objects in a ruleset, without foreign ones."""
    objects: Objects = {}
    ours: dict[str, set[str]] = defaultdict(set)
    for name in layout.chains:
        ours[name.table].add(name.chain)
    for name, chain in ruleset.chains.items():
        kind = layout.kind(name)
        if kind is Kind.EXACT:
            objects[ChainKey(name)] = ChainValue(tuple(chain.rules), kind)
        elif kind is Kind.DISPATCH:
            objects[ChainKey(name)] = ChainValue((), kind)
            for block in _blocks(name, chain, layout):
                _add(objects, block)
        elif chain.policy is not None:
            for rule in chain.rules:
                if target(rule) in ours[name.table]:
                    _add(objects, Block(name, (rule,), ChainPosition.HEAD))
    return objects


def understood(ruleset: Ruleset, desired: Objects) -> Ruleset:
    """Return a ruleset in which each partly readable rule is replaced by the wanted rule that it can be.

    An old tool prints a rule of a newer tool without some options. If the printed options agree with a wanted rule of
    the same chain, and no readable rule equals that one, it counts as that rule.
    """
    wants: dict[ChainName, list[str]] = defaultdict(list)
    for key, value in desired.items():
        if isinstance(value, ChainValue):
            wants[key.name] += (rule.spec for rule in value.rules)
        else:
            wants[key.name] += (rule.spec for copy in value.copies for rule in copy)
    known = {
        name: Chain(chain.policy, _understood(chain.rules, wants[name])) if name in wants else chain
        for name, chain in ruleset.chains.items()
    }
    return replace(ruleset, chains=known)


def _understood(rules: list[Rule], wants: list[str]) -> list[Rule]:
    """Return the rules of a chain; a partly readable one as the first wanted rule that it can be and no other is."""
    if not any(map(is_unreadable, rules)):
        return rules
    there = Counter(rule.spec for rule in rules)
    left = []
    for spec in wants:
        if there[spec]:
            there[spec] -= 1
        else:
            left.append(spec)
    ours = []
    for rule in rules:
        like = next((spec for spec in left if is_unreadable(rule) and may_be(rule, Rule(spec))), None)
        if like is None:
            ours.append(rule)
        else:
            left.remove(like)
            ours.append(Rule(like, rule.comment))
    return ours


def referred_by_others(ruleset: Ruleset, layout: Layout) -> frozenset[ChainName]:
    """Return our chains that foreign rules refer to: they can be emptied, but not deleted."""
    return frozenset(
        referred
        for name, rule in ruleset.rules()
        if layout.kind(name) is None
        and ruleset.chains[name].policy is None
        and layout.kind(referred := ChainName(name.table, target(rule))) is not None
    )


def _blocks(name: ChainName, chain: Chain, layout: Layout) -> list[Block]:
    """Return the blocks of a dispatch chain, in order."""
    tails = layout.tails.get(name, frozenset())
    mark = layout.pair_marks.get(name)
    tolerated = layout.tolerated.get(name, frozenset())
    blocks: list[Block] = []
    first: Rule | None = None
    for rule in chain.rules:
        if rule.spec in tolerated:
            continue
        is_first = mark is not None and mark in rule.spec
        if first and not is_first and target(first) == target(rule):
            blocks.append(Block(name, (first, rule)))
        else:
            blocks += [Block(name, (first,))] if first else []
            if not is_first:
                blocks.append(Block(name, (rule,), ChainPosition.TAIL if target(rule) in tails else ChainPosition.BODY))
        first = rule if is_first else None
    blocks += [Block(name, (first,))] if first else []
    return _astray(blocks)


def _astray(blocks: list[Block]) -> list[Block]:
    """Return the blocks; tail blocks before a body block get the position ASTRAY."""
    last_body = max((i for i, block in enumerate(blocks) if block.place is ChainPosition.BODY), default=-1)
    return [
        Block(block.name, block.rules, ChainPosition.ASTRAY)
        if block.place is ChainPosition.TAIL and i < last_body
        else block
        for i, block in enumerate(blocks)
    ]


def _add(objects: Objects, block: Block) -> None:
    key = BlockKey(block.name, tuple(rule.spec for rule in block.rules))
    known = objects.get(key)
    copies: tuple[tuple[Rule, ...], ...] = (block.rules,)
    place = block.place
    if isinstance(known, BlockValue):
        copies = (*known.copies, *copies)
        place = ChainPosition.ASTRAY if ChainPosition.ASTRAY in {place, known.place} else place
    objects[key] = BlockValue(copies, place)


def ruleset_of(fragments: Iterable[RulesFragment]) -> Ruleset:
    """Return the ruleset of an empty kernel after these fragments are written, built-in chains included."""
    fragments = list(fragments)
    ruleset = Ruleset(fragments[0].family)
    for fragment in fragments:
        for name, rules in fragment.exact.items():
            ruleset.chains[name] = Chain(rules=list(rules))
        for name in fragment.dispatch:
            ruleset.chains[name] = Chain()
    blocks = [block for fragment in fragments for block in fragment.blocks]
    for block in sorted(blocks, key=lambda block: block.place is ChainPosition.TAIL):
        chain = ruleset.chains.setdefault(block.name, Chain("ACCEPT"))
        chain.rules += block.rules
    return ruleset
