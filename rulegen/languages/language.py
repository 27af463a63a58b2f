"""What a language is to the rest of rulegen: one row for each kind of kernel object that is compared and written.

iptables rules, ipsets, IPVS servers, addresses of devices: each is a map of keyed objects, wanted by owners (the node,
its Services), compared with what the kernel has, and written in order. A language says how its objects are merged,
compared, described and spelled, and in which phase of a write each piece of its work belongs. Nothing above this
package requests a language by name, except the backends that produce its objects.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from typing import Protocol as Interface

from rulegen.diff.changes import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.diff.items import Item
    from rulegen.net import Address, Family, Protocol

Objects = dict[Any, Any]
"""Objects of one language by key; which types they are, the language itself says."""

StateKey = tuple[str, "Family | None"]
"""A language, and the family where the kernel has a state for each; None if it has one state for all."""

Changes = tuple[Change[Any, Any], ...]

K = TypeVar("K")

Shape = frozenset[str]
"""What one object needs of the kernel, without any value: for rules their matches, their target, their options."""


class Phase(enum.IntEnum):
    """When a piece of work is done in a write: make before break, over all languages.

    What a rule names exists before the rule. What answers is ready before packets are led to it, and goes when no
    packet is led to it any more.
    """

    COUNTERS = enum.auto()
    DEVICES_ADDED = enum.auto()
    PARAMETERS = enum.auto()
    TIMEOUTS = enum.auto()
    OTHER_VARIANT = enum.auto()
    """What another tool's tables hold of ours goes before the sets that its rules may look into."""
    SETS_FILLED = enum.auto()
    RULES_EARLY = enum.auto()
    """The rules; where another mode ruled, only those that protect what the next phases add."""
    SETS_REPLACED_EARLY = enum.auto()
    """Sets that are destroyed and made again, when no rule names them."""
    SERVERS = enum.auto()
    SETS_LATE = enum.auto()
    """Entries by which a packet keeps its source: behind what answers it."""
    ADDRESSES_BOUND = enum.auto()
    RULES_SWITCHED = enum.auto()
    """Where another mode ruled: packets are led to what is ready now."""
    SETS_REPLACED_LATE = enum.auto()
    RULES_SETTLED = enum.auto()
    """From the rules that are right while sets change to those that are right from now on."""
    DRAIN = enum.auto()
    ADDRESSES_UNBOUND = enum.auto()
    RULES_REMOVED = enum.auto()
    """Rules that protected what the phases before have removed."""
    SERVERS_REMOVED = enum.auto()
    SETS_EMPTIED = enum.auto()
    DEVICES_REMOVED = enum.auto()
    PARAMETERS_OPENED = enum.auto()
    """Parameters that are dangerous without the rules that are written by now."""
    FLOWS = enum.auto()


@dataclass(frozen=True, slots=True)
class Task:
    """One write: one call of a tool or one exchange with the kernel.

    Attributes:
        phase: When it is done.
        title: What it writes, for people.
        work: What the host is to do; its type tells who does it.
    """

    phase: Phase
    title: str
    work: Any


