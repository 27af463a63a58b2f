"""Saved dumps: what a node had, read from files instead of the kernel, each told by its content.

Those of IPVS and its kin are `ipvsadm -Sn`, `ipset save`, `ip -br addr show kube-ipvs0`, `ipvsadm -Ln --timeout` and
`sysctl -a`. A kernel without virtual servers prints nothing at all, so an empty file is told by its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rulegen.errors import InputError
from rulegen.host.files import read_text
from rulegen.languages.ipset import state as ipset
from rulegen.languages.iptables.ruleset import Ruleset, family_in, is_dump, read
from rulegen.languages.ipvs import text as ipvs_text
from rulegen.languages.links import state as links
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.languages.ipvs import state as ipvs

T = TypeVar("T")

_ADDRESSES = re.compile(r"kube-ipvs0(?:@\S+)?\s+(?:DOWN|UP|UNKNOWN)\b")
_SYSCTLS = re.compile(r"[a-z][a-z0-9_]*\.\S+ *=")


@dataclass(slots=True)
class Dumps:
    """What saved dumps hold; None for what none of them tells.

    Attributes:
        rulesets: Of iptables, by family.
        sets, servers: All ipsets and virtual servers, ours and others'.
        links: Our dummy device, and what is bound to it.
        timeouts: How long IPVS remembers connections.
        sysctls: Kernel parameters by name.
        others: Files that were looked into and hold nothing of the kind.
    """

    rulesets: dict[Family, Ruleset] = field(default_factory=dict)
    sets: ipset.Objects | None = None
    servers: ipvs.Objects | None = None
    links: links.Links | None = None
    timeouts: ipvs.Timeouts | None = None
    sysctls: dict[str, str] | None = None
    others: tuple[str, ...] = ()


def read_dumps(paths: Sequence[str]) -> Dumps:
    """Return what dumps hold: of iptables-save and ip6tables-save at least, of the tools for IPVS perhaps.

    A dump of iptables whose content tells no family (it has no address in it) is judged by its name, then taken for the
    family that the others are not of.

    Args:
        paths: Files, and folders whose files are looked at (subfolders are not).

    Raises:
        InputError: A file cannot be read or is broken, a named file is no dump, or two are of one kind and family.
    """
    texts: dict[str, str] = {}
    others: list[str] = []
    found = Dumps()
    for path in paths:
        for file in _files(path):
            text = _text(file, is_named=file == path)
            if text is not None and is_dump(text):
                texts[file] = text
            elif text is not None and _take(found, file, text):
                continue
            elif file == path:
                raise InputError(
                    path,
                    "not a dump of iptables-save or ip6tables-save, nor of ipvsadm -Sn, ipset save or ip -br addr",
                )
            else:
                others.append(file)
    if not texts:
        raise InputError(", ".join(paths), "no dump of iptables-save or ip6tables-save in there")
    families = _families(texts)
    found.rulesets = {family: read(texts[file], file, family) for family, file in sorted(families.items())}
    found.others = tuple(others)
    return found


def _take(found: Dumps, file: str, text: str) -> bool:
    """Take a file's text where it is a dump of IPVS and its kin; return whether it is one.

    Raises:
        InputError: It is broken, or the second of its kind.
    """
    name = Path(file).name.lower()
    is_empty = not text.strip()
    timeouts = ipvs_text.read_timeouts(text)
    if timeouts is not None:
        found.timeouts = _only(found.timeouts, timeouts, file)
    elif ipvs_text.is_dump(text) or (is_empty and "ipvsadm" in name):
        found.servers = _only(found.servers, ipvs_text.read(text, file), file)
    elif ipset.is_dump(text) or (is_empty and "ipset" in name):
        found.sets = _only(found.sets, ipset.read(text, file), file)
    elif _ADDRESSES.match(text) or (is_empty and name.endswith(".addr")):
        found.links = _only(found.links, links.read(text, file), file)
    elif _SYSCTLS.match(text):
        pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
        found.sysctls = _only(found.sysctls, {key.strip(): value.strip() for key, value in pairs}, file)
    else:
        return False
    return True


def _only(known: T | None, new: T, file: str) -> T:
    if known is not None:
        raise InputError(file, "a second dump of its kind", hint="give one of each")
    return new


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
