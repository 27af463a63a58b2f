"""The locks of an agent: one agent for one part of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rulegen.errors import HostError
from rulegen.host.locks.agent_lock import AgentTwiceError

if TYPE_CHECKING:
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.compiler.ingress.engine import AgentClaim
    from rulegen.host.nftables.guard import TableGuard


@dataclass(slots=True)
class AgentLocks:
    """The locks of this process; the next agent after a reload has them still.

    Attributes:
        services: The lock on the Services of the node; None for none.
        site: The lock on the ingress engine; None for none.
        tables: What protects the tables of nftables, or releases them; None for nothing. A reload into nftables mode
            sets it; after a reload into another mode it still owns the table, which only it can remove.
    """

    services: AgentClaim | None = None
    site: AgentClaim | None = None
    tables: TableGuard | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lock in (self.services, self.site):
            if lock is not None:
                lock.release()
        if self.tables is not None:
            self.tables.close()

    def take(self, log: AgentLog) -> None:
        """Take all locks. A lock that cannot be taken is reported; that of the engine is tried again at each write.

        Then the nftables tables are protected: other programs could change those of a killed agent.

        Raises:
            HostError: Another agent has one.
        """
        for lock in (self.services, self.site):
            try:
                if lock is not None:
                    lock.take()
            except AgentTwiceError:
                raise
            except HostError as error:
                log.warning("a second agent for this node would not be detected", error=error.message)
        if self.tables is not None:
            self._take_tables(self.tables, log)

    @staticmethod
    def _take_tables(tables: TableGuard, log: AgentLog) -> None:
        try:
            families = tables.take()
        except HostError as error:
            log.warning("other programs can change the nftables table", error=error.message)
            return
        for family in families:
            what = "protected from other programs" if tables.is_protected else "released"
            log.info(f"the nftables table is {what}", family=str(family))

    def take_site(self) -> None:
        """Take the lock on the engine.

        Raises:
            HostError: Another agent has it, or it cannot be taken.
        """
        if self.site is not None:
            self.site.take()

    @property
    def may_drain(self) -> bool:
        """Whether no other agent can serve with this engine."""
        return self.site is None or self.site.is_held
