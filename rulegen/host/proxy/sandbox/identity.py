"""Finds a user and group id for the sandbox that nothing else on this node uses.

A shared user such as nobody is not safe: other processes of that user could inspect the process through /proc, read its
files, and end it. So the id is taken from a range that no package and no tool assigns, for both user and group. It is
free if no process, no entry of the user database and no container range (subuid(5)) has it.
"""

from __future__ import annotations

import grp
import os
import pwd
import secrets
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import HostError
from rulegen.safe_files import MIB, read_kernel_text, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Range(NamedTuple):
    """The ids from `first` to `last`, both included."""

    first: int
    last: int


PREFERRED: Final = Range(2_000_400_000, 2_147_352_575)
"""Above the ids that sssd assigns to directory users and systemd-nspawn to containers, below systemd's foreign ids."""

IN_CONTAINERS: Final = Range(60_578, 61_183)
"""The ids that systemd documents as unused, among the 65,536 of a typical container with a user namespace."""

_TRIES: Final = 32
_SUBORDINATE: Final = ("/etc/subuid", "/etc/subgid")


def unused() -> int:
    """Return an id that no user, group or process of this node has.

    Raises:
        HostError: No such id was found.
    """
    allowed = usable(_mapped("uid_map"), _mapped("gid_map"))
    taken = frozenset(_of_processes())
    for _ in range(_TRIES):
        number = _drawn(allowed)
        if number not in taken:
            return number
        _drawn.cache_clear()
    raise HostError("no user id is free for the sandbox", hint="check /proc of this node")


def usable(users: tuple[Range, ...], groups: tuple[Range, ...]) -> tuple[Range, ...]:
    """Return the ranges for new ids, if only these user and group ids exist (user_namespaces(7)).

    >>> whole = (Range(0, 2**32 - 2),)
    >>> usable(whole, whole) == (PREFERRED,)
    True
    >>> usable((Range(0, 65_535),), whole) == (IN_CONTAINERS,)
    True
    >>> usable((Range(0, 0),), whole)
    ()
    """
    for wanted in (PREFERRED, IN_CONTAINERS):
        both = tuple(
            Range(first, last)
            for user in users
            for group in groups
            if (first := max(wanted.first, user.first, group.first))
            <= (last := min(wanted.last, user.last, group.last))
        )
        if both:
            return both
    return ()


@cache
def _drawn(allowed: tuple[Range, ...]) -> int:
    """Return an id without a user name, the same one in this process, so that a directory is asked only once."""
    given = tuple(_given())
    for _ in range(_TRIES if allowed else 0):
        chosen = secrets.choice(allowed)
        number = chosen.first + secrets.randbelow(chosen.last - chosen.first + 1)
        if not _is_named(number) and not any(first <= number <= last for first, last in given):
            return number
    raise HostError(
        "no user id is free for the sandbox",
        hint=f"this user namespace needs ids between {PREFERRED.first} and {PREFERRED.last}, or "
        f"{IN_CONTAINERS.first} and {IN_CONTAINERS.last}",
    )


def _is_named(number: int) -> bool:
    for named in (pwd.getpwuid, grp.getgrgid):
        try:
            named(number)
        except KeyError:
            continue
        return True
    return False


def _mapped(name: str) -> tuple[Range, ...]:
    """Return the ids of our user namespace."""
    lines = (line.split() for line in read_kernel_text(f"/proc/self/{name}").splitlines())
    return tuple(Range(int(first), int(first) + int(count) - 1) for first, _, count in lines)


def _of_processes() -> Iterator[int]:
    """Yield the user and group ids of all processes, except hidden ones."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - of 1,000s
        if name.isdigit():
            try:
                text = read_kernel_text(f"/proc/{name}/status")
            except OSError:  # the process has ended
                continue
            for line in text.splitlines():
                if line.startswith(("Uid:", "Gid:", "Groups:")):
                    yield from map(int, line.split()[1:])


def _given() -> Iterator[Range]:
    """Yield the ranges that users can assign to containers."""
    for path in _SUBORDINATE:
        try:
            text = read_regular(path, MIB, follow=True).decode("utf-8", "replace")
        except OSError:  # the file does not exist
            continue
        yield from _ranges(text.splitlines())


def _ranges(lines: Iterable[str]) -> Iterator[Range]:
    for line in lines:
        _, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if first.isdigit() and count.isdigit():
            yield Range(int(first), int(first) + int(count) - 1)
