"""The driver of the language `nftables`: tables of nftables, by `nft`."""

from __future__ import annotations

from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import HostError
from rulegen.host.netfilter import nft
from rulegen.host.netfilter.nft import NftError
from rulegen.host.nftables.kernel.objects import TableName
from rulegen.host.nftables.kernel.table_owner import Tenure, status
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.languages.nftables.language import NAME, ChangeTables
from rulegen.net import Family
from rulegen.ownership.nftables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import Culprit, Preparation, ReadContext, WriteContext
    from rulegen.languages.language import StateKey, Task

_NUMBERS: Final = {Family.IPV4: int(AF_INET), Family.IPV6: int(AF_INET6)}
_MOMENTARY: Final = ("not permitted", "denied", "memory", "busy", "Interrupted")


class NftablesDriver:
    """Tables of nftables with their chains, sets, maps and elements."""

    name = NAME
    tells_of_writes = False

    def read(self, context: ReadContext) -> Any:
        """Return the objects of our tables by family; if the mode has none, nothing unless a table exists."""
        if NAME not in context.needed and not _is_there(context.families):
            return None
        return {family: nft.observe(context.run, family, TABLES) for family in context.families}

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return the objects of each family."""
        return {} if raw is None else {(NAME, family): objects for family, objects in raw.items()}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that runs the tool."""
        return {ChangeTables: _write}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - the kernel loads what it needs
        """Return nothing."""
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether nft or the kernel rejects an object."""
        return isinstance(cause, NftError) and not any(word in cause.complaint for word in _MOMENTARY)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:  # noqa: ARG002 - a command has many objects
        """Return nothing: a command has elements of many Services."""
        return {}


def _is_there(families: Iterable[Family]) -> bool:
    """Whether one of our tables exists; not if the kernel has no nf_tables."""
    names = [TableName(_NUMBERS[family], table) for family in families for table in sorted(TABLES)]
    try:
        link = NftSocket()
    except HostError:
        return False
    try:
        return any(status(link, name).tenure is not Tenure.ABSENT for name in names)
    except (HostError, OSError):
        return False
    finally:
        link.close()


def _write(work: ChangeTables, context: WriteContext) -> None:
    """Write one transaction.

    Raises:
        HostError: It was rejected, except for a removal: what cannot be deleted now is deleted by the next write.
    """
    try:
        nft.write(context.run, work.text, is_removal=work.is_removal)
    except NftError as error:
        if not (work.is_removal and "busy" in error.complaint):
            raise
        return
    context.on_commits(1)
