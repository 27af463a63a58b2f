"""Our part of a family's ruleset as keyed objects, wanted or found, so that a difference is a difference of maps.

Three kinds of chains hold what is ours:

- an *exact* chain is wholly ours, and the order of its rules means something; it is one object, its rules the value;
- a *dispatch* chain is ours, but every Service puts its own rules in, in any order; each rule is an object of its own
  (a *block*, where a rule must stand directly before another), so that a change of one Service touches no other's.
  Some blocks come last (the *tail*);
- a *built-in* chain is everybody's; ours in it are the jumps to our chains, and nothing else is looked at.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.languages.iptables.rules import Rule
from rulegen.languages.iptables.ruleset import Chain, ChainName, Ruleset, is_unreadable, may_be, target

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Iterable, Mapping

    from rulegen.net import Family


class Kind(enum.Enum):
    """What a chain of ours is."""

    EXACT = "exact"
    DISPATCH = "dispatch"


class ChainPosition(enum.Enum):
    """Where in its chain a block stands."""

    HEAD = "head"
    """A jump in a built-in chain: anywhere; a new one goes before others' rules."""
    BODY = "body"
    """Anywhere before the tail."""
    TAIL = "tail"
    """Behind every body block."""
    ASTRAY = "astray"
    """Only ever found: a tail block before a body block."""


class ChainKey(NamedTuple):
    """Key of a chain as an object."""

    name: ChainName


class BlockKey(NamedTuple):
    """Key of a block of rules in a dispatch or built-in chain: the chain and the rules' text."""

    name: ChainName
    specs: tuple[str, ...]


Key = ChainKey | BlockKey


class ChainValue(msgspec.Struct, frozen=True):
    """A chain of ours: its rules where it is exact, none where it is a dispatch chain."""

    rules: tuple[Rule, ...]
    kind: Kind


class BlockValue(msgspec.Struct, frozen=True):
    """A block of rules, how often it stands there, and where.

    Attributes:
        copies: For each time that it stands there, its rules (whose comments may differ).
    """

    copies: tuple[tuple[Rule, ...], ...]
    place: ChainPosition


Value = ChainValue | BlockValue
Objects = dict[Key, Value]


class Block(msgspec.Struct, frozen=True):
    """Rules that stand together in a dispatch or built-in chain."""

    name: ChainName
    rules: tuple[Rule, ...]
    place: ChainPosition = ChainPosition.BODY


