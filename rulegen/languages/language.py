"""The protocol of a language: one row for each kind of kernel object that rulegen compares and writes.

Objects have keys. Each is wanted by one or more owners: the node, or a Service. A language merges the objects of all
owners, compares them with the kernel's, and names the phase of each write. Only backends know the name of a language.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from typing import Protocol as Interface

import msgspec

from rulegen.diff.changes import Change
from rulegen.net import join_host_port

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.diff.items import Item
    from rulegen.net import Address, Family, Protocol

Objects = dict[Any, Any]
"""Objects of one language by key; the language defines the types of both."""

StateKey = tuple[str, "Family | None"]
"""A language and an address family; None if the kernel keeps one state for both families."""

Changes = tuple[Change[Any, Any], ...]

K = TypeVar("K")

Shape = frozenset[str]
"""The kernel features that one object needs; for a rule, the names of its matches, target and options."""


class Phase(enum.IntEnum):
    """The order of writes over all languages: make before break.

    An object exists before a rule refers to it. A virtual server or a chain is complete before packets reach it, and
    it is removed after the last rule or address that leads packets to it.
    """

    COUNTERS = enum.auto()
    DEVICES_ADDED = enum.auto()
    PROXY_ADDED = enum.auto()
    PARAMETERS = enum.auto()
    TIMEOUTS = enum.auto()
    OTHER_VARIANT = enum.auto()
    """Remove our rules from the other variant of iptables, before the sets that these rules may match."""
    PORTALS_CLOSED = enum.auto()
    """Remove the rules that lead to the proxy before those that let such packets pass, if the mode serves all."""
    SETS_FILLED = enum.auto()
    RULES_EARLY = enum.auto()
    """Rules. After another mode, only those that protect the objects of the next phases."""
    SETS_REPLACED_EARLY = enum.auto()
    """Sets that must be destroyed and created again, if no rule refers to them."""
    SERVERS = enum.auto()
    SETS_LATE = enum.auto()
    """Set entries that let packets keep their source address, after the servers that answer them."""
    ADDRESSES_BOUND = enum.auto()
    RULES_SWITCHED = enum.auto()  # after another mode: the rules that lead packets to the new objects
    SETS_REPLACED_LATE = enum.auto()
    PORTALS_REPLACED = enum.auto()  # the same as PORTALS_CLOSED, if virtual servers had to be added first
    RULES_SETTLED = enum.auto()
    """Replace the rules that were correct during the change of sets by the final ones."""
    PORTALS_OPENED = enum.auto()
    """Rules that lead to the proxy, after those that let such packets pass, and before virtual servers are removed."""
    DRAIN = enum.auto()
    ADDRESSES_UNBOUND = enum.auto()
    RULES_REMOVED = enum.auto()
    """Remove the rules that protected objects which earlier phases removed."""
    SERVERS_REMOVED = enum.auto()
    SETS_EMPTIED = enum.auto()
    FLOWS_OF_PROXY = enum.auto()  # those that the proxy has served until now, before it goes
    PROXY_REMOVED = enum.auto()
    DEVICES_REMOVED = enum.auto()
    PARAMETERS_OPENED = enum.auto()
    """Kernel parameters that would be dangerous without the rules written before."""
    FLOWS = enum.auto()
    PROXY_KEPT = enum.auto()
    """Write the files of what the proxy serves already, so that its next start serves it too."""


class Task(msgspec.Struct, frozen=True):
    """One write: one call of a tool or one exchange with the kernel.

    Attributes:
        phase: When it is written.
        title: A description for messages.
        work: The input of the driver; its type selects the driver.
    """

    phase: Phase
    title: str
    work: Any


class WorkTerms(msgspec.Struct, frozen=True):
    """Conditions of one write, the same for all languages.

    Attributes:
        chains_per_commit: The most chains in one commit of rules; None for a single commit.
        taken_over: The families in which another proxy mode has been active until now.
        beside: Whether the changes remove our rules from the other variant of iptables.
        marked: By family, the mark of packets that rules begin or cease to lead to a proxy.
    """

    chains_per_commit: int | None = None
    taken_over: frozenset[Family] = frozenset()
    beside: bool = False
    marked: Mapping[Family, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The changes of one language in one family, or of its objects of no family.

    Attributes:
        changes: Sorted by key; sorted by owner if only some owners were compared.
        desired: All wanted objects; empty if the write does not need them.
    """

    changes: Changes
    desired: Objects = field(default_factory=dict)

    @property
    def takes_over(self) -> bool:
        """Whether another proxy mode was active: then servers must be complete before rules change."""
        return False

    @property
    def new_mark(self) -> int:
        """The mark that packets begin or cease to get for a proxy; 0 for none."""
        return 0

    @property
    def all_changes(self) -> Changes:
        """All changes, including those to and from an intermediate state."""
        return self.changes

    @property
    def differing(self) -> int:
        """The number of objects that differ. A language may also write objects again that do not."""
        return sum(before != after for _, before, after in self.changes)

    @property
    def draining(self) -> tuple[Any, ...]:
        """Keys of objects that drain: they stay until their connections have ended."""
        return ()

    @property
    def ended(self) -> tuple[Any, ...]:
        """Keys of objects that have drained and are deleted now."""
        return ()

    def only(self, keep: Callable[[Changes], Changes]) -> Part:
        """Return the part with only the changes that `keep` returns, and without `desired`."""
        return replace(self, changes=keep(self.changes), desired={})


