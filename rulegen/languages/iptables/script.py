"""The scripts of changes: the input of `iptables-restore --noflush`, in order.

The order is make before break (grow, switch, shrink): every chain before what jumps to it, then the dispatch, then
what nothing jumps to any more. In the filter table what rejects comes first and goes last: it matches only packets
that nat did not send to an endpoint. The tool commits a table at once, so a small script has one commit of nat. A
large one may be cut into commits of some hundred chains each (the cost of a commit grows with the square of their
number in iptables-nft 1.8), with the dispatch in a commit behind them.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from rulegen.languages.iptables.ruleset import ChainName, is_unreadable, target
from rulegen.languages.iptables.state import BlockKey, BlockValue, ChainKey, ChainPosition, ChainValue, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.diff.changes import Change
    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.state import Key, Objects, Value

CHAINS_PER_COMMIT = 400
"""For iptables-nft. The first load of 10,000 Services (40,000 chains) takes 4.4 s; other sizes were not tried."""

REWRITE_LEAST = 200
"""A dispatch chain is written again only for more changes than this; single rules leave other rules as they are."""

REWRITE_SHARE = 4
"""A dispatch chain is written again only if more than one in this many of its rules changes."""


LARGE = 1_000
"""More chains of Services than this are written without comments, see `comments_of`."""

VERY_LARGE = 20_000
"""With more chains than this, dispatch chains have no comments either."""


class Restore(msgspec.Struct, frozen=True):
    """One call of `iptables-restore --noflush`.

    Attributes:
        title: A description for messages, such as `nat: 400 chains`.
        text: The input of the tool.
        commits: The number of commits in it; each has a change.
    """

    title: str
    text: str
    commits: int = 1


class Comments(enum.IntEnum):
    """Which rules are written with comments."""

    NOWHERE = 0
    DISPATCH = 1
    """Rules of dispatch and built-in chains. The rule that leads to a chain still shows the owner of the chain."""
    EVERYWHERE = 2


def comments_of(chains: int) -> Comments:
    """Return which rules are written with comments on a node with this number of Service chains.

    A comment is an extension of 256 bytes that nf_tables asks at each commit whether it fits. Of 110,000 rules, those
    of 10,000 Services, the least commit takes the kernel 66 ms with comments everywhere, 41 ms with those of the
    dispatch, 37 ms with none. kube-proxy leaves out those of endpoints beyond 1,000.
    """
    if chains > VERY_LARGE:
        return Comments.NOWHERE
    return Comments.DISPATCH if chains > LARGE else Comments.EVERYWHERE


def script(
    changes: Iterable[Change[Key, Value]],
    desired: Objects | None = None,
    *,
    chains_per_commit: int | None = None,
    comments: Comments = Comments.EVERYWHERE,
) -> tuple[Restore, ...]:
    """Return the calls that write the changes of one family, in order; none if there are no changes.

    Args:
        changes: As `rulegen.diff.changes.diff` has them.
        desired: All desired objects, where they are known: a dispatch chain that changes much is then written again.
        chains_per_commit: How many chains a commit of a large script holds; None for one commit, however large.
        comments: Which rules have their comments, see `comments_of`; those that are there must have been written so.
    """
    tables = _by_table(changes, comments)
    for work in tables.values():
        work.choose_rewrites(desired or {})
    nat = tables.pop("nat", _Table("nat", comments))
    others = [tables[name] for name in sorted(tables)]
    grow = [_Commit(t.name, "chains and rules", t.grow()) for t in others]
    shrink = [_Commit(t.name, "leftovers", t.shrink()) for t in others]
    limit = chains_per_commit
    if limit is None or len(nat.chains) + len(nat.deleted) <= limit:
        whole = _Commit("nat", "chains and dispatch", nat.whole())
        return tuple(_restores([[*grow, whole, *shrink]]))
    chunks = [
        [_Commit("nat", f"{len(c)} chains", _chain_lines(c, comments=comments))]
        for c in _cut(_users_last(nat.chains, nat.dispatched()), limit)
    ]
    switch = [_Commit("nat", "dispatch", nat.switch())]
    leftovers = list(reversed(_users_last(nat.deleted)))
    sweep = [[_Commit("nat", f"{len(c)} leftover chains", _sweep_lines(c))] for c in _cut(leftovers, limit)]
    return tuple(_restores([grow, *chunks, switch, *sweep, shrink]))


def written_anew(changes: Iterable[Change[Key, Value]], desired: Objects) -> frozenset[ChainName]:
    """Return the dispatch chains that `script` writes whole, with all their rules, for the same arguments."""
    tables = _by_table(changes, Comments.NOWHERE)
    for work in tables.values():
        work.choose_rewrites(desired)
    return frozenset(name for work in tables.values() for name in work.created)


def comment_of(rule: Rule, comments: Comments) -> str:
    """Return the comment that `script` writes with a rule of a dispatch or built-in chain; empty for none."""
    return rule.comment if rule.printed or comments is not Comments.NOWHERE else ""


def settled(rule: Rule, comments: Comments) -> Rule:
    """Return a rule of a dispatch or built-in chain with the text that `script` writes and later deletes."""
    if rule.printed:
        return rule
    if comments is Comments.NOWHERE or not rule.comment:
        return replace(rule, comment="")
    return replace(rule, printed=rule.line)


Chains = dict[ChainName, tuple["Rule", ...]]


class _Commit(NamedTuple):
    """The lines of one commit of one table; without lines there is no commit."""

    table: str
    title: str
    lines: list[str]


@dataclass(slots=True)
class _Table:
    """The changes of one table, grouped by the kind of write.

    Attributes:
        comments: Which rules have their comments.
        chains: Exact chains to write, with all their rules.
        created: Dispatch chains to create or write again, with all their rules.
        added, removed: Single rules of dispatch and built-in chains.
        deleted: Chains to delete, with the rules that they had.
        emptied: The dispatch chains among `deleted`; their own values do not show which chains they refer to.
    """

    name: str
    comments: Comments
    chains: Chains = field(default_factory=dict)
    created: dict[ChainName, list[tuple[ChainPosition, tuple[Rule, ...]]]] = field(default_factory=dict)
    added: list[tuple[ChainName, ChainPosition, tuple[Rule, ...]]] = field(default_factory=list)
    removed: list[tuple[ChainName, Rule]] = field(default_factory=list)
    deleted: Chains = field(default_factory=dict)
    emptied: set[ChainName] = field(default_factory=set)

    def take(self, change: Change[Key, Value]) -> None:
        """Add one change. The change of a chain comes before those of its blocks, because keys are sorted."""
        name = change.key.name
        if isinstance(change.after, ChainValue):
            if change.after.kind is Kind.DISPATCH:
                self.created[name] = []
            else:
                self.chains[name] = change.after.rules
        elif isinstance(change.before, ChainValue):
            self.deleted[name] = change.before.rules
            if change.before.kind is Kind.DISPATCH:
                self.emptied.add(name)
        else:
            self._take_block(name, change.before, change.after)

    def _take_block(self, name: ChainName, before: BlockValue | None, after: BlockValue | None) -> None:
        old = before.copies if before else ()
        new = after.copies if after else ()
        is_in_place = before is not None and after is not None and before.place is after.place
        stays = min(len(old), len(new)) if is_in_place else 0
        if name not in self.deleted:  # its rules go with the chain
            self.removed += ((name, rule) for copy in old[stays:] for rule in copy)
        if after is None:
            return
        fresh = ((after.place, copy) for copy in new[stays:])
        if name in self.created:
            self.created[name] += fresh
        else:
            self.added += ((name, place, copy) for place, copy in fresh)

    def choose_rewrites(self, desired: Objects) -> None:
        """Choose the dispatch chains that are written again as a whole, among those with complete wanted rules.

        These are chains with many changes, because that is faster; chains that lose a rule and keep an equal one in a
        block, because deletion by text could remove the wrong one; and chains that lose a rule with unreadable options.
        """
        touched: dict[ChainName, int] = defaultdict(int)
        for name in (*(entry[0] for entry in self.added), *(entry[0] for entry in self.removed)):
            touched[name] += 1
        wholes: dict[ChainName, list[tuple[ChainPosition, tuple[Rule, ...]]]] = {
            name: [] for name in touched if ChainKey(name) in desired
        }
        if not wholes:
            return
        for key, value in desired.items():
            if isinstance(key, BlockKey) and isinstance(value, BlockValue) and key.name in wholes:
                wholes[key.name] += ((value.place, copy) for copy in value.copies)
        for name, whole in wholes.items():
            kept = {rule.spec for _, rules in whole if len(rules) > 1 for rule in rules}
            is_ambiguous = any(
                other == name and (rule.spec in kept or is_unreadable(rule)) for other, rule in self.removed
            )
            is_crowded = touched[name] > REWRITE_LEAST and touched[name] * REWRITE_SHARE > len(whole)
            if is_ambiguous or is_crowded:
                self.created[name] = whole
                self.added = [entry for entry in self.added if entry[0] != name]
                self.removed = [entry for entry in self.removed if entry[0] != name]

    def whole(self) -> list[str]:
        """Return the lines of one commit with all changes."""
        return [*self._declarations(*self.chains, *self.deleted), *self._removals(), *self._rules(), *self._deletions()]

    def dispatched(self) -> Iterator[ChainName]:
        """Yield the chains that new dispatch rules jump to, in the order of those rules."""
        for blocks in self.created.values():
            yield from (ChainName(self.name, target(rules[-1])) for _, rules in blocks)

    def grow(self) -> list[str]:
        """Return the lines that only add or replace."""
        return [*self._declarations(*self.chains), *self._rules()]

    def shrink(self) -> list[str]:
        """Return the lines that only remove."""
        return [*self._declarations_of(self.deleted), *self._removals(), *self._deletions()]

    def switch(self) -> list[str]:
        """Return the lines that change dispatch rules; all chains must exist."""
        lines = self._declarations_of({*self.created, *self.emptied})
        return [*lines, *self._removals(), *self._created(), *self._additions()]

    def _declarations(self, *chains: ChainName) -> list[str]:
        return self._declarations_of({*chains, *self.created})

    @staticmethod
    def _declarations_of(chains: Iterable[ChainName]) -> list[str]:
        """Return the declarations of chains: a new chain is created, an existing one is emptied."""
        return [f":{name.chain} - [0:0]" for name in sorted(chains)]

    def _rules(self) -> Iterator[str]:
        yield from _rule_lines(sorted(self.chains.items()), comments=self.comments)
        yield from self._created()
        yield from self._additions()

    def _created(self) -> Iterator[str]:
        for name in sorted(self.created):
            for is_tail in (False, True):
                for place, rules in self.created[name]:
                    if (place is ChainPosition.TAIL) is is_tail:
                        yield from (f"-A {name.chain} {self._line(rule)}" for rule in rules)

    def _additions(self) -> Iterator[str]:
        """Yield the additions of single rules: tail blocks at the end of the chain, all others at its beginning.

        Insertion at the beginning is the fastest. It reverses the order, so rules are inserted in reverse.
        """
        for name, place, rules in reversed(self.added):
            if place is not ChainPosition.TAIL:
                yield from (f"-I {name.chain} {self._line(rule)}" for rule in reversed(rules))
        for name, place, rules in self.added:
            if place is ChainPosition.TAIL:
                yield from (f"-A {name.chain} {self._line(rule)}" for rule in rules)

    def _removals(self) -> Iterator[str]:
        """Return the deletions of single rules, before any addition: the tool deletes the first rule with the text."""
        return (f"-D {name.chain} {self._line(rule)}" for name, rule in self.removed)

    def _line(self, rule: Rule) -> str:
        """Return a line of a dispatch or built-in chain."""
        return _line(rule, commented=self.comments is not Comments.NOWHERE)

    def _deletions(self) -> Iterator[str]:
        return (f"-X {name.chain}" for name in sorted(self.deleted))


def _by_table(changes: Iterable[Change[Key, Value]], comments: Comments) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    for change in changes:
        table = change.key.name.table
        if table not in tables:
            tables[table] = _Table(table, comments)
        tables[table].take(change)
    return tables


def _chain_lines(chains: Sequence[tuple[ChainName, tuple[Rule, ...]]], *, comments: Comments) -> list[str]:
    """Return the lines of many chains, in the order of `_users_last`."""
    return [*(f":{name.chain} - [0:0]" for name, _ in chains), *_rule_lines(chains, comments=comments)]


def _sweep_lines(chains: Sequence[tuple[ChainName, tuple[Rule, ...]]]) -> list[str]:
    names = sorted(name.chain for name, _ in chains)
    return [*(f":{name} - [0:0]" for name in names), *(f"-X {name}" for name in names)]


def _rule_lines(chains: Iterable[tuple[ChainName, tuple[Rule, ...]]], *, comments: Comments) -> Iterator[str]:
    commented = comments is Comments.EVERYWHERE
    return (f"-A {name.chain} {_line(rule, commented=commented)}".rstrip() for name, rules in chains for rule in rules)


def _line(rule: Rule, *, commented: bool) -> str:
    """Return a rule with or without its comment; a rule that the kernel has keeps its printed text."""
    return rule.line if commented or rule.printed else rule.spec


def _users_last(chains: Chains, dispatched: Iterable[ChainName] = ()) -> list[tuple[ChainName, tuple[Rule, ...]]]:
    """Return the chains in the order of the dispatch rules; each chain follows the chains that it jumps to.

    The kernel keeps chains in the order of their creation. `iptables-nft-save` 1.8 sorts them by name, with a method
    that takes 12 times as long (14 s for 10,000 Services) for sorted input. nf_tables validates all rules from the
    dispatch chains on at each commit; it takes a quarter less time if consecutive chains are neighbours in memory.
    """
    ordered: list[tuple[ChainName, tuple[Rule, ...]]] = []
    left = {name.chain: (name, rules) for name, rules in chains.items()}  # all are of one table
    for start in (*(name.chain for name in dispatched), *sorted(left, key=lambda chain: chain[::-1])):
        stack: list[str | tuple[ChainName, tuple[Rule, ...]]] = [start]
        while stack:
            top = stack.pop()
            if not isinstance(top, str):
                ordered.append(top)
            elif (entry := left.pop(top, None)) is not None:
                used = [other for rule in entry[1] if (other := target(rule)) in left]
                if used:
                    stack += (entry, *reversed(used))
                else:
                    ordered.append(entry)
    return ordered


def _cut(
    chains: list[tuple[ChainName, tuple[Rule, ...]]], size: int
) -> Iterator[list[tuple[ChainName, tuple[Rule, ...]]]]:
    return (chains[start : start + size] for start in range(0, len(chains), size))


def _restores(groups: Iterable[Sequence[_Commit]]) -> Iterator[Restore]:
    """Return one call for each group of commits that has lines."""
    for group in groups:
        commits = [commit for commit in group if commit.lines]
        if commits:
            text = "".join(f"*{c.table}\n{chr(10).join(c.lines)}\nCOMMIT\n" for c in commits)
            yield Restore(", ".join(f"{c.table}: {c.title}" for c in commits), text, len(commits))
