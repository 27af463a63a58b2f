"""The language of iptables rules: chains with one owner, and counted rules in shared chains."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rulegen.diff.changes import Change, diff
from rulegen.languages.iptables import items
from rulegen.languages.iptables.frontends import frontend_of
from rulegen.languages.iptables.held import RulesHolder
from rulegen.languages.iptables.merging import CountedUnion, RulesMemory, RulesPart
from rulegen.languages.iptables.passing import lasting, mark_of, stages
from rulegen.languages.iptables.rules import Rule
from rulegen.languages.iptables.ruleset import ChainName, Ruleset, format_ruleset, target
from rulegen.languages.iptables.script import Comments, comment_of, comments_of, script, settled, written_anew
from rulegen.languages.iptables.state import (
    BlockKey,
    BlockValue,
    ChainKey,
    ChainValue,
    Kind,
    RulesFragment,
    Wanted,
    owned_objects,
    referred_by_others,
    ruleset_of,
    understood,
)
from rulegen.languages.language import FrontendKey, Part, Phase, Print, References, Task
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.diff.items import Item
    from rulegen.languages.iptables.loopback import LoopbackGuard
    from rulegen.languages.iptables.state import Key, Layout, Objects, Value
    from rulegen.languages.language import Changes, PrintScope, Scene, Shape, StateKey, WorkTerms

NAME = "iptables"

_SETS: Final = "ipset"
_MATCH_SET: Final = re.compile(r"--match-set (\S+) ")
_WITH_NAME: Final = {"-m", "-j", "-g", "-p"}
"""The options of a rule whose value names a kernel feature."""
_OURS: Final = "KUBE-"
_FILES: Final = {Family.IPV4: "iptables.save", Family.IPV6: "ip6tables.save"}
_INPUT: Final = ChainName("filter", "INPUT")


class RestoreRules(msgspec.Struct, frozen=True):
    """One call of `iptables-restore --noflush` or `ip6tables-restore --noflush`.

    Attributes:
        family: The family, which selects the tool.
        text: The input of the tool.
        beside: Whether to call the tool of the other iptables variant.
        commits: The number of commits in the text.
    """

    family: Family
    text: str
    beside: bool = False
    commits: int = 1


class Iptables:
    """The row of iptables in the table of languages."""

    name = NAME
    has_variants = True

    def __init__(
        self, guarding: frozenset[ChainName], loopback: LoopbackGuard, leading: frozenset[ChainName] = frozenset()
    ) -> None:
        """Take the rules that must be written or removed before or after others.

        Args:
            guarding: The chains that protect objects of other languages: written first and removed last.
            leading: The chains that lead packets past the others. When they appear, they are written last, and when
                they go, they are removed first: the others must already, or still, let these packets pass.
            loopback: The rule that protects the loopback addresses.
        """
        self._guarding = guarding
        self._leading = leading
        self._loopback = loopback

    def memory(self) -> RulesMemory:
        """Return a memory without records."""
        return RulesMemory()

    def union(self) -> CountedUnion:
        """Return an empty union."""
        return CountedUnion()

    def ours(self, state: Ruleset, ownership: Layout, desired: Objects) -> Objects:
        """Return our objects in the kernel; a partly readable rule counts as the wanted rule that it can be."""
        return owned_objects(state if state.is_readable else understood(state, desired), ownership)

    def references(self, state: Ruleset, ownership: Layout) -> References:
        """Return the sets that foreign rules match."""
        names = (
            match[1]
            for name, rule in state.rules()
            if "--match-set" in rule.spec
            and ownership.kind(name) is None
            and (match := _MATCH_SET.search(f"{rule.spec} "))
        )
        return References({_SETS: frozenset(names)}, unknown=bool(state.unknown))

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:  # noqa: ARG002 - see `compare`
        """Return the wanted objects; `compare` keeps the chains that foreign rules jump to."""
        return desired

    def compare(self, scene: Scene) -> RulesPart:
        """Return the changes of one family's rules; tables that could not be read are left out."""
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
        had, has = (mark_of(each, self._leading) for each in (ours, objects))
        switches = not scene.is_cleanup and any(isinstance(key, ChainKey) and key.name in layout.others for key in ours)
        write = written_anew if switches else self._written_anew
        anew = write(changes, objects) if printed and bridge is None else frozenset()
        guards = any(change.key.name in self._guarding for change in changes)
        moves = (has or switches) and not (bridge or guards)
        return RulesPart(
            changes=changes,
            desired=objects,
            bridge=bridge,
            stages=stages(ours, objects, self._leading) if moves else (),
            marked=0 if had and has else had or has,
            switches=switches,
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

        After another mode, its dispatch rules stay until the new servers and chains are complete.
        """
        for family, part in parts.items():
            if family is None or not isinstance(part, RulesPart):
                continue
            if terms.beside:
                yield from self._removal(family, part, terms)
                continue
            kept = lasting(part.changes, self._leading)
            yield from self._replacement(family, part.without(kept) if kept else part, terms)
            last = (change for change in part.changes if change.key in kept)
            yield from _restores(Phase.DEVICES_REMOVED, family, last, None, part, terms)

    def _replacement(self, family: Family, part: RulesPart, terms: WorkTerms) -> Iterator[Task]:
        """Yield the scripts for the iptables variant of the plan."""
        if part.stages:
            phase = Phase.RULES_SWITCHED if part.switches else Phase.RULES_EARLY
            for stage in part.stages:
                yield from _restores(phase, family, stage, part.desired, part, terms)
            return
        first, then = part.bridge or (part.changes, ())
        desired = None if part.bridge else part.desired
        leaving: Changes = ()
        if not part.switches:
            led, first, then = self._led(first, then)
            yield from _restores(self._phase_of_led(led, (*first, *then)), family, led, None, part, terms)
            first, leaving = self._without_leaving(first)
        early, rest, late = _split(first, self._guarding)
        if part.switches:
            yield from _restores(Phase.RULES_EARLY, family, early, None, part, terms)
            yield from _restores(Phase.RULES_SWITCHED, family, rest, desired, part, terms)
        else:
            changes = sorted((*early, *rest), key=lambda change: change.key)
            others = desired and self._of_others(desired) if leaving else desired
            yield from _restores(Phase.RULES_EARLY, family, changes, others, part, terms)
        yield from _restores(Phase.RULES_SETTLED, family, then, None, part, terms)
        yield from _restores(Phase.RULES_REMOVED, family, leaving, desired, part, terms)
        yield from _restores(Phase.RULES_REMOVED, family, late, None, part, terms)

    def _without_leaving(self, changes: Changes) -> tuple[Changes, Changes]:
        """Return the changes without removals of frontends from leading chains, and these removals.

        They come last: servers of another language, which replace the proxy, must be there before.
        """

        def leaves(change: Change[Key, Value]) -> bool:
            key = change.key
            if change.after is not None or key.name not in self._leading or not isinstance(key, BlockKey):
                return False
            return not target(Rule(key.specs[-1])).startswith(_OURS)

        leaving = tuple(change for change in changes if leaves(change))
        return (tuple(change for change in changes if not leaves(change)) if leaving else changes), leaving

    def _of_others(self, desired: Objects) -> Objects:
        """Return the wanted objects outside leading chains."""
        return {key: value for key, value in desired.items() if key.name not in self._leading}

    def _written_anew(self, changes: Changes, desired: Objects) -> frozenset[ChainName]:
        """Return the dispatch chains that `_replacement` writes whole."""
        first, leaving = self._without_leaving(changes)
        if not leaving:
            return written_anew(changes, desired)
        return written_anew(first, self._of_others(desired)) | written_anew(leaving, desired)

    def _led(self, first: Changes, then: Changes) -> tuple[Changes, Changes, Changes]:
        """Return the changes of leading chains and of the jumps to them if such chains appear or go, and all others."""
        names = {name.chain for name in self._leading}
        whole = (change for change in (*first, *then) if isinstance(change.key, ChainKey))
        if not any(change.key.name in self._leading and _moves(change) for change in whole):
            return (), first, then

        def leads(change: Change[Key, Value]) -> bool:
            return _is_guarding(change.key, self._leading, names, built_in=None)

        led = sorted((change for change in (*first, *then) if leads(change)), key=lambda change: change.key)
        first, then = (tuple(change for change in changes if not leads(change)) for changes in (first, then))
        return tuple(led), first, then

    def _phase_of_led(self, led: Changes, others: Changes) -> Phase:
        """Return when leading chains are written; if addresses are bound, they lead packets until that is done."""
        if any(change.before is None for change in led):
            return Phase.PORTALS_OPENED
        binds = any(change.key.name in self._guarding for change in others)
        return Phase.PORTALS_REPLACED if binds else Phase.PORTALS_CLOSED

    def _removal(self, family: Family, part: RulesPart, terms: WorkTerms) -> Iterator[Task]:
        """Yield the scripts that remove all our rules from the other iptables variant."""
        _, rest, late = _split(part.changes, self._guarding)
        yield from _restores(Phase.OTHER_VARIANT, family, rest, None, part, terms)
        yield from _restores(Phase.RULES_REMOVED, family, late, None, part, terms)

    def holder(self, ours: Objects, ownership: Layout, others: Mapping[Any, Any]) -> RulesHolder:
        """Return what finds the rules of a Service in `ours`."""
        return RulesHolder(ours, ownership, others)

    def frontends(self, content: RulesFragment) -> Iterator[FrontendKey]:  # noqa: ARG002 - no other language depends on it
        """Yield no frontend."""
        return iter(())

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:
        """Yield the frontends whose rules a part removes without a replacement."""
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
        """Return empty rulesets of these families."""
        return {(NAME, family): Ruleset(family) for family in families}

    def unseen(self, state: Any) -> str:  # noqa: ARG002 - a family without a dump is not planned
        """Return an empty text: a ruleset is always complete."""
        return ""

    def read_dump(self, text: str, source: str) -> Any:  # noqa: ARG002 - two families, whose dumps look alike
        """Return None: the text of a dump does not show its family."""
        return None

    def read_family_dump(self, text: str, source: str) -> Mapping[Family, Any] | None:  # noqa: ARG002 - as above
        """Return None: a dump has one family."""
        return None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the input of `iptables-restore` and of `ip6tables-restore` for an empty kernel."""
        for family, contents in wanted.contents.items():
            ruleset = ruleset_of(contents)
            tables = " ".join(sorted({name.table for name in ruleset.chains}))
            head = f"# rulegen: node {wanted.node!a}, {family}, tables {tables}\n"
            yield Print(_FILES[family], format_ruleset(ruleset), str(family), head)

    def shapes(self, content: RulesFragment) -> Iterator[Shape]:
        """Yield the kernel features that each rule needs."""
        for rules in content.exact.values():
            yield from (shape_of(rule.spec) for rule in rules)
        for block in content.blocks:
            yield from (shape_of(rule.spec) for rule in block.rules)

    def guards_loopback(self, state: Ruleset) -> str:
        """Return the chain that drops packets from outside to loopback addresses, whoever wrote it; empty without."""
        return self._loopback.chain.chain if self._loopback.is_in(state) else ""

    def unguards_loopback(self, changes: Changes) -> bool:
        """Return whether IPv4 changes remove the rule that drops packets from outside to loopback addresses."""
        return self._loopback.is_taken_by(changes)


def _frontends(key: BlockKey) -> Iterator[FrontendKey]:
    return (frontend for spec in key.specs if (frontend := frontend_of(spec)) is not None)


def shape_of(spec: str) -> Shape:
    """Return the kernel features that a rule needs; addresses, ports and numbers make no difference."""
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
        else:  # the chain that a rule jumps to makes no difference
            kept.append(f"{word} {'a chain' if value.startswith(_OURS) else value}")
    return tuple(kept)


@cache
def _shape_of_words(words: tuple[str, ...]) -> Shape:
    return frozenset(words)


def _printed(observed: Objects, desired: Objects, comments: Comments) -> Iterator[tuple[BlockKey, BlockValue]]:
    """Yield the wanted blocks that exist with other comments than we would write.

    The copies that stay come first, then those that will be written.
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
            continue  # true of most blocks
        written = (tuple(settled(rule, comments) for rule in copy) for copy in wants.copies[stays:])
        copies = (*there.copies[:stays], *written)
        if sorted([rule.comment for rule in copy] for copy in copies) != sorted(ours):
            yield key, BlockValue(copies, wants.place)


class _Split(NamedTuple):
    """Changes of rules: those that add protecting chains, all others, and those that remove protecting chains."""

    early: Changes
    rest: Changes
    late: Changes


def _split(changes: Iterable[Change[Key, Value]], guarding: frozenset[ChainName]) -> _Split:
    """Return the changes in three parts; each part keeps the order of the changes."""
    parts: tuple[list[Change[Key, Value]], ...] = ([], [], [])
    names = {name.chain for name in guarding}
    for change in changes:
        goes = change.after is None or (isinstance(change.after, ChainValue) and not change.after.rules)
        parts[(2 if goes else 0) if _is_guarding(change.key, guarding, names) else 1].append(change)
    return _Split(*map(tuple, parts))


def _moves(change: Change[Key, Value]) -> bool:
    return change.before is None or change.after is None


def _is_guarding(
    key: Key, guarding: frozenset[ChainName], names: set[str], built_in: ChainName | None = _INPUT
) -> bool:
    """Whether an object is one of these chains, or the jump to one from a built-in chain; None for any chain."""
    if key.name in guarding:
        return True
    is_from = built_in is None or key.name == built_in
    return isinstance(key, BlockKey) and is_from and f" {key.specs[-1]}".rpartition(" -j ")[2] in names


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
