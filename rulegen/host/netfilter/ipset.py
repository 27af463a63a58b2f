"""ipset on this host: reads the sets as text, and writes scripts to the kernel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, privilege_hint
from rulegen.languages.ipset import state
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.host.commands.runner import Runner

RESTORE_S: Final = 30.0
LINE_S: Final = 0.001
"""The time limit for a script, and for each of its lines: 100,000 entries take about 1 s."""

_LINE: Final = re.compile(r"Error in line (?P<line>\d+): ")
_SIGNATURE: Final = re.compile(r"^ipset v[0-9.]+: ")
_LONGEST: Final = 200


class SetError(HostError):
    """`ipset restore` rejected a line. The tool is not atomic: lines before it may be written, those after it are not.

    Attributes:
        line: The number of the line, from 1; None if the tool reported none.
        text: The line; empty if unknown.
        complaint: The message of the tool.
    """

    def __init__(self, script: str, complaint: str) -> None:
        match = _LINE.search(complaint)
        lines = script.splitlines()
        self.line = int(match["line"]) if match else None
        self.text = lines[self.line - 1] if self.line and self.line <= len(lines) else ""
        self.complaint = _LINE.sub("", _SIGNATURE.sub("", complaint))
        where = f" line {self.line} of {len(lines)}, `{printable(self.text, _LONGEST)}`" if self.text else ""
        super().__init__(f"ipset restore rejected{where or ' the sets'}: {self.complaint}", hint=_hint(self.complaint))


def observe(run: Runner) -> state.Objects:
    """Return all sets of this network namespace with their entries, ours and foreign ones.

    Raises:
        MissingToolError: ipset is not installed.
        HostError: The sets cannot be read, or the kernel has none. Never less than all.
    """
    before = names(run)
    ended = run(Command(("ipset", "save")))
    if ended.code != 0:
        said = _SIGNATURE.sub("", ended.complaint)
        raise HostError(f"reading the ipsets: {said}", hint=_hint(said))
    objects = state.read(ended.stdout, "ipset save on this host")
    is_cut = bool(ended.stdout) and not ended.stdout.endswith("\n")
    lost = [name for name in before if state.SetKey(name) not in objects]
    if is_cut or (lost and set(lost) & set(names(run))):  # otherwise another program has destroyed them meanwhile
        raise HostError(
            "reading the ipsets: `ipset save` succeeded, but its output is incomplete",
            hint="check which `ipset` this host has, and that `ipset save` prints all sets",
        )
    return objects


def names(run: Runner) -> list[str]:
    """Return the names of all sets of this network namespace; the time does not depend on their entries.

    Raises:
        MissingToolError: ipset is not installed.
        HostError: The sets cannot be read, or the kernel has none.
    """
    ended = run(Command(("ipset", "list", "-n")))
    if ended.code != 0:
        said = _SIGNATURE.sub("", ended.complaint)
        raise HostError(f"reading the ipsets: {said}", hint=_hint(said))
    return ended.stdout.split()


def restore(run: Runner, text: str) -> None:
    """Write a script to the kernel, line by line. A line whose result already exists succeeds.

    Args:
        run: Runs the tool.
        text: The input of `ipset restore`.

    Raises:
        SetError: A line was rejected; the lines after it were not written.
        MissingToolError: ipset is not installed.
        HostError: Writing is not permitted.
    """
    timeout_s = RESTORE_S + LINE_S * text.count("\n")
    ended = run(Command(("ipset", "-exist", "restore"), stdin=text, timeout_s=timeout_s))
    if ended.code != 0:
        raise SetError(text, ended.complaint)


def _hint(complaint: str) -> str:
    if "Cannot open session to kernel" in complaint or "Invalid argument" in complaint:
        return privilege_hint(complaint) or "load the module ip_set (`modprobe ip_set`)"
    if "set with the same name already exists" in complaint:
        return "a set of that name has another type: the next write creates it again"
    return privilege_hint(complaint)
