"""Languages of keyed objects that several owners may want: an object is there while anybody wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.diff.changes import Change, diff
from rulegen.diff.items import Action, Item, Line
from rulegen.languages.language import Part, References

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.diff.items import Drift
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
"""Who wants an object, and how: by owner, sorted."""


class SharedUnion:
    """The union of what owners want: where two want one object but not alike, it is as the first by name wants it."""

    def __init__(self, wants: Mapping[Any, Wants] | None = None) -> None:
        """Start with what is wanted, by default with nothing."""
        self._wants: dict[Any, Wants] = dict(wants or {})

    def copy(self) -> SharedUnion:
        """Return the same as of now."""
        return SharedUnion(self._wants)

    def objects(self) -> Objects:
        """Return all objects."""
        return {key: wants[0][1] for key, wants in self._wants.items()}

    def owners(self) -> dict[Any, str]:
        """Return of each object who wants it; the first of several."""
        return {key: wants[0][0] for key, wants in self._wants.items()}

    def wants(self, key: Any) -> bool:
        """Return whether anybody wants an object."""
        return key in self._wants

    def replace(self, owner: str, before: Mapping[Any, Any] | None, after: Mapping[Any, Any] | None) -> None:
        """Put what an owner wants now in place of what it wanted."""
        for key, wants in self._replaced(((owner, before, after),)):
            if wants:
                self._wants[key] = wants
            else:
                self._wants.pop(key, None)

    def changes(self, pairs: Iterable[tuple[str, Mapping[Any, Any] | None, Mapping[Any, Any] | None]]) -> Changes:
        """Return what changes if owners want something else."""
        changes: list[Change[Any, Any]] = []
        for key, wants in self._replaced(pairs):
            had = self._wants.get(key)
            before, after = had[0][1] if had else None, wants[0][1] if wants else None
            if before != after:
                changes.append(Change(key, before, after))
        return tuple(sorted(changes, key=lambda change: change.key))

    def _replaced(
        self, pairs: Iterable[tuple[str, Mapping[Any, Any] | None, Mapping[Any, Any] | None]]
    ) -> Iterator[tuple[Any, Wants]]:
        """Yield the objects that the pairs hold, and who wants each once they are replaced."""
        touched: dict[Any, dict[str, Any]] = {}
        for owner, before, after in pairs:
            for objects, is_wanted in ((before, False), (after, True)):
                for key, value in (objects or {}).items():
                    if key not in touched:
                        touched[key] = dict(self._wants.get(key, ()))
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
    """Nothing is known but what was wanted."""

    @property
    def leaving(self) -> Collection[Any]:
        """Nothing."""
        return ()

    @property
    def is_outdated(self) -> bool:
        """Whether a plan of the whole would now write the same objects otherwise: never."""
        return False

    def carried(self, before: Any, after: Any) -> Any:  # noqa: ARG002 - a keyed object is itself alone
        """Return what an owner wants now."""
        return after

    def part(self, union: Union, pairs: Iterable[tuple[str, Any, Any]], steps: NodeSteps | None) -> Part:
        """Return what changes if owners want something else, and the node with them."""
        of_node = [] if steps is None else [("", steps.before, steps.after)]
        return Part(changes=self.changes(union.changes([*pairs, *of_node])))

    def changes(self, changes: Changes) -> Changes:
        """Return the changes as they are to be made, given what is known of the kernel."""
        return changes

    def replaced(self, before: Any, after: Any) -> None:
        """Take note of nothing."""

    def written(self, part: Part, union: Union) -> None:
        """Take note of nothing."""

    def remember(self, part: Part | None, contents: Mapping[K, Any]) -> dict[K, Any]:  # noqa: ARG002 - as above
        """Take note of nothing."""
        return {}

    def renew(self, contents: Mapping[K, Any]) -> dict[K, Any]:  # noqa: ARG002 - as above
        """Change nothing."""
        return {}


class SharedHolder:
    """Finds the objects that a Service wants and that are there, but for those of other programs."""

    def __init__(self, ours: Objects, others: Mapping[Any, Any]) -> None:
        """Take our objects as they are, and what others want."""
        self._ours, self._others = ours, others

    def held(self, content: Mapping[Any, Any], frontends: Collection[FrontendKey]) -> Objects | None:  # noqa: ARG002 - the keys tell
        """Return what is there of a Service; None for nothing."""
        mine = {key: self._ours[key] for key in content if key in self._ours and key not in self._others}
        return mine or None


class KeyedLanguage:
    """What languages of keyed objects have in common; each says how its objects are named, compared and written."""

    name = ""

    def union(self) -> Union:
        """Return an empty union."""
        return SharedUnion()

    def memory(self) -> KernelMemory:
        """Return what is known of a kernel about which nothing is known yet."""
        return SharedMemory()

    def ours(self, state: Any, ownership: Any, desired: Objects) -> Objects | None:  # noqa: ARG002 - all can be read
        """Return our objects as they are; None if nobody looked."""
        ours: Objects | None = ownership.ours(state)
        return ours

    def references(self, state: Any, ownership: Any) -> References:  # noqa: ARG002 - objects with keys name no others
        """Return nothing."""
        return References()

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:  # noqa: ARG002 - nothing refers to it
        """Return what is wanted."""
        return desired

    def compare(self, scene: Scene) -> Part:
        """Return the difference."""
        desired = scene.desired.get(self.name, {})
        return Part(changes=diff(scene.ours[self.name], desired), desired=desired)

    def items(self, part: Part, scene: Scene) -> Iterator[Item]:
        """Yield an item for each change, in the order of the changes."""
        family = scene.family
        for change in part.changes:
            action = Action.ADD if change.before is None else Action.DELETE if change.after is None else Action.CHANGE
            kind, name = self.named(change.key)
            owner = "" if family is None else scene.around.owner(self.name, change.key, family)
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
                key=change.key,
            )

    def lines(self, change: Change[Any, Any]) -> Iterator[Line]:
        """Yield the lines of what changes, as the language spells it."""
        for sign, value in (("-", change.before), ("+", change.after)):
            if value is not None:
                yield Line(sign, self.text(change.key, value))

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:  # noqa: ARG002 - one state for all
        """Return the state of a kernel that has nothing."""
        return {(self.name, None): {}}

    def unseen(self, state: Any) -> str:
        """Return what was not looked at; empty for nothing."""
        return f"{self.name} objects" if state is None else ""

    def read_dump(self, text: str, source: str) -> Any:  # noqa: ARG002 - no tool prints them
        """Return nothing."""
        return None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield what is wanted as the standard tools load it."""
        raise NotImplementedError

    def named(self, key: Any) -> tuple[str, str]:
        """Return what an object is in its language, and which one."""
        raise NotImplementedError

    def text(self, key: Any, value: Any) -> str:
        """Return an object's content, as the language spells it."""
        raise NotImplementedError

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        """Return what something else did to the node, as far as a change shows it; None if that is not certain."""
        raise NotImplementedError

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> Holder:  # noqa: ARG002 - the keys tell
        """Return what finds the objects of a Service among ours."""
        return SharedHolder(ours, others)

    def frontends(self, content: Mapping[Any, Any]) -> Iterator[FrontendKey]:  # noqa: ARG002 - no object is a frontend
        """Yield nothing."""
        return iter(())

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:  # noqa: ARG002 - no object is a frontend
        """Yield nothing."""
        return iter(())

    def shapes(self, content: Mapping[Any, Any]) -> Iterator[Shape]:
        """Yield what each object needs of the kernel: its kind."""
        for key in content:
            yield frozenset((self.name, type(key).__name__))

    def guards_loopback(self, state: Any) -> bool:  # noqa: ARG002 - see `compare`
        """Return whether a state keeps neighbours from the loopback addresses: only rules do."""
        return False

    def unguards_loopback(self, changes: Changes) -> bool:  # noqa: ARG002 - see `compare`
        """Return whether changes take away what keeps neighbours from the loopback addresses: only rules do."""
        return False
