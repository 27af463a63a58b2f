"""Writes the texts of a configuration and reads them back; what an earlier one has in common is not written again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.haproxy.check import check_map, check_sections
from rulegen.languages.haproxy.text import format_map, format_sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rulegen.languages.haproxy.tree import ConfigSection

SectionTexts = dict[int, tuple["ConfigSection", str]]
"""Sections with their texts, which were read back, by the identity of the section."""


def write_sections(
    path: str, sections: Sequence[ConfigSection], known: Mapping[int, tuple[ConfigSection, str]]
) -> SectionTexts:
    """Return the text of each section, in order; known ones are neither written nor read back again.

    The text of a file is that of its sections with a line feed between each two. None continues in the next one.

    Raises:
        UnwritableError: HAProxy cannot be given a value.
        DifferenceError: A text says something else.
    """
    texts: SectionTexts = {}
    for section in sections:
        key = id(section)
        entry = known.get(key)
        if entry is None:
            text = format_sections((section,))
            check_sections(path, text, (section,))
            entry = section, text
        texts[key] = entry
    return texts


def write_map(
    path: str, entries: Sequence[tuple[str, str]], before: Sequence[tuple[str, str]] = (), text: str | None = None
) -> str:
    """Return the text of a map; only entries that an earlier one has not are checked and read back.

    Args:
        path: The path of the map.
        entries: Its entries, in order.
        before: The entries of the earlier one.
        text: The text of the earlier one; None if there is none.

    Raises:
        UnwritableError: HAProxy cannot be given a value.
        DifferenceError: The text says something else.
    """
    if text is None:
        written = format_map(entries)
        check_map(path, written, entries)
        return written
    if entries is before or list(entries) == list(before):
        return text
    known = set(before)
    new = [entry for entry in entries if entry not in known]
    check_map(path, format_map(new), new)
    return "".join([f"{key} {value}\n" for key, value in entries])


def has_same_rules(before: SectionTexts, after: SectionTexts) -> bool:
    """Return whether the texts of sections differ in nothing but servers."""
    return len(before) == len(after) and all(
        old is new or old[1] == new[1] or _rules(old[1]) == _rules(new[1])
        for old, new in zip(before.values(), after.values(), strict=True)
    )


def _rules(text: str) -> list[str]:
    return [line for line in text.split("\n") if not line.startswith("    server ")]
