"""Backends that a running HAProxy has, also unused ones, with which it serves a new Service port without a reload.

A backend is named by a digest of its rules, its shape, and by its upstream. For each shape in use, a fresh
configuration has spare backends without servers. While HAProxy runs, a new upstream takes a spare of its shape, and
backends that are not used any more stay. The next reload gives every upstream a backend of its own name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.haproxy.names import CONFIG, SLOTS, SPARES, mark
from rulegen.backends.haproxy.own_maps import named_lines, own_paths, without_name
from rulegen.languages.haproxy.parser import UnreadableError, read_map, read_words
from rulegen.languages.haproxy.runtime import MAPS, structure_of
from rulegen.languages.haproxy.text import format_statement
from rulegen.languages.haproxy.tree import ConfigSection, statement

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from rulegen.languages.configuration import Configuration
    from rulegen.languages.haproxy.tree import ConfigLine

_OWN, _SPARE = "b", "f"
_NAMED: Final = re.compile(r"[bf](?P<shape>[0-9a-f]{16})(?:\.[0-9a-f]{1,16})?")
Maps = Mapping[str, Sequence[tuple[str, str]]]
_TABLE: Final = re.compile(r"t[smc][0-9a-f]{16}")
_FASTCGI: Final = "use-fcgi-app "
"""HAProxy rejects a backend with this and without servers: there are no spare ones."""
_EXPRESSIONS: Final = re.compile(r"maps/expressions-(?P<slot>[0-9a-f]{16})\.map")
_SLOTS: Final = 16
"""Spare maps of expressions."""
_MOST: Final = 16
_FEWEST: Final = 2
_ALL: Final = 64
"""Maximum and minimum of spare backends of a shape, and maximum of all shapes; usually a quarter of the used ones."""


@dataclass(slots=True)
class BackendStock:
    """What a running HAProxy has.

    Attributes:
        structure: The digest of its structure.
        sections: Its backends whose names agree with their rules, and its tables: the lines by name, without servers.
        maps: The entries of its maps.
        taken: The spare backend of an upstream, by the name that its own backend would have.
    """

    structure: str = ""
    sections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    maps: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)

    def spares(self, shape: str) -> Iterator[str]:
        """Yield the spare backends of a shape."""
        names = (f"{_SPARE}{shape}.{number:x}" for number in range(_MOST))
        return (name for name in names if name in self.sections)


class ChosenName(NamedTuple):
    """A backend that a compilation has chosen for an upstream.

    Attributes:
        own: The name that its own backend would have.
        shape: The digest of its rules.
        name: The name of the chosen backend.
    """

    own: str
    shape: str
    name: str


def shape_of(lines: Iterable[ConfigLine]) -> str:
    """Return the digest of the rules of a backend, without its servers.

    Raises:
        UnwritableError: HAProxy cannot be given a value of them.
    """
    return mark(*(format_statement(line) for line in lines if line.words[0] != "server"))


def own_name(shape: str, *upstream: object) -> str:
    """Return the name of the backend of an upstream; without one, that of all such backends."""
    return f"{_OWN}{shape}.{mark(*upstream)}" if upstream else f"{_OWN}{shape}"


def stock_of(configuration: Configuration) -> BackendStock:
    """Return the backends of an HAProxy that has read these files; files that rulegen has not written are ignored."""
    sections: dict[str, tuple[str, ...]] = {}
    for block in configuration.files.get(CONFIG, "").split("\nbackend ")[1:]:
        name, *lines = block.partition("\n\n")[0].split("\n")
        rules = tuple(line.removeprefix("    ") for line in lines if line and not line.startswith("    server "))
        match = _NAMED.fullmatch(name)
        if any(rule.startswith(_FASTCGI) for rule in rules):
            continue
        if _TABLE.fullmatch(name) or (
            match is not None and match["shape"] == mark(*(without_name(rule, name) for rule in rules))
        ):
            sections[name] = rules
    try:
        maps = {path: read_map(text) for path, text in configuration.files.items() if path.startswith(MAPS)}
        taken = {own: spare for spare, own in read_map(configuration.files.get(SPARES, ""))}
    except UnreadableError:
        return BackendStock()
    return BackendStock(structure_of(configuration), sections, maps, taken)


@lru_cache(1 << 12)  # spare backends of a shape have the same lines, but for the names of maps
def _line(text: str) -> ConfigLine:
    return statement(*read_words(text))


def _empty(name: str, lines: tuple[ConfigLine, ...]) -> tuple[ConfigSection, Maps]:
    return ConfigSection("backend", name, named_lines(lines, name)), own_paths(lines, name)


class ExpressionSlots:
    """The maps of expressions in one compilation: each is for the paths of one host, and some are spare.

    Attributes:
        taken: The map of each host whose paths are expressions.
    """

    def __init__(self, stock: BackendStock | None) -> None:
        """Take what the running HAProxy has; None for a fresh configuration."""
        known = stock.maps if stock is not None else {}
        matches = (_EXPRESSIONS.fullmatch(path) for path in known)
        self._known = [match["slot"] for match in matches if match is not None]
        self._before = dict(known.get(SLOTS, ()))
        self._spares = () if stock is not None else tuple(mark("spare", number) for number in range(_SLOTS))
        self.taken: dict[str, str] = {}

    def take(self, host: str) -> str:
        """Return the map of a host: the one that it had, or a spare one, or a new one."""
        used = {*self.taken.values(), *(slot for other, slot in self._before.items() if other != host)}
        own = mark(host)
        free = [
            slot for slot in (self._before.get(host, own), *self._known) if slot in self._known and slot not in used
        ]
        self.taken[host] = free[0] if free else own
        return self.taken[host]

    @property
    def all(self) -> list[str]:
        """All maps, also spare ones."""
        return sorted({*self._known, *self._spares, *self.taken.values()})


@dataclass(slots=True)
class BackendNames:
    """The names of backends in one compilation.

    Attributes:
        stock: What the running HAProxy has; None for a fresh configuration.
        taken: The spare backend of each upstream that has none of its own, as in the stock.
        choices: What was chosen, in this order.
    """

    stock: BackendStock | None = None
    taken: dict[str, str] = field(default_factory=dict)
    choices: list[ChosenName] = field(default_factory=list)
    _shapes: dict[str, tuple[ConfigLine, ...]] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)
    _wanted: dict[str, str] = field(default_factory=dict)

    def is_new(self, lines: tuple[ConfigLine, ...]) -> bool:
        """Return whether a fresh configuration has no backend with these rules yet.

        Raises:
            UnwritableError: HAProxy cannot be given a value of them.
        """
        return self.stock is None and shape_of(lines) not in self._shapes

    def name(self, lines: tuple[ConfigLine, ...], *upstream: object) -> str:
        """Return the name of the backend with these lines for an upstream.

        Raises:
            UnwritableError: HAProxy cannot be given a value of them.
        """
        shape = shape_of(lines)
        name = own_name(shape, *upstream)
        if not upstream:
            return name
        if name not in self._wanted:
            self._wanted[name] = shape
            self._uses[shape] += 1
            self._shapes.setdefault(shape, tuple(line for line in lines if line.words[0] != "server"))
        chosen = self._chosen(name, shape)
        self.choices.append(ChosenName(name, shape, chosen))
        return chosen

    def is_chosen_again(self, choice: ChosenName) -> bool:
        """Return whether this compilation chooses the same backend for an upstream as an earlier one."""
        return self._chosen(choice.own, choice.shape) == choice.name

    def _chosen(self, name: str, shape: str) -> str:
        if self.stock is None or name in self.stock.sections:
            return name
        return self.taken.get(name) or self._take(name, shape, self.stock)

    def _take(self, name: str, shape: str, stock: BackendStock) -> str:
        """Return the spare backend of an upstream, or a free one for it; its own name if there is none."""
        spares = list(stock.spares(shape))
        known = stock.taken.get(name)
        used = {*self.taken.values(), *(spare for own, spare in stock.taken.items() if own != name)}
        free = [known] if known in spares else [spare for spare in spares if spare not in used]
        if not free:
            return name
        self.taken[name] = free[0]
        return free[0]

    def others(self, used: Container[tuple[str, str]]) -> Iterator[tuple[ConfigSection, Maps]]:
        """Yield the backends that no location uses, those of the running HAProxy or fresh spare ones, with their maps.

        Args:
            used: The kinds and names of all other sections.
        """
        if self.stock is not None:
            for name, rules in self.stock.sections.items():
                if ("backend", name) in used:
                    continue
                yield ConfigSection("backend", name, tuple(map(_line, rules))), {}
            return
        left = _ALL + len(self._wanted) // 4
        for shape, uses in sorted(self._uses.items(), key=lambda item: (-item[1], item[0])):
            lines = self._shapes[shape]
            if any(line.words[0] == _FASTCGI.strip() for line in lines):
                continue
            yield _empty(own_name(shape), lines)
            count = min(_FEWEST + 2 * uses, _MOST, left)
            left -= count
            for number in range(count):
                yield _empty(f"{_SPARE}{shape}.{number:x}", lines)
