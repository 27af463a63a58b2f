"""The part in which a configuration differs from an earlier one, as far as HAProxy's socket can change it.

It is found by the objects that both share, without reading all texts again: its cost is that of what has changed.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from rulegen.languages.haproxy.runtime import RuntimeState, fingerprint, servers_of
from rulegen.languages.haproxy.text import format_sections

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rulegen.languages.configuration import SecretContent
    from rulegen.languages.haproxy.tree import ConfigLine, ConfigSection

_MOST_ENTRIES: Final = 500
"""More entries of a map change together with all others, in one transaction."""
_NOTHING: Final[tuple[tuple[str, str], ...]] = ()


class ConfigValues(Protocol):
    """A configuration as values; those that have not changed are often the same objects as in another one."""

    @property
    def sections(self) -> Sequence[ConfigSection]:
        """The main file."""

    @property
    def maps(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Entries by path."""

    @property
    def certificates(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        """Lines of the list of certificates."""


class EntryChanges(NamedTuple):
    """Changes of single entries of a map whose keys are words or beginnings of paths.

    In this order, each request finds its old entry or its new one, never a third: a new key that is longer than another
    new one comes first, and an obsolete one that is shorter goes first.

    Attributes:
        added: Entries with new keys.
        replaced: Entries with new values.
        removed: Keys.
    """

    added: tuple[tuple[str, str], ...]
    replaced: tuple[tuple[str, str], ...]
    removed: tuple[str, ...]


class StatePart(NamedTuple):
    """A part of a state.

    Attributes:
        backends: The backends in it.
        has_names: Whether it has the names of TLS.
        state: The servers of these backends, some maps, and perhaps all names with the certificates that are new.
        obsolete: Certificates that no name refers to any more.
        entries: Changes of other maps, by path.
    """

    backends: tuple[str, ...]
    has_names: bool
    state: RuntimeState
    obsolete: tuple[str, ...] = ()
    entries: Mapping[str, EntryChanges] = MappingProxyType({})

    def of_maps(self, paths: Collection[str]) -> StatePart:
        """Return the part without all other maps."""
        maps = {path: entries for path, entries in self.state.maps.items() if path in paths}
        entries = {path: changed for path, changed in self.entries.items() if path in paths}
        return self._replace(state=replace(self.state, maps=maps), entries=entries)


def changed_part(
    before: tuple[ConfigValues, Mapping[str, SecretContent]],
    after: tuple[ConfigValues, Mapping[str, SecretContent]],
    also: Collection[str] = (),
    *,
    word_maps: Collection[str] = (),
) -> StatePart:
    """Return the part of a configuration that an earlier one lacks: whole backends, maps or entries, certificates.

    Args:
        before: The earlier configuration, with its secret files by path.
        after: The configuration, with the same structure.
        also: Backends that belong to it in any case.
        word_maps: The maps whose entries may change one by one.
    """
    (had, had_secrets), (values, secrets) = before, after
    changed = _changed_backends(had.sections, values.sections, also)
    maps: dict[str, tuple[tuple[str, str], ...]] = {}
    entries: dict[str, EntryChanges] = {}
    for path, wanted in values.maps.items():
        if (old := had.maps.get(path, _NOTHING)) is wanted or list(old) == list(wanted):
            continue
        single = entry_changes(old, wanted) if path in word_maps else None
        if single is None:
            maps[path] = tuple(wanted)
        else:
            entries[path] = single
    paths = {path for path, _ in values.certificates if path in secrets}
    new = {path for path in paths if had_secrets.get(path) != secrets[path]}
    obsolete = {path for path, _ in had.certificates if path in had_secrets} - paths
    has_names = bool(new) or list(had.certificates) != list(values.certificates)
    state = RuntimeState(
        servers=servers_of(format_sections(changed.values())),
        maps=maps,
        names=tuple((path, _without_options(names)) for path, names in values.certificates) if has_names else (),
        certificates={path: fingerprint(secrets[path].content) for path in sorted(new)},
    )
    return StatePart(tuple(sorted({*also, *changed})), has_names, state, tuple(sorted(obsolete)), entries)


def entry_changes(before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]) -> EntryChanges | None:
    """Return the changes of single entries between two states of a map; None if there are too many."""
    had, has = set(map(id, before)), set(map(id, after))  # most entries are the same objects
    others, others_now = {x for x in before if id(x) not in has}, {x for x in after if id(x) not in had}
    gone, new = others - others_now, others_now - others
    if len(gone) + len(new) > _MOST_ENTRIES:
        return None
    old_keys, keys = {key for key, _ in gone}, {key for key, _ in new}
    return EntryChanges(
        added=tuple(sorted((each for each in new if each[0] not in old_keys), key=lambda each: (-len(each[0]), each))),
        replaced=tuple(sorted(each for each in new if each[0] in old_keys)),
        removed=tuple(sorted(old_keys - keys, key=lambda key: (len(key), key))),
    )


def _changed_backends(
    before: Iterable[ConfigSection], after: Sequence[ConfigSection], also: Collection[str]
) -> dict[str, ConfigSection]:
    """Return the backends whose servers have changed, or that are listed, by name."""
    same = {id(section) for section in before}
    gone = same.difference(map(id, after))
    old = {section.name: section for section in before if id(section) in gone and section.kind == "backend"}
    changed: dict[str, ConfigSection] = {}
    for section in after:
        if section.kind != "backend" or (id(section) in same and section.name not in also):
            continue
        had = old.pop(section.name, None)
        if section.name in also or _servers(had) != _servers(section):
            changed[section.name] = section
    return changed


def _servers(section: ConfigSection | None) -> list[ConfigLine]:
    return [line for line in section.statements if line.words[0] == "server"] if section is not None else []


def _without_options(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if not name.startswith("["))
