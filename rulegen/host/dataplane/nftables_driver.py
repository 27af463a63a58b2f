"""The driver of the language `nftables`: tables of nftables, read by `nft` and written over netlink."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from rulegen.errors import HostError
from rulegen.host.dataplane.driver import Culprit, Preparation
from rulegen.host.netfilter import nft
from rulegen.host.netfilter.nft import NftError
from rulegen.host.nftables.kernel.transaction import TransactionError, keys_of
from rulegen.host.nftables.present import owner_of, tables_there
from rulegen.host.nftables.write import MOMENTARY, write
from rulegen.languages.nftables.language import NAME, ChangeTables
from rulegen.ownership.nftables import FLAT_TABLE, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import ReadContext, WriteContext
    from rulegen.host.nftables.guard import TableGuard
    from rulegen.languages.language import StateKey, Task
    from rulegen.net import Family

_MOMENTARY: Final = ("not permitted", "denied", "memory", "busy", "Interrupted")


class NftablesDriver:
    """Tables of nftables with their chains, sets, maps and elements."""

    name = NAME
    tells_of_writes = False

    def __init__(self, guard: TableGuard | None = None) -> None:
        """Write with the socket of a guard, if there is one."""
        self._guard = guard

    def read(self, context: ReadContext) -> Any:
        """Return the objects of our tables by family; if the mode has none, nothing unless a table exists."""
        if NAME not in context.needed and not _is_there(context.families):
            return None
        return {family: nft.observe(context.run, family, TABLES) for family in context.families}

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return the objects of each family."""
        return {} if raw is None else {(NAME, family): objects for family, objects in raw.items()}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that writes changes."""
        return {ChangeTables: self._write}

    def _write(self, work: ChangeTables, context: WriteContext) -> None:
        """Write changes over netlink; by nft only what rulegen never writes, such as the removal of a counter.

        Raises:
            HostError: They were rejected, except for removals: what cannot be deleted now is deleted by the next write.
        """
        guard = self._guard
        try:
            commits = write(work.family, work.changes, is_removal=work.is_removal, guard=guard)
        except ValueError:
            commits = self._write_otherwise(work, context)
        except TransactionError as error:
            raise _not_ours(error, work.family) or error from None
        if guard is not None:
            commits += guard.take_family(work.family)
        if commits:
            context.on_commits(commits)

    def _write_otherwise(self, work: ChangeTables, context: WriteContext) -> int:
        """Write changes with objects that rulegen itself never writes; return the number of transactions.

        Only the owner of a table can change it, so nft cannot: what somebody has put there is removed with the table,
        which is made anew.
        """
        guard = self._guard
        own = [change for change in work.changes if change.key.table == FLAT_TABLE]
        if guard is None or not own or work.is_removal:
            _write_as_text(work, context)
            return 1
        try:
            guard.remake(work.family, own)
        except ValueError as error:
            raise HostError(
                f"the nftables table {FLAT_TABLE} is not written: {error}",
                hint="use --nftables-owner off: nft then writes the objects that rulegen does not know",
            ) from None
        others = tuple(change for change in work.changes if change.key.table != FLAT_TABLE)
        if others:
            _write_as_text(replace(work, changes=others), context)
        return 1 + bool(others)

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - the kernel loads what it needs
        """Return a check of who owns the tables if anything else is written, too: a refusal must come before that."""
        works = [task.work for task in tasks if isinstance(task.work, ChangeTables)]
        families = {work.family for work in works if any(key.table == FLAT_TABLE for key, _, _ in work.changes)}
        if self._guard is not None or not families or len(works) == len(tasks):
            return None
        return Preparation(f"owner of the nftables table {FLAT_TABLE}", partial(_check_owner, sorted(families)))

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether nft or the kernel rejects an object."""
        if isinstance(cause, TransactionError):
            return cause.code not in MOMENTARY
        return isinstance(cause, NftError) and not any(word in cause.complaint for word in _MOMENTARY)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Services of the objects that the kernel names; nothing for nft, which names a command."""
        named: dict[str, Culprit] = {}
        if isinstance(cause, TransactionError):
            for refusal in cause.refusals:
                keys = keys_of(refusal)
                if len(keys) == 1:  # else the kernel only names the request, which has elements of many Services
                    named.setdefault(belongings.of_object(NAME, keys[0]), Culprit(str(refusal)))
        return named


def _is_there(families: Iterable[Family]) -> bool:
    """Whether one of our tables exists; not if the kernel has no nf_tables."""
    try:
        return bool(tables_there(families))
    except HostError:
        return False


def _not_ours(error: TransactionError, family: Family) -> HostError | None:
    """Return a better error if the kernel refused because another process owns the table."""
    owner = owner_of(family) if error.code == errno.EPERM else 0
    return _owned(owner) if owner else None


def _check_owner(families: Iterable[Family]) -> None:
    for family in families:
        if owner := owner_of(family):
            raise _owned(owner)


def _owned(owner: int) -> HostError:
    return HostError(
        f"only process {owner} can change the nftables table {FLAT_TABLE}: it owns the table",
        hint="that is usually `rulegen run`: end it, or let it write the change",
    )


def _write_as_text(work: ChangeTables, context: WriteContext) -> None:
    try:
        nft.write(context.run, work.text(), is_removal=work.is_removal)
    except NftError as error:
        if not (work.is_removal and "busy" in error.complaint):
            raise
