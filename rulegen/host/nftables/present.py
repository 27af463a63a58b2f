"""Which of rulegen's tables of nftables the kernel of this host has."""

from __future__ import annotations

from contextlib import closing
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.nftables.kernel.objects import TableName
from rulegen.host.nftables.kernel.table_owner import Tenure, status
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.net import Family
from rulegen.ownership.nftables import FLAT_TABLE, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBERS: Final = {Family.IPV4: int(AF_INET), Family.IPV6: int(AF_INET6)}
"""The number of each family in messages to the kernel."""


def tables_there(families: Iterable[Family] = Family) -> frozenset[str]:
    """Return the names of our tables that exist in any of these families.

    Raises:
        HostError: The kernel has no nf_tables, or does not say.
    """
    wanted = [TableName(NUMBERS[family], table) for family in families for table in sorted(TABLES)]
    with closing(NftSocket()) as link:
        try:
            return frozenset(table.name for table in wanted if status(link, table).tenure is not Tenure.ABSENT)
        except OSError as error:
            raise HostError(
                f"reading the nftables tables: {error.strerror}", hint="run as root, or with CAP_NET_ADMIN"
            ) from None


def owner_of(family: Family) -> int:
    """Return the number of the socket of another process that owns the table of layout `flat`; 0 for none.

    It is usually the id of the process.
    """
    try:
        with closing(NftSocket()) as link:
            current = status(link, TableName(NUMBERS[family], FLAT_TABLE))
    except (HostError, OSError):
        return 0
    return current.owner if current.tenure is Tenure.FOREIGN else 0
