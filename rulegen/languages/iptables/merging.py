"""Merges the rules of several owners, computes their changes, and records their text in the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rulegen.diff.changes import Change, diff
from rulegen.languages.iptables.kept_text import adopted, carried, copies_of, written
from rulegen.languages.iptables.script import Comments, comments_of
from rulegen.languages.iptables.state import BlockKey, BlockValue, RulesFragment, Wanted, wanted
from rulegen.languages.language import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from rulegen.languages.iptables.state import Key, Objects, Value
    from rulegen.languages.language import Changes, K, NodeSteps, Union


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesPart(Part):
    """The changes of the rules of one family.

    Attributes:
        bridge: The changes to an intermediate state and those from there, if sets that the rules match change too;
            None if `changes` can be written at once.
        stages: The changes in several steps, if table nat must skip marked packets meanwhile, see `passing`.
        marked: See `new_mark`.
        switches: Whether another proxy mode was active.
        comments: Which rules are written with their comments.
        printed: Wanted blocks whose comments in the kernel after the write differ from those of `comments`, with the
            text that the kernel has.
    """

    bridge: tuple[Changes, Changes] | None = None
    stages: tuple[Changes, ...] = ()
    marked: int = 0
    switches: bool = False
    comments: Comments = Comments.EVERYWHERE
    printed: Mapping[BlockKey, BlockValue] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def takes_over(self) -> bool:
        """Whether another proxy mode was active: then servers must be complete before rules change."""
        return self.switches

    @property
    def new_mark(self) -> int:
        """The mark that packets begin or cease to get, for a proxy; 0 if that does not change."""
        return self.marked

    @property
    def all_changes(self) -> Changes:
        """All changes, including those to and from the intermediate state."""
        return (*self.changes, *(change for half in self.bridge or () for change in half))

    def only(self, keep: Callable[[Changes], Changes]) -> Part:
        """Return the part with only the changes that `keep` returns, and without `desired`."""
        bridge = self.bridge and (keep(self.bridge[0]), keep(self.bridge[1]))
        return RulesPart(
            changes=keep(self.changes),
            bridge=bridge,
            marked=self.marked,
            switches=self.switches,
            comments=self.comments,
            printed=self.printed,
        )

    def without(self, keys: frozenset[Key]) -> RulesPart:
        """Return the part without the changes of some objects, which are written later."""

        def others(changes: Changes) -> Changes:
            return tuple(change for change in changes if change.key not in keys)

        return replace(
            self,
            changes=others(self.changes),
            bridge=self.bridge and (others(self.bridge[0]), others(self.bridge[1])),
            stages=tuple(map(others, self.stages)),
        )


class CountedUnion:
    """The fragments of all owners. A rule that several owners want exists once for each of them."""

    def __init__(self, fragments: Mapping[str, RulesFragment] | None = None) -> None:
        """Start with the fragments of some owners, by default with none."""
        self._fragments: dict[str, RulesFragment] = dict(fragments or {})
        self._wanted: Wanted | None = None

    def copy(self) -> CountedUnion:
        """Return a copy that later replacements do not change."""
        return CountedUnion(self._fragments)

    def replace(self, owner: str, before: RulesFragment | None, after: RulesFragment | None) -> None:  # noqa: ARG002 - replaced by owner
        """Replace the fragment of one owner."""
        self._wanted = None
        if after is None:
            self._fragments.pop(owner, None)
        else:
            self._fragments[owner] = after

    def changes(self, pairs: Iterable[tuple[str, RulesFragment | None, RulesFragment | None]]) -> Changes:
        """Return the changes that new fragments of some owners would make, in the order of the pairs."""
        return tuple(change for _, before, after in pairs for change in step(before, after))

    def wanted(self) -> Wanted:
        """Return all wanted objects: the node's first, then those of Services by namespace and name."""
        if self._wanted is None:
            owners = sorted(self._fragments, key=lambda owner: tuple(owner.split("/")))
            self._wanted = wanted(self._fragments[owner] for owner in owners)
        return self._wanted

    def objects(self) -> Objects:
        """Return all objects."""
        return self.wanted().objects

    def owners(self) -> Mapping[Key, str]:
        """Return the owner of each object; of several owners, the first by name."""
        return self.wanted().owners

    def wants(self, key: Any) -> bool:
        """Return whether any owner wants an object."""
        return key in self.wanted().objects


class RulesMemory:
    """Records which rules are written with comments. Fragments keep the text that the kernel has."""

    def __init__(self) -> None:
        """Start without records."""
        self._chains = 0
        self._comments: Comments | None = None

    @property
    def leaving(self) -> Collection[Any]:
        """Return no keys: rules are deleted at once."""
        return ()

    @property
    def is_outdated(self) -> bool:
        """Whether the number of chains has changed so much that a full plan would write other comments."""
        return comments_of(self._chains) is not self._comments

    def carried(self, before: RulesFragment | None, after: RulesFragment | None) -> RulesFragment | None:
        """Return the new fragment of an owner; rules that stay keep the text of the fragment before."""
        return after if before is None or after is None else carried(before, after)

    def part(self, union: Union, pairs: Iterable[tuple[str, Any, Any]], steps: NodeSteps | None) -> RulesPart:
        """Return the changes of these owners and of the node, with the intermediate state if the node needs one."""
        comments = Comments.EVERYWHERE if self._comments is None else self._comments
        rules = union.changes(pairs)
        if steps is None:
            return RulesPart(changes=rules, comments=comments)
        there, on = step(steps.before, steps.between), step(steps.between, steps.after)
        changes = (*step(steps.before, steps.after), *rules)
        return RulesPart(changes=changes, bridge=((*there, *rules), on) if on else None, comments=comments)

    def replaced(self, before: RulesFragment | None, after: RulesFragment | None) -> None:
        """Count the chains that the replacement adds or removes."""
        self._chains += (len(after.exact) if after else 0) - (len(before.exact) if before else 0)

    def written(self, part: Part, union: Union) -> None:
        """Record nothing: the fragments have the text of the rules."""

    def remember(self, part: Part | None, contents: Mapping[K, RulesFragment]) -> dict[K, RulesFragment]:
        """Record which rules have other comments in the kernel, such as those of kube-proxy."""
        if not isinstance(part, RulesPart):
            return {}
        self._comments = part.comments
        there = copies_of(part.printed)
        return {key: adopted(content, there) for key, content in contents.items()} if there else {}

    def renew(self, contents: Mapping[K, RulesFragment]) -> dict[K, RulesFragment]:
        """Write the comments of a full plan from now on; written rules keep theirs."""
        before, after = self._comments, comments_of(self._chains)
        self._comments = after
        if before is None or before is after or Comments.NOWHERE not in {before, after}:
            return {}  # rules of shared chains are written alike
        return {key: written(content, before) for key, content in contents.items()}


def step(before: RulesFragment | None, after: RulesFragment | None) -> tuple[Change[Key, Value], ...]:
    """Return the changes from one fragment of an owner to the next; the cost depends on these two alone.

    The result equals a comparison of all fragments: equal rules in shared chains are counted, so those of other owners
    stay.
    """
    old, new = ((fragment,) if fragment is not None else () for fragment in (before, after))
    return diff(wanted(old).objects, wanted(new).objects)
