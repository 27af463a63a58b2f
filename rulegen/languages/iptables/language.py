"""iptables rules as a language: chains of one owner, and rules in shared chains, which are counted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.diff.changes import Change, diff
from rulegen.languages.iptables import items
from rulegen.languages.iptables.frontends import frontend_of
from rulegen.languages.iptables.held import RulesHolder
from rulegen.languages.iptables.kept_text import adopted, carried, copies_of, written
from rulegen.languages.iptables.ruleset import ChainName, Ruleset, format_ruleset
from rulegen.languages.iptables.script import Comments, comment_of, comments_of, script, settled, written_anew
from rulegen.languages.iptables.state import (
    BlockKey,
    BlockValue,
    ChainKey,
    ChainValue,
    Kind,
    RulesFragment,
    Wanted,
    found,
    referred_by_others,
    ruleset_of,
    understood,
    wanted,
)
from rulegen.languages.language import FrontendKey, Part, Phase, Print, References, Task
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.diff.items import Item
    from rulegen.languages.iptables.state import Key, Layout, Objects, Value
    from rulegen.languages.language import Changes, K, NodeSteps, PrintScope, Scene, Shape, StateKey, Union, WorkTerms

NAME = "iptables"

_SETS: Final = "ipset"
_MATCH_SET: Final = re.compile(r"--match-set (\S+) ")
_WITH_NAME: Final = {"-m", "-j", "-g", "-p"}
"""Options of a rule whose value names a part of the kernel."""
_OURS: Final = "KUBE-"
_FILES: Final = {Family.IPV4: "iptables.save", Family.IPV6: "ip6tables.save"}
_INPUT: Final = ChainName("filter", "INPUT")


@dataclass(frozen=True, slots=True)
class RestoreRules:
    """Feed `iptables-restore --noflush` of one family.

    Attributes:
        text: What the tool reads.
        beside: Whether it is that of the other variant than the plan's.
        commits: How many commits that makes.
    """

    family: Family
    text: str
    beside: bool = False
    commits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesPart(Part):
    """What changes in the rules of one family.

    Attributes:
        bridge: Where the rules must pass through a state between, since the sets that they look into change: the
            changes to there, and those from there on. Else None, and `changes` is all.
        switches: Whether another mode has ruled here.
        comments: Which rules are written with their comments.
        printed: Blocks that are wanted, as the kernel has them once the changes are written, where their comments are
            not those that `comments` asks for.
    """

    bridge: tuple[Changes, Changes] | None = None
    switches: bool = False
    comments: Comments = Comments.EVERYWHERE
    printed: Mapping[BlockKey, BlockValue] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def takes_over(self) -> bool:
        """Whether another mode has ruled here: then all that answers must be ready before the rules change."""
        return self.switches

    @property
    def all_changes(self) -> Changes:
        """All changes, those by way of the state between too."""
        return (*self.changes, *(change for half in self.bridge or () for change in half))

    def only(self, keep: Callable[[Changes], Changes]) -> Part:
        """Return the part with fewer changes, without what only the whole can know."""
        bridge = self.bridge and (keep(self.bridge[0]), keep(self.bridge[1]))
        return RulesPart(
            changes=keep(self.changes),
            bridge=bridge,
            switches=self.switches,
            comments=self.comments,
            printed=self.printed,
        )


class CountedUnion:
    """The union of fragments: a rule that several owners want stands there as often as it is wanted."""

    def __init__(self, fragments: Mapping[str, RulesFragment] | None = None) -> None:
        """Begin with the fragments of some owners, by default with none."""
        self._fragments: dict[str, RulesFragment] = dict(fragments or {})
        self._wanted: Wanted | None = None

    def copy(self) -> CountedUnion:
        """Return the same as of now."""
        return CountedUnion(self._fragments)

    def replace(self, owner: str, before: RulesFragment | None, after: RulesFragment | None) -> None:  # noqa: ARG002 - replaced by owner
        """Put what an owner wants now in place of what it wanted."""
        self._wanted = None
        if after is None:
            self._fragments.pop(owner, None)
        else:
            self._fragments[owner] = after

    def changes(self, pairs: Iterable[tuple[str, RulesFragment | None, RulesFragment | None]]) -> Changes:
        """Return what changes if owners want something else, in the order of the pairs."""
        return tuple(change for _, before, after in pairs for change in step(before, after))

    def wanted(self) -> Wanted:
        """Return all that is wanted, the node's first, then that of Services by namespace and name."""
        if self._wanted is None:
            owners = sorted(self._fragments, key=lambda owner: tuple(owner.split("/")))
            self._wanted = wanted(self._fragments[owner] for owner in owners)
        return self._wanted

    def objects(self) -> Objects:
        """Return all objects."""
        return self.wanted().objects

    def owners(self) -> Mapping[Key, str]:
        """Return of each object who wants it; the first of several."""
        return self.wanted().owners

    def wants(self, key: Any) -> bool:
        """Return whether anybody wants an object."""
        return key in self.wanted().objects


