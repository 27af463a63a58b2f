"""Ownership of a table: with the flags `owner` and `persist`, only one socket may change it.

Other sockets get EPERM, also those of root, and `nft flush ruleset` leaves the table out. When the socket ends, for
example because its process was killed, the table stays as it is and serves, but it is open: elements can be changed by
anybody. The next socket that asks for it with both flags becomes its owner. The flags of an existing table can be
neither set nor cleared: such a change deletes and creates the table in one transaction.

`owner` without `persist` (kernels before 6.9) is never used: the rules would end with the process.
"""

from __future__ import annotations

import errno
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.host.nftables.kernel.attributes import read_number, text
from rulegen.host.nftables.kernel.objects import (
    GET_TABLE,
    OWNER,
    PERSIST,
    NftMessage,
    TableName,
    delete_table,
    new_table,
)
from rulegen.host.nftables.kernel.transaction import TransactionError

if TYPE_CHECKING:
    from rulegen.host.nftables.kernel.transaction import NftSocket

PROTECTED: Final = OWNER | PERSIST
_FLAGS, _USE, _OWNER = 2, 3, 7


class Tenure(StrEnum):
    """Who may change a table."""

    ABSENT = "absent"
    """The table does not exist."""
    OPEN = "open"
    """Everybody: the table has no owner flag."""
    ORPHAN = "orphan"
    """The owner has ended; the next one that asks becomes the owner."""
    OURS = "ours"
    """Only this socket."""
    FOREIGN = "foreign"
    """Only the socket of another process."""


class TableStatus(NamedTuple):
    """A table in the kernel.

    Attributes:
        tenure: Who may change it.
        flags: Its flags.
        owner: The port of the socket that owns it; usually the process id. 0 for none.
    """

    tenure: Tenure
    flags: int = 0
    owner: int = 0

    @property
    def persists(self) -> bool:
        """Whether it stays when its owner ends."""
        return bool(self.flags & PERSIST)


class TableClaim(NamedTuple):
    """How a table becomes ours.

    Attributes:
        requests: What a transaction must start with.
        keeps_content: Whether the table keeps its chains, sets and elements; else all of them must be written.
    """

    requests: tuple[NftMessage, ...]
    keeps_content: bool


def status(link: NftSocket, table: TableName) -> TableStatus:
    """Return who may change a table.

    Raises:
        OSError: The kernel refused; its errno.
    """
    attributes = link.ask(GET_TABLE, table.family, text(1, table.name))
    if attributes is None:
        return TableStatus(Tenure.ABSENT)
    flags, owner = read_number(attributes.get(_FLAGS)), read_number(attributes.get(_OWNER))
    if not flags & OWNER:  # the kernel clears it when the owner ends
        return TableStatus(Tenure.ORPHAN if flags & PERSIST else Tenure.OPEN, flags)
    return TableStatus(Tenure.OURS if owner == link.port else Tenure.FOREIGN, flags, owner)


def supported(link: NftSocket) -> bool:
    """Return whether the kernel has both flags. Nothing is written.

    Raises:
        TransactionError: The kernel refused for another reason, such as a missing privilege.
    """
    try:
        link.check([new_table(TableName(2, f"rulegen-{secrets.token_hex(8)}"), PROTECTED)])
    except TransactionError as error:
        if error.code in {errno.EOPNOTSUPP, errno.EINVAL}:
            return False
        raise
    return True


def claim(current: TableStatus, table: TableName, *, is_protected: bool) -> TableClaim:
    """Return how a table becomes ours, with or without protection.

    A table of another owner is claimed like an open one: the kernel then refuses the transaction.
    """
    flags = PROTECTED if is_protected else 0
    if current.tenure is Tenure.ABSENT:
        return TableClaim((new_table(table, flags),), keeps_content=False)
    if is_protected and current.tenure is Tenure.OURS:
        return TableClaim((), keeps_content=True)
    if current.persists == is_protected:
        return TableClaim((new_table(table, flags),), keeps_content=True)
    return TableClaim((delete_table(table), new_table(table, flags)), keeps_content=False)


def release(table: TableName) -> tuple[NftMessage, ...]:
    """Return the start of a transaction that gives a table up. Its content must follow; then anybody may change it."""
    return delete_table(table), new_table(table)
