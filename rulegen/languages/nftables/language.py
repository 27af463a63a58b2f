"""The row of nftables in the table of languages."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.diff.changes import Change, diff
from rulegen.diff.items import Drift, Line
from rulegen.languages.keyed import KeyedLanguage, SharedUnion, WantedObjects
from rulegen.languages.language import FrontendKey, Part, Phase, Print, Task
from rulegen.languages.nftables.expressions import VerdictCode
from rulegen.languages.nftables.held import TablesHolder
from rulegen.languages.nftables.moves import MovedEndpoints, frontend_text
from rulegen.languages.nftables.read_json import is_json_dump, read_json
from rulegen.languages.nftables.read_text import is_text_dump, read_text
from rulegen.languages.nftables.script import dependents, format_tables, passing, script
from rulegen.languages.nftables.state import (
    ElementValue,
    NamedSet,
    NftChain,
    ObjectKind,
    OtherObject,
    chain_key,
    element_text,
    in_order,
    table_key,
)
from rulegen.languages.nftables.statements import OtherStatement
from rulegen.net import Family, Protocol, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rulegen.diff.items import ItemEndpoint
    from rulegen.languages.language import (
        Changes,
        Holder,
        Objects,
        PrintScope,
        Scene,
        Shape,
        StateKey,
        Union,
        WorkTerms,
    )
    from rulegen.languages.nftables.state import NftKey, NftLoopbackGuard, NftObjects

NAME = "nftables"
FILE = "nftables.nft"
"""The file of an export, for `nft -f`."""

FIRST_LINE = "# Load this with nft -f on a node without these tables.\n"
"""The first line of exported tables."""


class ChangeTables(msgspec.Struct, frozen=True):
    """One transaction.

    Attributes:
        changes: The changes of objects.
        is_removal: Whether it only deletes what nothing refers to any more.
    """

    family: Family
    changes: Changes
    is_removal: bool = False

    def text(self) -> str:
        """Return the commands for `nft -f`.

        Raises:
            HostError: An object that is to be deleted has a name that nft does not read.
        """
        first, removal = script(self.changes, self.family)
        return removal if self.is_removal else first


class FrontendMaps(msgspec.Struct, frozen=True):
    """The maps whose keys are frontends: address, protocol and port; or protocol and port.

    Attributes:
        served: Those that lead to endpoints.
        refused: Those of frontends without endpoints.
    """

    served: frozenset[str]
    refused: frozenset[str]


Pair = tuple[str, "Mapping[Any, Any] | None", "Mapping[Any, Any] | None"]
"""An owner with its objects before and after a change."""


class TablesUnion(SharedUnion):
    """The wanted objects of all owners. If a set must be created again, so must what refers to it.

    Very many owners may want the same chain or set: their number must not decide what the change of one of them costs.
    """

    def __init__(
        self, wanted: WantedObjects | None = None, shared: Mapping[Any, Mapping[str, Any]] | None = None
    ) -> None:
        """Start with these objects; `shared` has by owner what each of them wants."""
        super().__init__(wanted)
        self._shared = {key: dict(by_owner) for key, by_owner in (shared or {}).items()}

    def copy(self) -> TablesUnion:
        """Return a copy that later replacements do not change."""
        return TablesUnion(self._wanted, self._shared)

    def objects(self) -> Objects:
        """Return all objects."""
        return {**super().objects(), **{key: _first(by_owner) for key, by_owner in self._shared.items()}}

    def owners(self) -> dict[Any, str]:
        """Return the owner of each object; that of a chain or set of several Services is the node."""
        shared = {key: next(iter(by_owner)) if len(by_owner) == 1 else "" for key, by_owner in self._shared.items()}
        return {**super().owners(), **shared}

    def wants(self, key: Any) -> bool:
        """Return whether any owner wants an object."""
        return key in self._shared or super().wants(key)

    def replace(self, owner: str, before: Mapping[Any, Any] | None, after: Mapping[Any, Any] | None) -> None:
        """Replace the objects of one owner."""
        (had, had_shared), (has, wanted) = _split(before), _split(after)
        super().replace(owner, had, has)
        for key in had_shared.keys() - wanted.keys():
            by_owner = self._shared.get(key, {})
            by_owner.pop(owner, None)
            if not by_owner:
                self._shared.pop(key, None)
        for key, value in wanted.items():
            self._shared.setdefault(key, {})[owner] = value

    def changes(self, pairs: Iterable[Pair]) -> Changes:
        """Return the changes that new objects of some owners would make."""
        split = [(owner, _split(before), _split(after)) for owner, before, after in pairs]
        changes = super().changes((owner, before, after) for owner, (before, _), (after, _) in split)
        shared = tuple(self._shared_changes((owner, before, after) for owner, (_, before), (_, after) in split))
        if shared:
            changes = tuple(sorted((*changes, *shared), key=lambda change: change.key))
        return changes if not _replaces_sets(changes) else dependents(changes, self.objects())

    def _shared_changes(self, pairs: Iterable[tuple[str, Objects, Objects]]) -> Iterator[Change[Any, Any]]:
        """Yield the changes of objects that several owners may want: a new value, or one that no owner is left for."""
        left: dict[Any, set[str]] = {}
        wanted: dict[Any, Any] = {}
        for owner, before, after in pairs:
            wanted.update(after)
            for key in before.keys() - after.keys():
                left.setdefault(key, set()).add(owner)
        for key in {**left, **wanted}:
            by_owner = self._shared.get(key, {})
            current = _first(by_owner) if by_owner else None
            stays = key in wanted or not by_owner.keys() <= left[key]
            value = wanted.get(key, current) if stays else None
            if value != current:
                yield Change(key, current, value)


class Nftables(KeyedLanguage):
    """Tables of nftables with their chains, sets, maps and elements."""

    name = NAME

    def __init__(
        self,
        tables: frozenset[str],
        maps: FrontendMaps,
        loopback: NftLoopbackGuard,
        passing: frozenset[str] = frozenset(),
    ) -> None:
        """Take the rules that must be written in a certain order.

        Args:
            tables: The names of the tables.
            maps: The names of the maps of frontends.
            loopback: The guard of loopback addresses.
            passing: The chains that translate or refuse packets: those with the mark of a proxy must pass them.
        """
        self._tables, self._maps, self._loopback, self._passing = tables, maps, loopback, passing
        self._frontend_maps = maps.served | maps.refused

    def union(self) -> Union:
        """Return an empty union."""
        return TablesUnion()

    def compare(self, scene: Scene) -> Part:
        """Return the changes from the kernel's objects to the wanted objects."""
        ours, desired = scene.ours[NAME], scene.desired.get(NAME, {})
        changes = diff(ours, desired, in_order)
        if _replaces_sets(changes):
            changes = dependents(changes, desired)
        return Part(changes=changes, desired=desired)

    def named_in(self, change: Change[Any, Any]) -> tuple[str, str]:
        """Return the kind of a changed object, and its name."""
        key, value = change.key, change.after if change.after is not None else change.before
        if key.is_element:
            return "element", f"{key.name} {' . '.join(key.element)}"
        match value:
            case NftChain():
                return "chain", key.name
            case NamedSet():
                return value.word, key.name
            case OtherObject():
                return key.name, key.element[0]
            case _:
                return "table", key.table

    def text(self, key: NftKey, value: Any) -> str:
        """Return an object on one line; for a chain, its hook."""
        if isinstance(value, ElementValue):
            return element_text(key, value)
        if isinstance(value, NftChain):
            return str(value.base or "")
        return value.text if isinstance(value, OtherObject) else str(value)

    def endpoints(self, scene: Scene) -> Callable[[Change[Any, Any]], tuple[ItemEndpoint, ...]]:
        """Return what finds the endpoints that start or stop getting connections with a change."""
        return MovedEndpoints(scene.ours[NAME], scene.desired.get(NAME, {}), self._maps.served).of

    def frontend(self, key: NftKey) -> str:
        """Return the frontend of an element that leads one to its endpoints, or refuses it; empty for other objects."""
        return frontend_text(key.element) if self._is_frontend(key) else ""

    def lines(self, change: Change[Any, Any]) -> Iterator[Line]:
        """Yield the lines of an object; of a changed chain, all rules with signs at those that differ."""
        key, was, is_ = change
        if key.element and not isinstance(was or is_, OtherObject):  # most changes by far
            if was is not None:
                yield Line("-", element_text(key, was))
            if is_ is not None:
                yield Line("+", element_text(key, is_))
            return
        before, after = (_chain_lines(value) if isinstance(value, NftChain) else None for value in (was, is_))
        if before is None and after is None:
            lines = super().lines(change)
            yield from (line for line in lines if line.text)
            return
        old, new = before or [], after or []
        for action, first, last, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if action == "equal":
                yield from (Line(" ", text) for text in old[first:last])
            else:
                yield from (Line("-", text) for text in old[first:last])
                yield from (Line("+", text) for text in new[start:end])

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        """Return the drift of an object, if it is certainly drift."""
        key, before, after = change
        if isinstance(after, ElementValue) and isinstance(after.data, tuple):
            return None
        match before, after:
            case OtherObject(), None:
                return Drift.FOREIGN
            case NftChain(), None:
                varies = "/" in key.name or key == self._loopback.key
                if varies or table_key(key.table) not in scene.desired.get(NAME, {}):
                    return None  # names of ours that vary have a slash; and the table may be of the other layout
                return Drift.FOREIGN
            case NftChain(), NftChain() if _is_foreign(before) or before.base != after.base:
                return Drift.FOREIGN
            case NftChain(), NftChain() if after.rules and not before.rules:
                return Drift.MISSING
            case None, ElementValue(data) if data is not None and not isinstance(data, tuple):
                chain = key._replace(kind=ObjectKind.CHAIN, name=data.target, element=())
                is_there = data.target.count("/") > 1 and chain in scene.ours[NAME]  # a chain of this Service alone
                return Drift.MISSING if is_there else None
            case _:
                return None

    def owner(self, change: Change[Any, Any], scene: Scene) -> str | None:
        """Return the owner of a changed object: of an element that leads to a chain of a Service, that of it."""
        owner = super().owner(change, scene)
        value = change.after if change.after is not None else change.before
        if owner is not None or not isinstance(value, ElementValue) or not isinstance(value.data, VerdictCode):
            return owner
        if value.data.target.count("/") > 1:
            return scene.around.owner(NAME, chain_key(change.key.table, value.data.target), scene.family)
        return owner

    def items(self, part: Part, scene: Scene) -> Iterator[Any]:
        """Yield an item for each object that differs; what is only written again is none."""
        differing = tuple(change for change in part.changes if change.before != change.after)
        yield from super().items(Part(changes=differing, desired=part.desired), scene)

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        """Yield one transaction for each family, and one that deletes what nothing refers to any more.

        Before Linux 6.2, a chain counts as referred to for a moment after its last map element was deleted.

        If rules of another language lead packets to a proxy before tables go, or until they are there, tables let these
        packets pass meanwhile.
        """
        if terms.beside:
            return
        for family, part in parts.items():
            if family is None or not part.changes:
                continue
            gone = [(key, before) for key, before, after in part.changes if after is None]
            tables = {key.table for key, _ in gone if key.kind is ObjectKind.TABLE}
            opening, changes, closing = passing(part.changes, self._passing, terms.marked.get(family, 0))
            for phase, some in ((Phase.RULES_EARLY, opening), (Phase.RULES_SETTLED, closing)):
                if some:
                    yield Task(phase, f"{family} nftables: {_counted(some)}", ChangeTables(family, some))
            if not tables or any(change.key.table not in tables for change in changes):
                title = f"{family} nftables: {_counted(changes)}"
                phase = Phase.RULES_REMOVED if _only_removes(changes) else Phase.RULES_EARLY
                yield Task(phase, title, ChangeTables(family, changes))
            removed = len(tables) + sum(
                key.table not in tables and isinstance(before, NftChain | NamedSet) for key, before in gone
            )
            if removed:
                title = f"{family} nftables, removed: {removed} objects"
                yield Task(Phase.SERVERS_REMOVED, title, ChangeTables(family, part.changes, is_removal=True))

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:
        """Yield the frontends that a part removes without a replacement."""
        served = self._maps.served
        removed = [key.element for key, _, after in part.changes if after is None and key.name in served]
        if not removed:
            return
        added = {key.element for key, _, after in part.changes if after is not None and self._is_frontend(key)}
        for element in removed:
            if element and element not in added and (frontend := _frontend(element)) is not None:
                yield frontend

    def _is_frontend(self, key: NftKey) -> bool:
        return bool(key.element) and key.name in self._frontend_maps

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> Holder:  # noqa: ARG002 - the keys tell
        """Return what finds the objects of a Service in `ours`."""
        return TablesHolder(ours, others, self._frontend_maps)

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:
        """Return the states of an empty kernel."""
        return {(NAME, family): {} for family in families}

    def unseen(self, state: Any) -> str:  # noqa: ARG002 - missing families are reported
        """Return nothing: families without a dump are not planned."""
        return ""

    def read_family_dump(self, text: str, source: str) -> Mapping[Family, NftObjects] | None:
        """Return by family the objects that a dump of nft contains; None if the text is of another language.

        Raises:
            InputError: It cannot be read.
        """
        if is_json_dump(text):
            return read_json(text, source, self._tables)
        return read_text(text, source, self._tables) if is_text_dump(text) else None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the tables of all families in the format of `nft -f`."""
        text = ""
        for family, contents in wanted.contents.items():
            objects: Objects = {}
            for content in contents:
                objects = {**content, **objects}
            text += format_tables(objects, family)
        if text:
            yield Print(FILE, text, "nftables", FIRST_LINE)

    def shapes(self, content: Mapping[Any, Any]) -> Iterator[Shape]:
        """Yield the kernel feature that each object needs: its kind."""
        for key in content:
            yield frozenset((NAME, "element" if key.is_element else key.kind.name.lower()))

    def guards_loopback(self, state: NftObjects) -> str:
        """Return the chain that drops packets from outside to loopback addresses; empty without one."""
        return self._loopback.key.name if self._loopback.is_in(state) else ""

    def unguards_loopback(self, changes: Changes) -> bool:
        """Return whether changes remove this chain or its rule."""
        return self._loopback.is_taken_by(changes)


def _split(content: Mapping[Any, Any] | None) -> tuple[Objects, Objects]:
    """Return the objects that one owner wants, and those that several may want.

    The latter are sets, and chains whose names are not those of Services.
    """
    if not content:
        return {}, {}
    shared = {key: value for key, value in content.items() if not key.element and key.name.count("/") < 2}
    single = dict(content)
    for key in shared:
        del single[key]
    return single, shared


def _first(by_owner: Mapping[str, Any]) -> Any:
    """Return what the owners want: all of them want the same."""
    return next(iter(by_owner.values()))


def _replaces_sets(changes: Changes) -> bool:
    return any(isinstance(before, NamedSet) and isinstance(after, NamedSet) for _, before, after in changes)


def _only_removes(changes: Changes) -> bool:
    return all(after is None for _, _, after in changes)


def _chain_lines(chain: NftChain) -> list[str]:
    return [*([str(chain.base)] if chain.base is not None else []), *map(str, chain.rules)]


def _is_foreign(chain: NftChain) -> bool:
    """Whether a chain has a rule that rulegen never writes."""
    return any(isinstance(statement, OtherStatement) for rule in chain.rules for statement in rule.statements)


def _counted(changes: Changes) -> str:
    chains = sum(key.kind is ObjectKind.CHAIN for key, _, _ in changes)
    elements = sum(1 for key, _, _ in changes if key.element and key.kind is ObjectKind.SET)
    return f"chains {chains}, elements {elements}"


def _frontend(parts: tuple[str, ...]) -> FrontendKey | None:
    """Return the frontend that is the key of an element; None if it is none."""
    *address, protocol, port = parts if len(parts) > 1 else ("", "")
    try:
        to = parse_address(address[0]) if address else None
        return FrontendKey(to, Protocol(protocol.upper()), int(port))
    except ValueError:
        return None
