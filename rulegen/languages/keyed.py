"""Base for languages whose objects several owners may share: an object stays until its last owner is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.diff.changes import Change, diff
from rulegen.diff.items import Action, Item, Line
from rulegen.languages.language import Part, References

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.diff.items import Drift, ItemEndpoint
    from rulegen.languages.language import (
        Changes,
        FrontendKey,
        Holder,
        K,
        KernelMemory,
        NodeSteps,
        Objects,
        Print,
        PrintScope,
        Scene,
        Shape,
        StateKey,
        Union,
    )
    from rulegen.net import Family

Wants = tuple[tuple[str, Any], ...]
"""The owners of an object, sorted by name, each with the value that it wants."""


class WantedObjects:
    """Objects with their owners. Nearly all objects have one owner: these take two entries of maps and no tuple.

    Attributes:
        values: The value of each object; if owners want different ones, that of the first by name.
        owners: The owner of each object; of several owners, the first by name.
        several: The owners of those objects that several owners want.
    """

    __slots__ = ("owners", "several", "values")

    def __init__(self, start: WantedObjects | None = None) -> None:
        """Start with the objects of another one, by default with none."""
        self.values: dict[Any, Any] = start.values.copy() if start is not None else {}
        self.owners: dict[Any, str] = start.owners.copy() if start is not None else {}
        self.several: dict[Any, Wants] = start.several.copy() if start is not None else {}

    def of(self, key: Any) -> Wants:
        """Return the owners of an object."""
        if key in self.several:
            return self.several[key]
        return ((self.owners[key], self.values[key]),) if key in self.values else ()

    def put(self, key: Any, wants: Wants) -> None:
        """Replace the owners of an object."""
        self.several.pop(key, None)
        if len(wants) > 1:
            self.several[key] = wants
        if wants:
            self.owners[key], self.values[key] = wants[0]
        else:
            self.owners.pop(key, None)
            self.values.pop(key, None)

    def put_new(self, owner: str, objects: Mapping[Any, Any]) -> bool:
        """Add the objects of an owner, unless another owner wants one of them."""
        if not self.values.keys().isdisjoint(objects):
            return False
        self.values.update(objects)
        self.owners.update(dict.fromkeys(objects, owner))
        return True


class SharedUnion:
    """The wanted objects of all owners. If owners want different values, the first owner by name decides."""

    def __init__(self, wanted: WantedObjects | None = None) -> None:
        """Start with these objects, by default with none."""
        self._wanted = WantedObjects(wanted)

    def copy(self) -> SharedUnion:
        """Return a copy that later replacements do not change."""
        return SharedUnion(self._wanted)

    def objects(self) -> Objects:
        """Return all objects."""
        return self._wanted.values.copy()

    def owners(self) -> dict[Any, str]:
        """Return the owner of each object; of several owners, the first by name."""
        return self._wanted.owners.copy()

    def wants(self, key: Any) -> bool:
        """Return whether any owner wants an object."""
        return key in self._wanted.values

    def replace(self, owner: str, before: Mapping[Any, Any] | None, after: Mapping[Any, Any] | None) -> None:
        """Replace the objects of one owner."""
        if not before and after and self._wanted.put_new(owner, after):  # a first load: nothing to merge
            return
        for key, wants in self._replaced(((owner, before, after),)):
            self._wanted.put(key, wants)

    def changes(self, pairs: Iterable[tuple[str, Mapping[Any, Any] | None, Mapping[Any, Any] | None]]) -> Changes:
        """Return the changes that new objects of some owners would make."""
        changes: list[Change[Any, Any]] = []
        for key, wants in self._replaced(pairs):
            before, after = self._wanted.values.get(key), wants[0][1] if wants else None
            if before != after:
                changes.append(Change(key, before, after))
        return tuple(sorted(changes, key=lambda change: change.key))

    def _replaced(
        self, pairs: Iterable[tuple[str, Mapping[Any, Any] | None, Mapping[Any, Any] | None]]
    ) -> Iterator[tuple[Any, Wants]]:
        """Yield the keys of the pairs, each with its owners after the replacement."""
        touched: dict[Any, dict[str, Any]] = {}
        for owner, before, after in pairs:
            for objects, is_wanted in ((before, False), (after, True)):
                for key, value in (objects or {}).items():
                    if key not in touched:
                        touched[key] = dict(self._wanted.of(key))
                    if is_wanted:
                        touched[key][owner] = value
                    else:
                        touched[key].pop(owner, None)
        for key, wants in touched.items():
            yield (
                key,
                tuple(sorted(wants.items(), key=lambda want: want[0])) if len(wants) > 1 else tuple(wants.items()),
            )


class SharedMemory:
    """Has no records: the kernel has the wanted objects, and their text does not vary."""

    @property
    def leaving(self) -> Collection[Any]:
        """Return no keys."""
        return ()

    @property
    def is_outdated(self) -> bool:
        """Always false: the text of these objects does not vary."""
        return False

    def carried(self, before: Any, after: Any) -> Any:  # noqa: ARG002 - a keyed object is itself alone
        """Return the new objects of the owner."""
        return after

    def part(self, union: Union, pairs: Iterable[tuple[str, Any, Any]], steps: NodeSteps | None) -> Part:
        """Return the changes that new objects of some owners, and of the node, make."""
        of_node = [] if steps is None else [("", steps.before, steps.after)]
        return Part(changes=self.changes(union.changes([*pairs, *of_node])))

    def changes(self, changes: Changes) -> Changes:
        """Return the changes to write; a subclass adapts them to its records."""
        return changes

    def replaced(self, before: Any, after: Any) -> None:
        """Record nothing."""

    def written(self, part: Part, union: Union) -> None:
        """Record nothing."""

    def remember(self, part: Part | None, contents: Mapping[K, Any]) -> dict[K, Any]:  # noqa: ARG002 - as above
        """Record nothing."""
        return {}

    def renew(self, contents: Mapping[K, Any]) -> dict[K, Any]:  # noqa: ARG002 - as above
        """Return no contents: the text of these objects does not vary."""
        return {}


class SharedHolder:
    """Finds the objects of a Service in the kernel: those that it would want and that no other owner wants."""

    def __init__(self, ours: Objects, others: Mapping[Any, Any]) -> None:
        """Take our objects in the kernel, and the wanted objects of other owners."""
        self._ours, self._others = ours, others

    def held(self, content: Mapping[Any, Any], frontends: Collection[FrontendKey]) -> Objects | None:  # noqa: ARG002 - the keys tell
        """Return the objects of a Service in the kernel; None if there are none."""
        mine = {key: self._ours[key] for key in content if key in self._ours and key not in self._others}
        return mine or None


class KeyedLanguage:
    """The common part of languages with shared objects. A subclass names, compares and writes its objects."""

    name = ""
    has_variants = False

    def union(self) -> Union:
        """Return an empty union."""
        return SharedUnion()

    def memory(self) -> KernelMemory:
        """Return a memory without records."""
        return SharedMemory()

    def ours(self, state: Any, ownership: Any, desired: Objects) -> Objects | None:  # noqa: ARG002 - all can be read
        """Return our objects in the kernel; None if the state was not read."""
        ours: Objects | None = ownership.ours(state)
        return ours

    def references(self, state: Any, ownership: Any) -> References:  # noqa: ARG002 - objects with keys name no others
        """Return no references."""
        return References()

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:  # noqa: ARG002 - nothing refers to it
        """Return the wanted objects."""
        return desired

    def compare(self, scene: Scene) -> Part:
        """Return the changes from the kernel's objects to the wanted objects."""
        desired = scene.desired.get(self.name, {})
        return Part(changes=diff(scene.ours[self.name], desired), desired=desired)

    def items(self, part: Part, scene: Scene) -> Iterator[Item]:
        """Yield an item for each change, in the order of the changes."""
        family = scene.family
        endpoints = self.endpoints(scene)
        for change in part.changes:
            action = Action.ADD if change.before is None else Action.DELETE if change.after is None else Action.CHANGE
            kind, name = self.named_in(change)
            owner = "" if family is None else self.owner(change, scene)
            yield Item(
                action=action,
                language=self.name,
                family=family.value if family is not None else "",
                kind=kind,
                name=name,
                owner=owner or "",
                is_leftover=owner is None or (owner != "" and owner not in scene.around.names),
                drift=self.drift(change, scene) if scene.desired.get(self.name) else None,
                lines=tuple(self.lines(change)),
                endpoints=endpoints(change),
                frontend=self.frontend(change.key),
                key=change.key,
            )

    def owner(self, change: Change[Any, Any], scene: Scene) -> str | None:
        """Return the owner of a changed object; None if unknown."""
        return scene.around.owner(self.name, change.key, scene.family)

    def lines(self, change: Change[Any, Any]) -> Iterator[Line]:
        """Yield the removed and the added line of a change, in the syntax of the language."""
        for sign, value in (("-", change.before), ("+", change.after)):
            if value is not None:
                yield Line(sign, self.text(change.key, value))

    def endpoints(self, scene: Scene) -> Callable[[Change[Any, Any]], tuple[ItemEndpoint, ...]]:  # noqa: ARG002 - most languages have none
        """Return what finds the endpoints that start or stop getting connections with a change."""
        return lambda _: ()

    def frontend(self, key: Any) -> str:  # noqa: ARG002 - most objects are none
        """Return the frontend that an object makes known, such as `TCP 10.96.0.10:80`; empty for none."""
        return ""

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:  # noqa: ARG002 - one state for all
        """Return the state of an empty kernel."""
        return {(self.name, None): {}}

    def unseen(self, state: Any) -> str:
        """Return which objects were not read; empty if they were."""
        return f"{self.name} objects" if state is None else ""

    def read_dump(self, text: str, source: str) -> Any:  # noqa: ARG002 - no tool prints them
        """Return None: no dump is of this language."""
        return None

    def read_family_dump(self, text: str, source: str) -> Mapping[Family, Any] | None:  # noqa: ARG002 - as above
        """Return None: no dump has states by family."""
        return None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the wanted objects in the format that standard tools load."""
        raise NotImplementedError

    def named_in(self, change: Change[Any, Any]) -> tuple[str, str]:
        """Return the kind of a changed object, and its name."""
        return self.named(change.key)

    def named(self, key: Any) -> tuple[str, str]:
        """Return the kind of an object, and its name."""
        raise NotImplementedError

    def text(self, key: Any, value: Any) -> str:
        """Return the text of an object in the syntax of the language."""
        raise NotImplementedError

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        """Return the drift that a change repairs; None if it is not certain that it is drift."""
        raise NotImplementedError

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> Holder:  # noqa: ARG002 - the keys tell
        """Return what finds the objects of a Service in `ours`."""
        return SharedHolder(ours, others)

    def frontends(self, content: Mapping[Any, Any]) -> Iterator[FrontendKey]:  # noqa: ARG002 - no object is a frontend
        """Yield no frontend."""
        return iter(())

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:  # noqa: ARG002 - no object is a frontend
        """Yield no frontend."""
        return iter(())

    def shapes(self, content: Mapping[Any, Any]) -> Iterator[Shape]:
        """Yield the kernel feature that each object needs: its kind."""
        for key in content:
            yield frozenset((self.name, type(key).__name__))

    def guards_loopback(self, state: Any) -> str:  # noqa: ARG002 - see `compare`
        """Return an empty text: only rules drop packets to loopback addresses."""
        return ""

    def unguards_loopback(self, changes: Changes) -> bool:  # noqa: ARG002 - see `compare`
        """Return false: only rules drop packets to loopback addresses."""
        return False
