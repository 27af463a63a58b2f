"""Publishes addresses in the status of objects: one node writes for all serving nodes.

Each serving node renews a Lease (`rulegen.agent.status.leases`). The leader writes the addresses of all these nodes to
the status of each Ingress, and with --publish-service-status of each Service of type LoadBalancer without another
controller. A node that stops removes its own addresses; the last one removes all.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from rulegen.agent.status.addresses import union
from rulegen.agent.telemetry.log import fault
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.agent.status.addresses import Entries
    from rulegen.agent.status.changes import StatusChange, StatusSource
    from rulegen.agent.status.leases import LeaseGroup
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState

PERIOD_S: Final = 5.0
TRIES: Final = 3
"""Attempts of one write, if another client writes the same object."""
SILENCE_S: Final = 300.0
"""Pause after a forbidden write, in seconds."""
ABSENT_S: Final = 30.0
"""Time after which addresses of an earlier run are removed if this node serves nothing, in seconds."""
END_S: Final = 10.0
"""Time for removing the addresses at shutdown, in seconds."""


class ServerReports(Protocol):
    """Reports problems of the API server, each once for all callers."""

    def failed(self, who: object, error: ApiError, wake: Callable[[], None]) -> bool:
        """Record a failed request, and return whether this class reports it.

        Args:
            who: The caller.
            error: Why the request failed.
            wake: Called when the server answers again.
        """

    def went_well(self, who: object) -> None:
        """Record a successful request."""


class _NoReports:
    """Reports nothing."""

    def failed(self, _who: object, _error: ApiError, _wake: Callable[[], None]) -> bool:
        """Leave it to the caller to report an error."""
        return False

    def went_well(self, _who: object) -> None:
        """Do nothing."""


@dataclass(slots=True, eq=False)
class Publisher:
    """Publishes addresses, in its own thread.

    Attributes:
        addresses: Returns the addresses to publish for this node; None while it serves nothing.
        withdraws: Whether addresses are removed at shutdown.
        server: Reports problems of the API server, each once for all callers.
        changed: Set to start a turn at once: the served objects have changed.
    """

    members: LeaseGroup
    publications: tuple[StatusSource, ...]
    addresses: Callable[[], Entries | None]
    node_uid: Callable[[], str]
    log: AgentLog
    state: AgentState
    clock: Callable[[], float]
    withdraws: bool = True
    server: ServerReports = field(default_factory=_NoReports)
    changed: threading.Event = field(default_factory=threading.Event)
    period_s: float = PERIOD_S
    _ended: bool = False
    _took_part: bool = False
    _has_left: bool = False
    _absent_at: float | None = None
    _trouble: str = ""
    _silent_until: float = 0.0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start."""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def stop(self, *, for_good: bool) -> None:
        """End.

        Args:
            for_good: Whether this node stops serving; otherwise another run continues.
        """
        if self._ended:
            return
        self._ended = True
        self.changed.set()
        if self._thread is not None:
            self._thread.join(END_S)
        if for_good and self.withdraws and self._took_part and (self._thread is None or not self._thread.is_alive()):
            try:
                self.withdraw()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the end is not to be left out
                self.log.warning("this node's addresses stay published", **fault(error))

    def _run(self) -> None:
        while not self._ended:
            self.guarded_turn()
            self.changed.wait(self.period_s)
            self.changed.clear()

    def guarded_turn(self) -> None:
        """Do one turn; a failure is reported once, and the next turn tries again."""
        if self.clock() < self._silent_until:
            return
        try:
            self.turn()
        except ApiError as error:
            if error.status == 403:
                self._silent_until = self.clock() + SILENCE_S
            if not self.server.failed(self, error, self.changed.set) and error.message != self._trouble:
                self._trouble = error.message
                self.log.warning("addresses are not published", error=error.message, hint=error.hint)
            self.state.metrics.publish_failures.add()
        except Exception as error:  # noqa: BLE001 - whatever it is, the Lease is to be renewed with the next turn
            self.log.error("addresses are not published", **fault(error))
            self.state.metrics.publish_failures.add()
        else:
            self._trouble = ""
            self.server.went_well(self)

    def turn(self) -> None:
        """Renew the Lease if this node serves; if it is the leader, write the statuses that differ.

        Raises:
            ApiError: The API server does not accept it.
        """
        addresses = self.addresses()
        self.members.node_uid = self.node_uid()
        if addresses is None:
            self.state.metrics.publishing.set(0)
            if self.state.is_ending:  # `stop` decides what stays published
                self.members.leave()
            else:
                self._leave()
            return
        self.members.join(addresses)
        self._took_part, self._has_left, self._absent_at = True, False, None
        leads = self.members.lead()
        self.state.metrics.publishing.set(int(leads))
        if leads:
            self._write(self.members.alive())

    def _leave(self) -> None:
        """Remove this node's addresses once: it serves nothing.

        An agent that has just started takes part within some seconds. Until then, addresses of an earlier run stay.

        Raises:
            ApiError: The API server does not accept it.
        """
        if self._absent_at is None:
            self._absent_at = self.clock()
        if self._took_part or (not self._has_left and self.clock() - self._absent_at >= ABSENT_S):
            self.withdraw()
            self._took_part, self._has_left = False, True

    def withdraw(self) -> None:
        """Remove this node's addresses (all addresses if it is the last node), and give up the leadership.

        Raises:
            ApiError: The API server does not accept it.
        """
        self.members.leave()
        others = self.members.alive()
        others.pop(self.members.node, None)
        if self.members.is_leading or not others:
            self._write(others, until=self.clock() + END_S)
        self.members.resign()

    def _write(self, live: Mapping[str, Entries], *, until: float | None = None) -> None:
        written = Counter[str]()
        try:
            refusal = self._write_all(live, until, written)
        finally:
            for noun, count in written.items():
                addresses = ",".join(union(live)) or "none"
                self.log.info("published", resource=noun, objects=count, addresses=addresses)
        if refusal is not None:
            raise refusal

    def _write_all(self, live: Mapping[str, Entries], until: float | None, written: Counter[str]) -> ApiError | None:
        """Write every status that differs, and count the written ones in `written`, by resource.

        Returns:
            Why the server rejected one object, or the last of several; the others are written. None if it accepted all.
        """
        refusal: ApiError | None = None
        for publication in self.publications:
            for change in publication.changes(live):
                if until is None and (self._ended or not self.members.lead()):
                    return refusal
                if until is not None and self.clock() > until:
                    raise ApiError("the time limit ended before all addresses were removed", ApiReason.TIMEOUT)
                try:
                    if self._wrote(change):
                        written[change.resource.noun] += 1
                        publication.wrote(change)
                except ApiError as error:
                    if error.status in {0, 401, 403, 429} or error.status >= 500:
                        raise
                    refusal = error  # the error concerns this object only, so the others are still written
        return refusal

    def _wrote(self, change: StatusChange) -> bool:
        """Write a status; return False if the object was deleted, or replaced by another one."""
        for remaining in range(TRIES - 1, -1, -1):
            try:
                self.members.objects.patch(
                    change.resource, *change.name, change.document, kind=change.kind, sub="status"
                )
            except ApiError as error:
                if error.status == 404:
                    return False
                if error.status != 409:
                    raise
                if not remaining:  # the next turn compares again
                    self.state.metrics.publish_failures.add()
                    self.log.debug("not published", object=str(change.name), error=error.message)
                    return False
            else:
                self.state.metrics.published.add(change.resource.noun)
                self.log.debug("published", object=str(change.name), addresses=",".join(change.entries))
                return True
        raise AssertionError  # the last turn of the loop returns or raises