class RulesMemory:
    """The text of rules in shared chains as the kernel has it, and with which comments rules are written."""

    def __init__(self) -> None:
        """Know of no rule."""
        self._chains = 0
        self._comments: Comments | None = None

    @property
    def leaving(self) -> Collection[Any]:
        """Nothing: rules go at once."""
        return ()

    @property
    def is_outdated(self) -> bool:
        """Whether there are so many chains more, or fewer, that a plan of the whole would write other comments."""
        return comments_of(self._chains) is not self._comments

    def carried(self, before: RulesFragment | None, after: RulesFragment | None) -> RulesFragment | None:
        """Return what an owner wants now, with the rules that stay as its fragment of before has them."""
        return after if before is None or after is None else carried(before, after)

    def part(self, union: Union, pairs: Iterable[tuple[str, Any, Any]], steps: NodeSteps | None) -> RulesPart:
        """Return what changes if owners want something else, and the node with them, by way of a state between."""
        comments = Comments.EVERYWHERE if self._comments is None else self._comments
        rules = union.changes(pairs)
        if steps is None:
            return RulesPart(changes=rules, comments=comments)
        there, on = step(steps.before, steps.between), step(steps.between, steps.after)
        changes = (*step(steps.before, steps.after), *rules)
        return RulesPart(changes=changes, bridge=((*there, *rules), on) if on else None, comments=comments)

    def replaced(self, before: RulesFragment | None, after: RulesFragment | None) -> None:
        """Count chains."""
        self._chains += (len(after.exact) if after else 0) - (len(before.exact) if before else 0)

    def written(self, part: Part, union: Union) -> None:
        """Take note of nothing: the fragments have the rules' text."""

    def remember(self, part: Part | None, contents: Mapping[K, RulesFragment]) -> dict[K, RulesFragment]:
        """Take note of which rules have other comments than ours, as those of kube-proxy do."""
        if not isinstance(part, RulesPart):
            return {}
        self._comments = part.comments
        there = copies_of(part.printed)
        return {key: adopted(content, there) for key, content in contents.items()} if there else {}

    def renew(self, contents: Mapping[K, RulesFragment]) -> dict[K, RulesFragment]:
        """Write from now on the comments that a plan of the whole would; rules that are there keep theirs."""
        before, after = self._comments, comments_of(self._chains)
        self._comments = after
        if before is None or before is after or Comments.NOWHERE not in {before, after}:
            return {}  # rules of shared chains are written alike
        return {key: written(content, before) for key, content in contents.items()}