@dataclass(frozen=True, slots=True)
class WorkTerms:
    """What the work of all languages depends on.

    Attributes:
        chains_per_commit: How many chains a commit of rules holds; None for one commit, however large.
        taken_over: The families in which another mode has ruled until now.
        beside: Whether the parts are of the other variant of iptables, from which they are removed.
    """

    chains_per_commit: int | None = None
    taken_over: frozenset[Family] = frozenset()
    beside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What changes in one language, in one family or in what belongs to none.

    Attributes:
        changes: In order of key, or of owner where a change of some owners was compared alone.
        desired: All that is wanted; empty if that is not needed to make the changes.
    """

    changes: Changes
    desired: Objects = field(default_factory=dict)

    @property
    def takes_over(self) -> bool:
        """Whether another mode has ruled here: then all that answers must be ready before the rules change."""
        return False

    @property
    def all_changes(self) -> Changes:
        """All changes, those by way of a state between too."""
        return self.changes

    @property
    def draining(self) -> tuple[Any, ...]:
        """Keys of objects that are on their way out, about which nothing is to be done yet."""
        return ()

    @property
    def ended(self) -> tuple[Any, ...]:
        """Keys of objects that were on their way out, and are deleted now."""
        return ()

    def only(self, keep: Callable[[Changes], Changes]) -> Part:
        """Return the part with fewer changes, without what only the whole can know."""
        return replace(self, changes=keep(self.changes), desired={})


class Surroundings(Interface):
    """What else is on the node: whose an object is that no fragment wants, and what belongs to it."""

    @property
    def names(self) -> Collection[str]:
        """`namespace/name` of each Service that this node serves."""

    @property
    def filled(self) -> Collection[str]:
        """Names of the sets that have entries now."""

    def rule_owner(self, chain: Any, rule: Any, family: Family) -> str:
        """Return whose a rule is; empty if unknown. It may be a Service that is not served."""

    def owner(self, language: str, key: Any, family: Family | None) -> str | None:
        """Return the owner of an object, of what it belongs to, or who is reached by it; None if unknown."""

    def was_there(self, language: str, key: Any) -> bool:
        """Whether what belongs to a missing object is there still, so that the object must have been there."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a language is compared in: one family, or what belongs to none.

    Attributes:
        family: Which; None for objects of no family.
        state: All that the kernel has in this language, ours and others'.
        ours: By language, our objects as they are; of languages that nobody looked at there is nothing.
        desired: By language, all that is wanted.
        owners: By language, who wants an object.
        ownership: Tells our objects from others'; its type is the language's own.
        between: What is wanted while other languages change; None if that makes no difference.
        around: What else is on the node.
        is_cleanup: Whether all that is ours goes.
    """

    family: Family | None
    state: Any
    ours: Mapping[str, Objects]
    desired: Mapping[str, Objects]
    owners: Mapping[str, Mapping[Any, str]]
    ownership: Any
    between: Objects | None = None
    around: Surroundings
    is_cleanup: bool = False


class FrontendKey(NamedTuple):
    """Where packets of clients come in: an address, None for any of the node's own, a protocol and a port."""

    address: Address | None
    protocol: Protocol
    port: int


class Union(Interface):
    """What all owners want of one language in one family, merged."""

    def replace(self, owner: str, before: Any, after: Any) -> None:
        """Put what an owner wants now in place of what it wanted; None for nothing. It costs what the two hold."""

    def changes(self, pairs: Iterable[tuple[str, Any, Any]]) -> Changes:
        """Return what changes if owners want something else, without putting it in place: owner, before, after.

        It is the difference of the whole, computed from what the owners hold.
        """

    def objects(self) -> Objects:
        """Return all that is wanted."""

    def owners(self) -> Mapping[Any, str]:
        """Return of each object who wants it; the first of several."""

    def wants(self, key: Any) -> bool:
        """Return whether anybody wants an object."""

    def copy(self) -> Union:
        """Return the same as of now, which later replacements do not change."""


@dataclass(frozen=True, slots=True)
class NodeSteps:
    """What the node itself wants of one language, where that changes with what Services want.

    Attributes:
        before: What it wanted.
        between: What is right while objects of other languages change.
        after: What it wants.
    """

    before: Any
    between: Any
    after: Any


class KernelMemory(Interface):
    """What is known of the kernel in one language and family beside what was wanted; kept between updates."""

    @property
    def leaving(self) -> Collection[Any]:
        """Keys of objects that are there though nobody wants them: their connections have not ended."""

    @property
    def is_outdated(self) -> bool:
        """Whether a plan of the whole would now write the same objects otherwise."""

    def carried(self, before: Any, after: Any) -> Any:
        """Return what an owner wants now, with what stays as the kernel has it; None for nothing."""

    def part(self, union: Union, pairs: Iterable[tuple[str, Any, Any]], steps: NodeSteps | None) -> Part:
        """Return what changes if owners want something else, and the node with them."""

    def replaced(self, before: Any, after: Any) -> None:
        """Take note that an owner wants something else; None for nothing."""

    def written(self, part: Part, union: Union) -> None:
        """Take note of a part that was written; the union has what is wanted since."""

    def remember(self, part: Part | None, contents: Mapping[K, Any]) -> dict[K, Any]:
        """Forget what was known, and take note of what a plan of the whole shows of the kernel.

        Returns:
            Of the contents of owners those that the kernel has otherwise, as it has them.
        """

    def renew(self, contents: Mapping[K, Any]) -> dict[K, Any]:
        """Write objects from now on as a plan of the whole would.

        Returns:
            Of the contents of owners those that the kernel has otherwise, as it has them.
        """