class Surroundings(Interface):
    """Finds the owners of objects on the node that no fragment wants."""

    @property
    def names(self) -> Collection[str]:
        """`namespace/name` of each Service that this node serves."""

    @property
    def filled(self) -> Collection[str]:
        """The names of the sets that have entries in the kernel."""

    def rule_owner(self, chain: Any, rule: Any, family: Family) -> str:
        """Return the owner of a rule; empty if unknown. It may be a Service that this node does not serve."""

    def owner(self, language: str, key: Any, family: Family | None) -> str | None:
        """Return the owner of an object, or of the objects that it refers to; None if unknown."""

    def was_there(self, language: str, key: Any) -> bool:
        """Whether a missing object existed before: objects that depend on it are still there."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The input of a comparison of one language in one family, or of its objects of no family.

    Attributes:
        family: The family; None for objects of no family.
        state: All objects of the language in the kernel, ours and others'.
        ours: By language, our objects in the kernel; languages that were not read are absent.
        desired: By language, all wanted objects.
        owners: By language, the owner of each wanted object.
        ownership: Decides which objects are ours; each language has its own type.
        between: The wanted objects while other languages change; None if they are the same as `desired`.
        around: The owners of other objects on the node.
        is_cleanup: Whether all our objects are removed.
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
    """Address, protocol and port that clients connect to; address None stands for a node port."""

    address: Address | None
    protocol: Protocol
    port: int

    @property
    def text(self) -> str:
        """The frontend for people, such as `TCP 10.96.0.10:80`; a node port has `*` as its address."""
        place = f"*:{self.port}" if self.address is None else join_host_port(self.address, self.port)
        return f"{self.protocol} {place}"


class Union(Interface):
    """The wanted objects of all owners, for one language and family."""

    def replace(self, owner: str, before: Any, after: Any) -> None:
        """Replace the objects of one owner; None stands for no objects. The cost depends on these objects alone."""

    def changes(self, pairs: Iterable[tuple[str, Any, Any]]) -> Changes:
        """Return the changes that new objects of some owners would make; the union stays as it is.

        The result equals a comparison of all objects, but is computed from those of these owners.

        Args:
            pairs: Owner, its objects before, its objects after.
        """

    def objects(self) -> Objects:
        """Return all wanted objects."""

    def owners(self) -> Mapping[Any, str]:
        """Return the owner of each object; of several owners, the first by name."""

    def wants(self, key: Any) -> bool:
        """Return whether any owner wants an object."""

    def copy(self) -> Union:
        """Return a copy that later replacements do not change."""


class NodeSteps(msgspec.Struct, frozen=True):
    """The node's own objects of one language, if they change together with those of Services.

    Attributes:
        before: The objects before the change.
        between: Objects that are correct while other languages change.
        after: The objects after the change.
    """

    before: Any
    between: Any
    after: Any


class KernelMemory(Interface):
    """Differences between the kernel and the wanted objects of one language and family, kept between updates."""

    @property
    def leaving(self) -> Collection[Any]:
        """Keys of objects that no owner wants any more and whose connections have not ended."""

    @property
    def is_outdated(self) -> bool:
        """Whether a full plan would now write the same objects with other text, such as without comments."""

    def carried(self, before: Any, after: Any) -> Any:
        """Return the new objects of an owner; unchanged ones keep the text that the kernel has. None: no objects."""

    def part(self, union: Union, pairs: Iterable[tuple[str, Any, Any]], steps: NodeSteps | None) -> Part:
        """Return the changes that new objects of some owners, and of the node, make."""

    def replaced(self, before: Any, after: Any) -> None:
        """Record that the objects of an owner were replaced; None stands for no objects."""

    def written(self, part: Part, union: Union) -> None:
        """Record that a part was written; `union` has the wanted objects after it."""

    def remember(self, part: Part | None, contents: Mapping[K, Any]) -> dict[K, Any]:
        """Replace all records by what a full plan shows of the kernel.

        Returns:
            The contents that the kernel has with other text, as the kernel has them.
        """

    def renew(self, contents: Mapping[K, Any]) -> dict[K, Any]:
        """Write objects from now on with the text of a full plan.

        Returns:
            The contents that the kernel has with other text, as the kernel has them.
        """


class Holder(Interface):
    """Finds the objects in the kernel that belong to a Service which is left out of a plan."""

    def held(self, content: Any, frontends: Collection[FrontendKey]) -> Any:
        """Return the objects of a Service in the kernel; None if there are none.

        Args:
            content: The objects that the Service would want.
            frontends: Its frontends and endpoints, as objects of other languages show them.
        """


class PrintScope(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted objects of one language on a node, for printing.

    Attributes:
        node: The name of the node.
        contents: By family, the contents of each owner, the node first.
        objects: All objects of all families, and those of no family.
    """

    node: str
    contents: Mapping[Family, Sequence[Any]]
    objects: Objects


