"""How the rules of several owners merge, what changes of them, and what is known of those in the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """What changes in the rules of one family.

    Attributes:
        bridge: Where the rules must pass through a state between, since the sets that they look into change: the
            changes to there, and those from there on. Else None, and `changes` is all.
        switches: Whether another mode has ruled here.
        comments: Which rules are written with their comments.
        printed: Blocks that are wanted, as the kernel has them once the changes are written, where their comments are
            not those that `comments` requests.
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
        """Start with the fragments of some owners, by default with none."""
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


def step(before: RulesFragment | None, after: RulesFragment | None) -> tuple[Change[Key, Value], ...]:
    """Return the changes that turn what one owner had of iptables into what it wants: what changed, not what exists.

    It is the difference of the whole, seen where it is: rules in shared chains are counted, so what other owners want
    of the same stays.
    """
    old, new = ((fragment,) if fragment is not None else () for fragment in (before, after))
    return diff(wanted(old).objects, wanted(new).objects)
