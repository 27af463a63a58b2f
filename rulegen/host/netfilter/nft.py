"""nft on this host: reads tables as JSON, and writes scripts to the kernel."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, privilege_hint
from rulegen.languages.nftables.read_json import read_json
from rulegen.languages.nftables.state import FAMILIES
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.host.commands.runner import Runner
    from rulegen.languages.nftables.state import NftObjects
    from rulegen.net import Family

READ_S: Final = 60.0
WRITE_S: Final = 60.0
LINE_S: Final = 0.005
"""The time limit for a script, and for each of its lines."""
BUSY_S: Final = 1.2
"""How long a chain counts as referred to after its last map element was deleted, before Linux 6.2, in seconds."""

_TABLE: Final = re.compile(r"table (\S+) (\S+)")
_PLACE: Final = re.compile(r"^[^\n:]*:(?P<line>\d+):\d+-\d+: Error: (?P<complaint>[^\n]*)", re.MULTILINE)
_LONGEST: Final = 200


class NftError(HostError):
    """nft or the kernel rejected a script. Nothing of it was written.

    Attributes:
        text: The rejected command; empty if unknown.
        complaint: The message of the tool.
    """

    def __init__(self, script: str, complaint: str) -> None:
        match = _PLACE.search(complaint)
        lines = script.splitlines()
        number = int(match["line"]) if match else 0
        self.text = lines[number - 1] if 0 < number <= len(lines) else ""
        self.complaint = match["complaint"] if match else complaint.strip().splitlines()[0] if complaint.strip() else ""
        where = f" `{printable(self.text, _LONGEST)}`" if self.text else " the changes"
        super().__init__(f"nft rejected{where}: {self.complaint}", hint=privilege_hint(complaint))


def observe(run: Runner, family: Family, tables: frozenset[str]) -> NftObjects:
    """Return the objects of these tables; none of a table that does not exist.

    Raises:
        MissingToolError: nft is not installed.
        HostError: The tables cannot be read. Never less than all.
    """
    name = FAMILIES[family]
    objects: NftObjects = {}
    for table in sorted(tables & _names(run, name)):
        ended = run(Command(("nft", "-j", "list", "table", name, table), timeout_s=READ_S))
        if ended.code != 0:
            if table not in _names(run, name):
                continue  # another program has deleted it meanwhile
            raise HostError(
                f"reading the nftables table {table}: {ended.complaint}", hint=privilege_hint(ended.complaint)
            )
        states = read_json(ended.stdout, "nft -j list table on this host", tables)
        if family not in states:
            raise HostError(f"reading the nftables table {table}: nft succeeded, but printed no table")
        objects |= states[family]
    return objects


def _names(run: Runner, family: str) -> set[str]:
    """Return the names of the tables of a family.

    Raises:
        MissingToolError: nft is not installed.
        HostError: They cannot be read.
    """
    ended = run(Command(("nft", "list", "tables", family)))
    if ended.code != 0:
        raise HostError(f"reading the nftables tables: {ended.complaint}", hint=privilege_hint(ended.complaint))
    return {name for of, name in _TABLE.findall(ended.stdout) if of == family}


def write(run: Runner, text: str, *, is_removal: bool = False) -> None:
    """Write a script in one transaction.

    Args:
        run: Runs the tool.
        text: The input of `nft -f`.
        is_removal: Whether chains are deleted that the kernel may count as referred to for a moment: then it is tried
            a second time.

    Raises:
        NftError: It was rejected; nothing was written.
        MissingToolError: nft is not installed.
    """
    command = Command(("nft", "-f", "-"), stdin=text, timeout_s=WRITE_S + LINE_S * text.count("\n"))
    ended = run(command)
    if ended.code != 0 and is_removal and "busy" in ended.complaint:
        time.sleep(BUSY_S)
        ended = run(command)
    if ended.code != 0:
        raise NftError(text, ended.stderr or ended.complaint)