class Iptables:
    """The row of iptables."""

    name = NAME

    def __init__(self, guarding: frozenset[ChainName]) -> None:
        """Take the chains that protect what other languages add: their rules come first and go last."""
        self._guarding = guarding

    def memory(self) -> RulesMemory:
        """Return what is known of a kernel about which nothing is known yet."""
        return RulesMemory()

    def union(self) -> CountedUnion:
        """Return an empty union."""
        return CountedUnion()

    def ours(self, state: Ruleset, ownership: Layout, desired: Objects) -> Objects:
        """Return our objects as they are; a rule that could be read in part is taken for the wanted one it may be."""
        return found(state if state.is_readable else understood(state, desired), ownership)

    def references(self, state: Ruleset, ownership: Layout) -> References:
        """Return the sets that others' rules look into."""
        names = (
            match[1]
            for name, rule in state.rules()
            if "--match-set" in rule.spec
            and ownership.kind(name) is None
            and (match := _MATCH_SET.search(f"{rule.spec} "))
        )
        return References({_SETS: frozenset(names)}, unknown=bool(state.unknown))

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:  # noqa: ARG002 - see `compare`
        """Return what is wanted: which chains others' rules refer to, the rules themselves tell."""
        return desired

    def compare(self, scene: Scene) -> RulesPart:
        """Return what changes in one family's rules. Unknown tables are left out."""
        ruleset, layout = scene.state, scene.ownership
        desired = Wanted(scene.desired[NAME], scene.owners.get(NAME, {}))
        ours = scene.ours[NAME]
        referred = referred_by_others(ruleset, layout)
        objects = desired.keeping(ours, referred).without(ruleset.unknown).objects
        changes = diff(ours, objects)
        bridge = None
        if scene.between is not None:
            middle = Wanted(scene.between, {}).keeping(ours, referred).without(ruleset.unknown).objects
            if middle != objects:
                bridge = diff(ours, middle), diff(middle, objects)
        comments = comments_of(sum(isinstance(v, ChainValue) and v.kind is Kind.EXACT for v in objects.values()))
        printed = dict(_printed(ours, objects, comments))
        anew = written_anew(changes, objects) if printed and bridge is None else frozenset()
        return RulesPart(
            changes=changes,
            desired=objects,
            bridge=bridge,
            switches=not scene.is_cleanup
            and any(isinstance(key, ChainKey) and key.name in layout.others for key in ours),
            comments=comments,
            printed={key: value for key, value in printed.items() if key.name not in anew},
        )

    def items(self, part: Part, scene: Scene) -> Iterator[Item]:
        """Yield an item for each change of one family, in the order of the changes."""
        assert isinstance(part, RulesPart)  # noqa: S101 - for the type checker: `compare` made it
        desired = Wanted(part.desired, scene.owners.get(NAME, {}))
        yield from items.items(part.changes, scene.ours[NAME], desired, scene)

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        """Yield the scripts for `iptables-restore`.

        Where another mode has ruled, its dispatch keeps on until all that answers is ready; only then the rules change.
        """
        for family, part in parts.items():
            if family is not None and isinstance(part, RulesPart):
                write = self._removal if terms.beside else self._replacement
                yield from write(family, part, terms)

    def _replacement(self, family: Family, part: RulesPart, terms: WorkTerms) -> Iterator[Task]:
        """Yield the scripts of the plan's own variant."""
        first, then = part.bridge or (part.changes, ())
        early, rest, late = _split(first, self._guarding)
        desired = None if part.bridge else part.desired
        if part.switches:
            yield from _restores(Phase.RULES_EARLY, family, early, None, part, terms)
            yield from _restores(Phase.RULES_SWITCHED, family, rest, desired, part, terms)
        else:
            changes = sorted((*early, *rest), key=lambda change: change.key)
            yield from _restores(Phase.RULES_EARLY, family, changes, desired, part, terms)
        yield from _restores(Phase.RULES_SETTLED, family, then, None, part, terms)
        yield from _restores(Phase.RULES_REMOVED, family, late, None, part, terms)

    def _removal(self, family: Family, part: RulesPart, terms: WorkTerms) -> Iterator[Task]:
        """Yield the scripts of the other variant, from which all that is ours goes."""
        _, rest, late = _split(part.changes, self._guarding)
        yield from _restores(Phase.OTHER_VARIANT, family, rest, None, part, terms)
        yield from _restores(Phase.RULES_REMOVED, family, late, None, part, terms)

    def holder(self, ours: Objects, ownership: Layout, others: Mapping[Any, Any]) -> RulesHolder:
        """Return what finds the rules of a Service among ours."""
        return RulesHolder(ours, ownership, others)

    def frontends(self, content: RulesFragment) -> Iterator[FrontendKey]:  # noqa: ARG002 - no other language depends on it
        """Yield nothing."""
        return iter(())

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:
        """Yield the frontends whose rules a part takes away without putting others in their place."""
        gone = [
            frontend
            for change in part.changes
            if change.after is None and isinstance(change.key, BlockKey)
            for frontend in _frontends(change.key)
        ]
        if gone:
            kept = {frontend for key in part.desired if isinstance(key, BlockKey) for frontend in _frontends(key)}
            yield from (frontend for frontend in gone if frontend not in kept)

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:
        """Return the state of a kernel that has nothing."""
        return {(NAME, family): Ruleset(family) for family in families}

    def unseen(self, state: Any) -> str:  # noqa: ARG002 - a family without a dump is not planned
        """Return nothing."""
        return ""

    def read_dump(self, text: str, source: str) -> Any:  # noqa: ARG002 - two families, whose dumps look alike
        """Return nothing: what tells the family of a dump is more than its text."""
        return None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the rules for `iptables-restore`, into an empty kernel, and for `ip6tables-restore`."""
        for family, contents in wanted.contents.items():
            ruleset = ruleset_of(contents)
            tables = " ".join(sorted({name.table for name in ruleset.chains}))
            head = f"# rulegen: node {wanted.node!a}, {family}, tables {tables}\n"
            yield Print(_FILES[family], format_ruleset(ruleset), str(family), head)

    def shapes(self, content: RulesFragment) -> Iterator[Shape]:
        """Yield what each rule needs of the kernel."""
        for rules in content.exact.values():
            yield from (shape_of(rule.spec) for rule in rules)
        for block in content.blocks:
            yield from (shape_of(rule.spec) for rule in block.rules)


def _frontends(key: BlockKey) -> Iterator[FrontendKey]:
    return (frontend for spec in key.specs if (frontend := frontend_of(spec)) is not None)


def step(before: RulesFragment | None, after: RulesFragment | None) -> tuple[Change[Key, Value], ...]:
    """Return the changes that turn what one owner had of iptables into what it wants: what changed, not what exists.

    It is the difference of the whole, seen where it is: rules in shared chains are counted, so what other owners want
    of the same stays.
    """
    old, new = ((fragment,) if fragment is not None else () for fragment in (before, after))
    return diff(wanted(old).objects, wanted(new).objects)


def shape_of(spec: str) -> Shape:
    """Return what a rule needs; rules that differ in addresses, ports and numbers alone need the same."""
    return _shape_of_words(_without_values(spec))


def _without_values(spec: str) -> tuple[str, ...]:
    words = spec.split(" ")
    kept: list[str] = []
    for at, word in enumerate(words):
        if not word.startswith("-"):
            continue
        value = words[at + 1] if at + 1 < len(words) else ""
        if word not in _WITH_NAME:
            kept.append(word)
        else:  # to which chain a rule jumps makes no difference
            kept.append(f"{word} {'a chain' if value.startswith(_OURS) else value}")
    return tuple(kept)


@cache
def _shape_of_words(words: tuple[str, ...]) -> Shape:
    return frozenset(words)


def _printed(observed: Objects, desired: Objects, comments: Comments) -> Iterator[tuple[BlockKey, BlockValue]]:
    """Yield the blocks that are wanted and there, but with other comments than we would write.

    Of several copies, those that stay come first; the others are written.
    """
    for key, there in observed.items():
        wants = desired.get(key)
        if not (isinstance(key, BlockKey) and isinstance(there, BlockValue) and isinstance(wants, BlockValue)):
            continue
        stays = min(len(there.copies), len(wants.copies)) if there.place is wants.place else 0
        if not stays:
            continue
        ours = [[comment_of(rule, comments) for rule in copy] for copy in wants.copies]
        if [[rule.comment for rule in copy] for copy in there.copies[:stays]] == ours:
            continue  # most blocks: nothing is written, and nothing need be put in order
        written = (tuple(settled(rule, comments) for rule in copy) for copy in wants.copies[stays:])
        copies = (*there.copies[:stays], *written)
        if sorted([rule.comment for rule in copy] for copy in copies) != sorted(ours):
            yield key, BlockValue(copies, wants.place)


class _Split(NamedTuple):
    """Changes of rules: those that bring the chains that protect, all others, and those that take these away."""

    early: Changes
    rest: Changes
    late: Changes


def _split(changes: Iterable[Change[Key, Value]], guarding: frozenset[ChainName]) -> _Split:
    """Return the changes by when they are made, each part in the order that it had."""
    parts: tuple[list[Change[Key, Value]], ...] = ([], [], [])
    names = {name.chain for name in guarding}
    for change in changes:
        goes = change.after is None or (isinstance(change.after, ChainValue) and not change.after.rules)
        parts[(2 if goes else 0) if _is_guarding(change.key, guarding, names) else 1].append(change)
    return _Split(*map(tuple, parts))


def _is_guarding(key: Key, guarding: frozenset[ChainName], names: set[str]) -> bool:
    """Whether an object is a chain that protects, or the jump to it from INPUT."""
    if key.name in guarding:
        return True
    return isinstance(key, BlockKey) and key.name == _INPUT and f" {key.specs[-1]}".rpartition(" -j ")[2] in names


def _restores(
    phase: Phase,
    family: Family,
    changes: Iterable[Change[Key, Value]],
    desired: Objects | None,
    part: RulesPart,
    terms: WorkTerms,
) -> Iterator[Task]:
    where = "other variant, " if terms.beside else ""
    calls = script(changes, desired, chains_per_commit=terms.chains_per_commit, comments=part.comments)
    for restore in calls:
        yield Task(
            phase, f"{where}{family} {restore.title}", RestoreRules(family, restore.text, terms.beside, restore.commits)
        )
