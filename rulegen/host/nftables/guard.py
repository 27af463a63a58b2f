"""Protection of the tables of layout `flat`: while this process lives, no other one can change them.

The kernel binds a table to a socket (`kernel/table_owner.py`), so one socket does all writes of this process. No child
inherits it. If the process is killed, the tables serve as before, and the next guard adopts them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from rulegen.diff.changes import Change
from rulegen.errors import HostError
from rulegen.host.netfilter import nft
from rulegen.host.nftables.changes import transactions
from rulegen.host.nftables.kernel.objects import TableName
from rulegen.host.nftables.kernel.table_owner import Tenure, claim, status, supported
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.host.nftables.present import NUMBERS
from rulegen.languages.nftables.state import TableValue, table_key
from rulegen.net import Family
from rulegen.ownership.nftables import FLAT_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.host.commands.runner import Runner
    from rulegen.languages.nftables.state import NftKey, NftValue

_KEY: Final = table_key(FLAT_TABLE)
_PROTECTED: Final = TableValue(frozenset({"owner", "persist"}))


class TableGuard:
    """Makes this process the owner of the tables of layout `flat`, or releases those of an earlier process.

    Attributes:
        is_protected: Whether the tables are protected; else they are released.
    """

    def __init__(self, run: Runner, *, is_protected: bool = True) -> None:
        """Take a function that runs tools, to read a table that must be created again."""
        self._run = run
        self.is_protected = is_protected

    @cached_property
    def link(self) -> NftSocket:
        """The socket that owns the tables.

        Raises:
            HostError: The kernel has no nf_tables.
        """
        return NftSocket()

    def is_possible(self) -> bool:
        """Whether the kernel can protect tables (`owner` and `persist`).

        Raises:
            HostError: It does not say.
        """
        return supported(self.link)

    def close(self) -> None:
        """Release the tables: they stay and work, but other programs can change them."""
        self.__dict__.pop("link", self.link).close()

    def take(self) -> tuple[Family, ...]:
        """Take or release the existing tables; return the families whose table was created again for this.

        Raises:
            HostError: A table cannot be read or created again.
        """
        return tuple(family for family in Family if self.take_family(family))

    def take_family(self, family: Family) -> bool:
        """Take, or release, the table of a family if it exists; return whether it was changed for it.

        The table of an owner that has ended is adopted as it is. Any other one is created again with its content in one
        transaction; clients that session affinity has remembered are then forgotten. If it has something that rulegen
        never writes, it stays: the next write, which removes that, is followed by another attempt.

        Raises:
            HostError: It cannot be read or created again.
        """
        name = TableName(NUMBERS[family], FLAT_TABLE)
        try:
            current = status(self.link, name)
        except OSError as error:
            raise HostError(f"reading the nftables table {FLAT_TABLE}: {error.strerror}") from None
        if current.tenure in {Tenure.ABSENT, Tenure.FOREIGN}:
            return False
        claimed = claim(current, name, is_protected=self.is_protected)
        if claimed.keeps_content:
            if current.tenure is Tenure.ORPHAN:
                self.link.commit(claimed.requests)
            return current.tenure is Tenure.ORPHAN
        try:
            self.remake(family)
        except ValueError:
            return False
        return True

    def remake(self, family: Family, changes: Sequence[Change[NftKey, NftValue]] = ()) -> None:
        """Delete and create the table of a family in one transaction, with changes of its content.

        Raises:
            HostError: It cannot be read, or the kernel refuses it.
            ValueError: An object would still have something that rulegen never writes; nothing was written.
        """
        content = nft.observe(self._run, family, frozenset({FLAT_TABLE}))
        for key, _, after in changes:
            content.pop(key, None)
            if after is not None and key != _KEY:
                content[key] = after
        change: Change[NftKey, NftValue] = Change(_KEY, TableValue(), _PROTECTED if self.is_protected else TableValue())
        for each in transactions(family, [change], content):
            self.link.commit(each.requests)

    def protected(self, changes: Sequence[Change[NftKey, NftValue]]) -> Sequence[Change[NftKey, NftValue]]:
        """Return the changes in which a new table is protected from its first moment."""
        if not self.is_protected or not any(key == _KEY for key, _, _ in changes):
            return changes
        return [
            Change(change.key, change.before, _PROTECTED) if change.key == _KEY and change.after is not None else change
            for change in changes
        ]
