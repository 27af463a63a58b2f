"""ipset on this host: all sets as they are, and scripts written to the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.runner import Command, privilege_hint
from rulegen.languages.ipset import state

if TYPE_CHECKING:
    from rulegen.host.runner import Runner

WRITE_TIMEOUT_S = 900.0


def observe(run: Runner) -> state.Objects:
    """Return all sets with their entries, ours and others'.

    Raises:
        HostError: They cannot be read.
    """
    ended = run(Command(("ipset", "save")))
    if ended.code != 0:
        raise HostError(f"reading the ipsets: {ended.complaint}", hint=privilege_hint(ended.stderr))
    return state.read(ended.stdout, "ipset save on this host")


def names(run: Runner) -> list[str]:
    """Return the names of all sets.

    Raises:
        HostError: They cannot be read.
    """
    ended = run(Command(("ipset", "list", "-n")))
    if ended.code != 0:
        raise HostError(f"reading the ipsets: {ended.complaint}", hint=privilege_hint(ended.stderr))
    return ended.stdout.split()


def restore(run: Runner, text: str) -> None:
    """Write a script to the kernel; what it does not name stays as it is. It is not written as a whole or not at all.

    An entry that is there already, and one to delete that is not, are no fault.

    Raises:
        HostError: A line was refused; those before it were written.
    """
    ended = run(Command(("ipset", "-exist", "restore"), stdin=text, timeout_s=WRITE_TIMEOUT_S))
    if ended.code != 0:
        raise HostError(f"writing the ipsets: {ended.complaint}", hint=privilege_hint(ended.stderr))
