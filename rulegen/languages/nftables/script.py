"""Changes as commands for `nft -f`, and whole tables in the format of `nft list ruleset`.

All commands of a script are one transaction. Their order keeps each command valid for itself: chains lose their old
rules before the sets that these refer to, and get their new rules when all sets and chains exist.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from rulegen.diff.changes import Change
from rulegen.errors import HostError
from rulegen.languages.nftables.expressions import (
    Bits,
    Bitwise,
    Expression,
    MapLookup,
    Meta,
    SetReference,
    VerdictCode,
)
from rulegen.languages.nftables.state import (
    FAMILIES,
    ElementValue,
    NamedSet,
    NftChain,
    ObjectKind,
    OtherObject,
    TableValue,
    element_text,
)
from rulegen.languages.nftables.statements import Assign, Compare, Dnat, UpdateSet, VerdictLookup, nft_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.language import Changes
    from rulegen.languages.nftables.state import NftKey, NftValue
    from rulegen.languages.nftables.statements import NftRule, NftStatement
    from rulegen.net import Family

_NAME: Final = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]*\Z")
"""A name that nft reads without quotes (scanner.l of nft 1.0.6)."""
_PART: Final = re.compile(r"[A-Za-z0-9_./:*-]+\Z")


class Script(NamedTuple):
    """The commands of a change.

    Attributes:
        change: Additions and changes; deleted chains lose their rules.
        removal: Deletions of chains and sets, when nothing refers to them any more.
    """

    change: str
    removal: str


def script(changes: Changes, family: Family) -> Script:
    """Return the commands for changes of one family.

    Raises:
        HostError: An object that is to be deleted has a name that nft does not read.
    """
    tables = {change.key.table for change in changes if change.key.kind is ObjectKind.TABLE and change.after is None}
    work = _Script(FAMILIES[family])
    for table in sorted(tables):
        work.removal.append(f"delete table {work.family} {_checked(table)}")
    work.take([change for change in changes if change.key.table not in tables])
    return Script("".join(f"{line}\n" for line in work.lines()), "".join(f"{line}\n" for line in work.removal))


class _Script:
    """Collects the commands by step."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.removal: list[str] = []
        self._steps: defaultdict[int, list[str]] = defaultdict(list)

    def lines(self) -> Iterator[str]:
        """Yield the commands in order."""
        for _, lines in sorted(self._steps.items()):
            yield from lines

    def take(self, changes: Iterable[Change[Any, Any]]) -> None:
        """Add the commands for changes. A set that goes loses all elements, whatever text these have."""
        changes = tuple(changes)
        gone = {(key.table, key.name) for key, before, _ in changes if isinstance(before, NamedSet)}
        removed: dict[tuple[str, str], list[str]] = defaultdict(list)
        added: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, before, after in changes:
            if key.is_element:
                at = (key.table, key.name)
                if before is not None and at not in gone:
                    removed[at].append(_element(key, None))
                if after is not None:
                    added[at].append(_element(key, after))
            else:
                self._take(key, before, after)
        for verb, step, groups in (("delete", 2, removed), ("add", 6, added)):
            for (table, of), elements in groups.items():
                self._put(step, f"{verb} element {self._at(table, of)} {{ {', '.join(elements)} }}")

    def _take(self, key: NftKey, before: NftValue | None, after: NftValue | None) -> None:
        match before, after:
            case (_, TableValue()):
                flags = f" {{ {after}; }}" if after.flags else ""
                self._put(0, f"add table {self.family} {_checked(key.table)}{flags}")
            case (NftChain() | None, NftChain() | None):
                self._chain(key, before, after)
            case (NamedSet() | None, NamedSet() | None):
                self._set(key, before, after)
            case (OtherObject(), _):
                self._put(3, f"delete {key.name} {self._at(key.table, key.element[0])}")
            case _:
                pass

    def _chain(self, key: NftKey, before: NftChain | None, after: NftChain | None) -> None:
        at = self._at(key.table, key.name)
        is_replaced = before is not None and after is not None and before.base != after.base
        if before is not None:
            self._put(1, f"flush chain {at}")
        if is_replaced:
            self._put(3, f"delete chain {at}")
        if after is None:
            self.removal.append(f"delete chain {at}")
            return
        if before is None or is_replaced:
            base = f" {{ {after.base} }}" if after.base is not None else ""
            self._put(4, f"add chain {at}{base}")
        for rule in after.rules:
            self._put(7, f"add rule {at} {_rule(rule, self.family)}")

    def _set(self, key: NftKey, before: NamedSet | None, after: NamedSet | None) -> None:
        word, at = (before or after).word, self._at(key.table, key.name)  # type: ignore[union-attr]
        if before is not None:
            self._put(2, f"flush {before.word} {at}")
        if before is not None and after is not None:
            self._put(3, f"delete {word} {at}")
        if after is not None:
            self._put(5, f"add {after.word} {at} {{ {after}; }}")
        else:
            self.removal.append(f"delete {word} {at}")

    def _at(self, table: str, name: str) -> str:
        return f"{self.family} {_checked(table)} {_checked(name)}"

    def _put(self, step: int, line: str) -> None:
        self._steps[step].append(line)