class Holder(Interface):
    """Finds what the kernel has of a Service that is left out."""

    def held(self, content: Any, frontends: Collection[FrontendKey]) -> Any:
        """Return what is there of a Service; None for nothing.

        Args:
            content: What the Service wants.
            frontends: Where its connections come in and go to, as far as other languages have shown by now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintScope:
    """What is wanted of one language on a node, for printing.

    Attributes:
        node: The node's name.
        contents: By family, what each owner wants, the node first.
        objects: All objects, of all families and of none.
    """

    node: str
    contents: Mapping[Family, Sequence[Any]]
    objects: Objects


@dataclass(frozen=True, slots=True)
class Print:
    """Objects as a standard tool loads or prints them.

    Attributes:
        file: The name of the file in an export.
        text: What the tool loads.
        title: What it is, for people who read all of it in one page; empty for what says nothing new there.
        head: A first line that only the file has.
    """

    file: str
    text: str
    title: str = ""
    head: str = ""


class Language(Interface):
    """One row: all that the rest of rulegen must know of a language. Functions are pure."""

    @property
    def name(self) -> str:
        """As items, JSON documents and exports name it."""

    def union(self) -> Union:
        """Return an empty union: how the wants of several owners merge."""

    def memory(self) -> KernelMemory:
        """Return what is known of a kernel about which nothing is known yet."""

    def ours(self, state: Any, ownership: Any, desired: Objects) -> Objects | None:
        """Return our objects as they are; None if nobody looked.

        Args:
            state: All that the kernel has in this language.
            ownership: Tells our objects from others'.
            desired: All that is wanted: an object that could be read in part is taken for the one that it may be.
        """

    def references(self, state: Any, ownership: Any) -> References:
        """Return which objects of other languages are named by objects that are not ours: these cannot go."""

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:
        """Return what is wanted, and what must stay since others refer to it."""

    def compare(self, scene: Scene) -> Part:
        """Return what changes."""

    def items(self, part: Part, scene: Scene) -> Iterator[Item]:
        """Yield an item for each change of a part, in the order of the changes."""

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        """Yield the writes that make the changes of all families, in order within each phase."""

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> Holder:
        """Return what finds the objects of a Service among ours; `others` has what others want."""

    def frontends(self, content: Any) -> Iterator[FrontendKey]:
        """Yield the addresses and ports that objects of one owner stand for, where only these tell it."""

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:
        """Yield the frontends that a part removes without putting others in their place."""

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:
        """Return the state of a kernel that has nothing, by language and family; None for one state for all."""

    def unseen(self, state: Any) -> str:
        """Return what a state lacks that was not looked at, and how to look; empty for nothing. None is no state."""

    def read_dump(self, text: str, source: str) -> Any:
        """Return the state that a dump holds, as a standard tool prints it; None for a text of another kind.

        Raises:
            InputError: It is of this language, and broken.
        """

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield what is wanted as the standard tools load it."""

    def shapes(self, content: Any) -> Iterator[Shape]:
        """Yield what each object of one owner needs of the kernel."""

    def guards_loopback(self, state: Any) -> bool:
        """Return whether a state of IPv4 keeps neighbours from the loopback addresses, whoever wrote it."""

    def unguards_loopback(self, changes: Changes) -> bool:
        """Return whether changes of IPv4 take away what keeps neighbours from the loopback addresses."""


@dataclass(frozen=True, slots=True)
class References:
    """Objects of other languages that another program's objects name.

    Attributes:
        names: By language, the names.
        unknown: Whether not all could be read: then anything may be named.
    """

    names: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    unknown: bool = False

    def merged_with(self, other: References) -> References:
        """Return the references of both."""
        languages = self.names.keys() | other.names.keys()
        names = {name: self.names.get(name, frozenset()) | other.names.get(name, frozenset()) for name in languages}
        return References(names, self.unknown or other.unknown)