class Print(msgspec.Struct, frozen=True):
    """The text of objects in the format of a standard tool.

    Attributes:
        file: The name of the file in an export.
        text: What the tool loads.
        title: The heading on a page that has all texts; empty if the page leaves this text out.
        head: A first line in the file only.
    """

    file: str
    text: str
    title: str = ""
    head: str = ""


class Language(Interface):
    """One language, as a row of the table of languages. All functions are pure."""

    @property
    def name(self) -> str:
        """The name in items, JSON documents and exports."""

    @property
    def has_variants(self) -> bool:
        """Whether the kernel can hold its objects twice, as in the two variants of iptables."""

    def union(self) -> Union:
        """Return an empty union."""

    def memory(self) -> KernelMemory:
        """Return a memory without records."""

    def ours(self, state: Any, ownership: Any, desired: Objects) -> Objects | None:
        """Return our objects in the kernel; None if the state was not read.

        Args:
            state: All objects of the language in the kernel.
            ownership: Decides which objects are ours.
            desired: All wanted objects. A partly readable object counts as the wanted object that it can be.
        """

    def references(self, state: Any, ownership: Any) -> References:
        """Return the objects of other languages that foreign objects refer to; they cannot be deleted."""

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:
        """Return the wanted objects, and those of ours that must stay because foreign objects refer to them."""

    def compare(self, scene: Scene) -> Part:
        """Return the changes from the kernel's objects to the wanted objects."""

    def items(self, part: Part, scene: Scene) -> Iterator[Item]:
        """Yield an item for each change of a part, in the order of the changes."""

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        """Yield the writes of the changes of all families; within a phase, they run in this order."""

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> Holder:
        """Return what finds the objects of a Service in `ours`; `others` has the wanted objects of other owners."""

    def frontends(self, content: Any) -> Iterator[FrontendKey]:
        """Yield the frontends of one owner, if objects of this language show them and no other's do."""

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:
        """Yield the frontends that a part removes without a replacement."""

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:
        """Return the states of an empty kernel, by language and family (see `StateKey`)."""

    def unseen(self, state: Any) -> str:
        """Return which part of a state was not read, and how to read it; empty if complete. None: no state was read."""

    def read_dump(self, text: str, source: str) -> Any:
        """Return the state that the dump of a standard tool contains; None if the text is of another language.

        Raises:
            InputError: The dump is of this language, and cannot be read.
        """

    def read_family_dump(self, text: str, source: str) -> Mapping[Family, Any] | None:
        """Return the states by family that one dump contains; None if the text is of another language.

        Raises:
            InputError: The dump is of this language, and cannot be read.
        """

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the wanted objects in the format that standard tools load."""

    def shapes(self, content: Any) -> Iterator[Shape]:
        """Yield the kernel features that each object of one owner needs."""

    def guards_loopback(self, state: Any) -> str:
        """Return the chain of an IPv4 state that drops packets from outside to loopback addresses, whoever wrote it.

        Empty if there is none.
        """

    def unguards_loopback(self, changes: Changes) -> bool:
        """Return whether IPv4 changes remove the rule that drops packets from outside to loopback addresses."""


class References(msgspec.Struct, frozen=True):
    """Objects of other languages that the objects of another program refer to.

    Attributes:
        names: By language, the names of these objects.
        unknown: Whether some objects could not be read. They may refer to any object.
    """

    names: Mapping[str, frozenset[str]] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    unknown: bool = False

    def merged_with(self, other: References) -> References:
        """Return the references of both, by language."""
        languages = self.names.keys() | other.names.keys()
        names = {name: self.names.get(name, frozenset()) | other.names.get(name, frozenset()) for name in languages}
        return References(names, self.unknown or other.unknown)
