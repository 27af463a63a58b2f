"""Saved dumps: what a node had, read from files instead of the kernel, each told by its content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.errors import InputError
from rulegen.host.files import read_text
from rulegen.languages.iptables.ruleset import Ruleset, family_in, is_dump, read
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_dumps(paths: Sequence[str]) -> tuple[dict[Family, Ruleset], tuple[str, ...]]:
    """Return the rulesets in dumps of iptables-save and ip6tables-save, and the names of files that are something else.

    A dump whose content tells no family (it has no address in it) is judged by its name, then taken for the family
    that the others are not of.

    Args:
        paths: Files, and folders whose files are looked at (subfolders are not).

    Raises:
        InputError: A file cannot be read or is broken, a named file is no dump, or two are of one family.
    """
    texts: dict[str, str] = {}
    others: list[str] = []
    for path in paths:
        for file in _files(path):
            text = _text(file, is_named=file == path)
            if text is not None and is_dump(text):
                texts[file] = text
            elif file == path:
                raise InputError(path, "not a dump of iptables-save or ip6tables-save")
            else:
                others.append(file)
    if not texts:
        raise InputError(", ".join(paths), "no dump of iptables-save or ip6tables-save in there")
    families = _families(texts)
    return {family: read(texts[file], file, family) for family, file in sorted(families.items())}, tuple(others)


def _files(path: str) -> list[str]:
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    try:
        return sorted(str(file) for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise InputError(path, error.strerror or str(error)) from None


def _text(file: str, *, is_named: bool) -> str | None:
    """Return the file's text; None for a neighbour in a folder that is no text."""
    try:
        return read_text(file)
    except InputError:
        if is_named:
            raise
        return None


def _families(texts: dict[str, str]) -> dict[Family, str]:
    """Return which file is of which family."""
    found: dict[Family, str] = {}
    unclear = []
    for file, text in texts.items():
        family = family_in(text) or (Family.IPV6 if _is_named_ipv6(file) else None)
        if family is None:
            unclear.append(file)
        else:
            _claim(found, family, file)
    for file in unclear:
        _claim(found, Family.IPV6 if Family.IPV4 in found and "ip6" not in found[Family.IPV4] else Family.IPV4, file)
    return found


def _is_named_ipv6(file: str) -> bool:
    name = Path(file).name.lower()
    return any(part in name for part in ("ip6", "ipv6", "v6"))


def _claim(found: dict[Family, str], family: Family, file: str) -> None:
    other = found.setdefault(family, file)
    if other != file:
        raise InputError(file, f"a second {family} dump beside {other}", hint="give one dump for each family")