def format_tables(objects: Mapping[NftKey, NftValue], family: Family) -> str:
    """Return tables in the format of `nft list ruleset`, which `nft -f` reads."""
    elements: defaultdict[NftKey, list[str]] = defaultdict(list)
    blocks: defaultdict[str, list[str]] = defaultdict(list)
    for key in sorted(key for key in objects if key.is_element):
        elements[key._replace(element=())].append(_element(key, objects[key]))
    for key, value in sorted(objects.items(), key=lambda item: item[0]):
        if isinstance(value, NamedSet):
            blocks[key.table].append(_block(f"{value.word} {key.name}", _set_lines(value, elements[key])))
        elif isinstance(value, NftChain):
            base = [str(value.base)] if value.base is not None else []
            blocks[key.table].append(
                _block(f"chain {key.name}", [*base, *(_rule(rule, FAMILIES[family]) for rule in value.rules)])
            )
    return "".join(
        f"table {FAMILIES[family]} {table} {{\n" + "\n".join(lines) + "}\n" for table, lines in blocks.items()
    )


def _rule(rule: NftRule, family: str) -> str:
    """Return the text of a rule. The key of a lookup for a node port does not show the family of the endpoints."""
    return str(rule).replace("dnat ip to meta ", f"dnat {family} to meta ")


def _set_lines(value: NamedSet, elements: list[str]) -> list[str]:
    return [*value.lines, *(["elements = { " + ",\n\t\t\t     ".join(elements) + " }"] if elements else [])]


def _block(head: str, lines: Iterable[str]) -> str:
    return f"\t{head} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _element(key: NftKey, value: NftValue | None) -> str:
    for part in key.element:
        if not _PART.match(part):
            raise HostError(f"an element of {key.name[:64]!r} cannot be written: {part[:64]!r}")
    return element_text(key, value) if isinstance(value, ElementValue) else " . ".join(key.element)


def _checked(name: str) -> str:
    """Return a name.

    Raises:
        HostError: nft does not read it, so only netlink can delete the object.
    """
    if not _NAME.match(name):
        raise HostError(
            f"the nftables object {name[:64]!r} has a name that nft does not read",
            hint="delete it by its handle: nft -a list ruleset shows it",
        )
    return name


def dependents(changes: Changes, desired: Mapping[NftKey, NftValue]) -> Changes:
    """Return changes, and what must be written again because a set that it refers to is created again.

    These are the elements of such a set, and the chains whose rules refer to it; their values stay.
    """
    replaced = {
        (change.key.table, change.key.name)
        for change in changes
        if isinstance(change.before, NamedSet) and isinstance(change.after, NamedSet)
    }
    known = {change.key for change in changes}
    more = [
        Change(key, value, value)
        for key, value in desired.items()
        if key not in known
        and (
            (key.is_element and (key.table, key.name) in replaced)
            or (isinstance(value, NftChain) and any((key.table, name) in replaced for name in references(value)))
        )
    ]
    return tuple(sorted((*changes, *more), key=lambda change: change.key))


def references(chain: NftChain) -> Iterator[str]:
    """Yield the names of the sets and maps that a chain's rules refer to."""
    for rule in chain.rules:
        for statement in rule.statements:
            yield from _names(statement)


def _names(statement: NftStatement) -> Iterator[str]:
    match statement:
        case Compare():
            yield from _named(statement.right)
        case VerdictLookup():
            yield from _named(statement.map)
        case UpdateSet():
            yield statement.set.name
        case Dnat():
            yield from _named(statement.to)
        case Assign():
            yield from _named(statement.value)
        case _:
            return


def _named(expression: Expression) -> Iterator[str]:
    if isinstance(expression, SetReference):
        yield expression.name
    elif isinstance(expression, MapLookup):
        yield from _named(expression.map)


class Passing(NamedTuple):
    """Changes in steps: packets with a mark pass, all changes, and these packets do not pass any more."""

    opening: Changes
    whole: Changes
    closing: Changes


def passing(changes: Changes, names: frozenset[str], mark: int) -> Passing:
    """Return the changes if rules of another language begin or cease to mark packets for a proxy.

    Args:
        changes: The changes of tables.
        names: The chains that translate or refuse packets. Those that go let marked packets pass before, and those that
            appear let them pass at first.
        mark: The mark; 0 if no packet begins or ceases to get it.
    """
    if not mark:
        return Passing((), changes, ())
    opening: list[Change[Any, Any]] = []
    whole: list[Change[Any, Any]] = []
    closing: list[Change[Any, Any]] = []
    for key, before, after in changes:
        middle = after
        if key.kind is ObjectKind.CHAIN and key.name in names:
            if isinstance(after, NftChain):
                middle = _with_passing(after, mark) if before in (None, _with_passing(after, mark)) else after
                if middle != after:
                    closing.append(Change(key, middle, after))
            elif isinstance(before, NftChain) and before != _with_passing(before, mark):
                opening.append(Change(key, before, _with_passing(before, mark)))
        if before != middle or middle == after:
            whole.append(Change(key, before, middle))
    return Passing(tuple(opening), tuple(whole), tuple(closing))


def _with_passing(chain: NftChain, mark: int) -> NftChain:
    """Return a chain that packets with a mark pass; the same if they pass it already."""
    first = nft_rule(Compare(Bitwise("&", Meta("mark"), Bits(mark)), Bits(0), "!="), VerdictCode("return"))
    return chain if first in chain.rules else replace(chain, rules=(first, *chain.rules))