class RulesFragment(msgspec.Struct, frozen=True):
    """What one owner wants in one family: a Service, or the node itself.

    Attributes:
        owner: `namespace/name` of the Service; empty for the node.
        exact: Chains that are the owner's alone.
        dispatch: Dispatch chains that must exist (the node's fragment only).
        blocks: Rules in chains that are shared.
    """

    owner: str
    family: Family
    exact: Mapping[ChainName, tuple[Rule, ...]] = msgspec.field(default_factory=dict)
    dispatch: tuple[ChainName, ...] = ()
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How our part of a ruleset is told from everybody else's.

    Attributes:
        chains: The fixed chains that are ours.
        prefixes: By table, how the names of our other chains start; they are exact.
        tails: By chain, the targets that only tail blocks have.
        pair_marks: By chain, text that tells a rule which must stand directly before the next.
        tolerated: By chain, rules of others that may stand in a chain of ours.
        others: The fixed chains among them that only another mode has: they are leftovers.
        proof: The fixed chains that only a proxy of this mode makes: where one is, it has ruled.
        optional: The fixed chains that an option decides about.
        optional_rules: The rules that an option decides about.
        listed_rules: The rules that stand in the order and number in which an object lists something.
        shapes: By chain, or by how its name starts, what a rule without a jump to a chain of ours looks like there,
            whatever the options.
        lasting: By dispatch chain, how the names of the chains start to which a jump stands there as long as they have
            any other user, as each Service has a ClusterIP.
    """

    chains: Mapping[ChainName, Kind]
    prefixes: Mapping[str, tuple[str, ...]]
    tails: Mapping[ChainName, frozenset[str]] = field(default_factory=dict)
    pair_marks: Mapping[ChainName, str] = field(default_factory=dict)
    tolerated: Mapping[ChainName, frozenset[str]] = field(default_factory=dict)
    others: frozenset[ChainName] = frozenset()
    proof: frozenset[ChainName] = frozenset()
    optional: frozenset[ChainName] = frozenset()
    optional_rules: tuple[re.Pattern[str], ...] = ()
    listed_rules: tuple[re.Pattern[str], ...] = ()
    shapes: Mapping[ChainName, re.Pattern[str]] = field(default_factory=dict)
    lasting: Mapping[ChainName, tuple[str, ...]] = field(default_factory=dict)

    def ours(self, state: Ruleset) -> Objects:
        """Return our objects as they are."""
        return owned_objects(state, self)

    def shape(self, name: ChainName) -> re.Pattern[str] | None:
        """Return what rules without a jump to a chain of ours look like in a chain; None for any."""
        known = self.shapes.get(name)
        if known is not None or name in self.chains:
            return known
        starts = (start for start in self.shapes if start.table == name.table and name.chain.startswith(start.chain))
        return next((self.shapes[start] for start in starts), None)

    def leads_always(self, dispatch: ChainName, name: ChainName) -> bool:
        """Whether a dispatch chain jumps to a chain whenever the chain is there, or to one fixed chain of ours."""
        return name in self.chains or name.chain.startswith(self.lasting.get(dispatch, ("?",)))

    def without(self, name: ChainName) -> Layout:
        """Return the same, but one of the fixed chains is not ours."""
        return replace(self, chains={own: kind for own, kind in self.chains.items() if own != name})

    def kind(self, name: ChainName) -> Kind | None:
        """Return what the chain is; None for one that is not ours."""
        fixed = self.chains.get(name)
        if fixed is None and name.chain.startswith(self.prefixes.get(name.table, ())):
            return Kind.EXACT
        return fixed


@dataclass(frozen=True, slots=True)
class Wanted:
    """The desired objects of one family, each with the owner that wants it; empty for the node."""

    objects: Objects
    owners: Mapping[Key, str]

    def keeping(self, observed: Objects, referred: frozenset[ChainName]) -> Wanted:
        """Return the same, and an empty chain for each that others' rules refer to: it cannot be deleted."""
        kept: Objects = {}
        for name in sorted(referred):
            key = ChainKey(name)
            value = observed.get(key)
            if key not in self.objects and isinstance(value, ChainValue):
                kept[key] = ChainValue((), value.kind)
        return Wanted({**self.objects, **kept}, self.owners) if kept else self

    def without(self, tables: Collection[str]) -> Wanted:
        """Return the same less the objects of some tables, about which nothing can be said."""
        if not tables:
            return self
        return Wanted({key: value for key, value in self.objects.items() if key.name.table not in tables}, self.owners)


def wanted(fragments: Iterable[RulesFragment]) -> Wanted:
    """Return the union of the fragments: blocks that several want stand there as often as they are wanted."""
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
    """Return our objects in a ruleset; everybody else's are left out."""
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
    """Return a ruleset with each rule that has unreadable options taken for the wanted rule that it may be.

    A tool that is older than the one that wrote a rule prints the rule, less some options. Where all that it prints
    agrees with a wanted rule of the same chain which is not there otherwise, that is the one.
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
    """Return a chain's rules, each unreadable one as the first wanted rule that it may be and that none other is."""
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
    """Return our chains that rules outside our reach refer to: they can be emptied, but not deleted."""
    return frozenset(
        referred
        for name, rule in ruleset.rules()
        if layout.kind(name) is None
        and ruleset.chains[name].policy is None
        and layout.kind(referred := ChainName(name.table, target(rule))) is not None
    )


def _blocks(name: ChainName, chain: Chain, layout: Layout) -> list[Block]:
    """Cut a dispatch chain into blocks, in order."""
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
    """Tell the tail blocks that stand before a body block."""
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
    """Return the whole ruleset that fragments of one family make in an empty kernel, built-in chains included."""
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
