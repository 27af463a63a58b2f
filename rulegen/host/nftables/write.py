"""Writing of changes to the kernel of this host."""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import closing, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Final

from rulegen.host.nftables.changes import ChangePart, transactions
from rulegen.host.nftables.kernel.dump import read_set
from rulegen.host.nftables.kernel.transaction import NftSocket, TransactionError
from rulegen.host.nftables.sets import set_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.diff.changes import Change
    from rulegen.host.nftables.guard import TableGuard
    from rulegen.host.nftables.kernel.objects import NftMessage, TableName
    from rulegen.languages.nftables.state import NamedSet, NftKey, NftValue
    from rulegen.net import Family

BUSY_S: Final = 1.2
"""How long a chain counts as referred to after its last map element was deleted, before Linux 6.2, in seconds."""
MOMENTARY: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR})
"""Refusals that say nothing about the content of a transaction."""
_RELEASE: Final = re.compile(r"([0-9]+)\.([0-9]+)")


def write(
    family: Family,
    changes: Sequence[Change[NftKey, NftValue]],
    *,
    is_removal: bool = False,
    guard: TableGuard | None = None,
) -> int:
    """Write changes, and return the number of transactions.

    Args:
        family: The family of the tables.
        changes: The changes. If a set is created again, also the objects that refer to it, and all of its elements.
        is_removal: Whether only those tables, sets and chains are deleted that are still there. The other changes
            include removals where the kernel accepts both in one transaction. What something else still refers to is
            left to the next write.
        guard: What protects the tables: its socket writes.

    Raises:
        TransactionError: The kernel refused a transaction; nothing of it was written.
        HostError: The kernel did not answer, or has no nf_tables.
        ValueError: An object has something that rulegen does not write; nothing was written.
    """
    if guard is not None:
        changes = guard.protected(changes)
    with closing(NftSocket()) if guard is None else nullcontext(guard.link) as link:

        def find(table: TableName, name: str) -> NamedSet | None:
            known = read_set(link, table, name)
            return None if known is None else set_of(known)

        def made(scope: ChangePart) -> list[list[NftMessage]]:
            written = transactions(family, changes, scope=scope, find=find)
            return [each.requests for each in written if each.requests]

        if is_removal:
            return sum(_remove(link, requests) for requests in made(ChangePart.REMOVALS))
        if removes_at_once():
            try:
                return _commit(link, made(ChangePart.ALL))
            except TransactionError as error:
                if error.code != errno.EBUSY:
                    raise
        return _commit(link, made(ChangePart.WITHOUT_REMOVALS))


@cache
def removes_at_once() -> bool:
    """Whether a chain can be deleted in the transaction that deletes the last map element which refers to it."""
    match = _RELEASE.match(os.uname().release)
    return match is not None and (int(match[1]), int(match[2])) >= (6, 2)


def _commit(link: NftSocket, written: Sequence[Sequence[NftMessage]]) -> int:
    for requests in written:
        link.commit(requests)
    return len(written)


def _remove(link: NftSocket, requests: Sequence[NftMessage]) -> int:
    """Delete what is still there and nothing refers to, and return the number of transactions."""
    is_patient = not removes_at_once()
    while requests:
        try:
            link.commit(requests)
        except TransactionError as error:
            absent = {id(each.message) for each in error.refusals if each.code == errno.ENOENT}
            busy = {id(each.message) for each in error.refusals if each.code == errno.EBUSY}
            if not (absent or busy):
                raise
            if absent or not is_patient:
                left_out = absent or busy
                requests = [each for each in requests if id(each) not in left_out]
            else:
                is_patient = False
                time.sleep(BUSY_S)
        else:
            return 1
    return 0
