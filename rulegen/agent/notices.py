"""Notifications of the host: rules that other programs change, changed addresses, and programs that end.

Without them, the periodic checks find the same changes later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.dataplane.drivers import FOLLOWED
from rulegen.host.netfilter.nft_commits import NftCommit, NftCommits
from rulegen.host.node.interfaces import AddressNotices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import ExitStack

    from rulegen.agent.inbox import Inbox
    from rulegen.agent.services.reports import SyncReports
    from rulegen.host.dataplane.driver import ProgramNotices
    from rulegen.host.netfilter.nft_commits import Writers

SILENCE_S: Final = 2.0
"""Seconds without an answer after which the proxy counts as not serving. A restart after a crash is faster."""


def _nothing() -> None:
    """Stop nothing."""


@dataclass(slots=True)
class ServiceProxySilence:
    """Follows whether the proxy of Services answers, for health, the log and Events.

    Attributes:
        reports: Has the state and the log, and sends the Event.
        clock: Monotonic time in seconds.
    """

    reports: SyncReports
    clock: Callable[[], float] = time.monotonic
    _silent_at: float | None = None

    def heard(self, answers: bool) -> None:  # noqa: FBT001 - a callback
        """Record whether HAProxy has answered; without an answer for some time, Services count as not served."""
        state = self.reports.state
        if answers:
            if state.service_proxy_silence:
                self.reports.log.info("the proxy of Services answers again")
            self._silent_at, state.service_proxy_silence = None, ""
            return
        now = self.clock()
        self._silent_at = now if self._silent_at is None else self._silent_at
        if now - self._silent_at >= SILENCE_S and not state.service_proxy_silence:
            state.service_proxy_silence = "the proxy of Services does not answer"
            self.reports.silent_proxy(state.service_proxy_silence)


@dataclass(frozen=True, slots=True)
class KernelNotices:
    """Wakes up the parts that a change concerns.

    Attributes:
        inbox: Queue of the sync of Services.
        reports: Reports to users.
        look_at_host: Makes the ingress engine read the host again; None if Ingresses are not served.
    """

    inbox: Inbox
    reports: SyncReports
    look_at_host: Callable[[], None] | None

    def follow_commits(self, writers: Writers) -> Callable[[], object]:
        """Follow commits to nf_tables by other programs; return a function that stops this.

        Args:
            writers: The programs that write for rulegen.
        """
        try:
            return NftCommits(writers.has, self._on_foreign_commit).stop
        except HostError as error:
            self.reports.log.warning("changes by other programs are noticed late", error=error.message)
            return _nothing

    def follow_addresses(self, *, wakes_sync: bool) -> Callable[[], object]:
        """Follow address changes of this host; return a function that stops this.

        Args:
            wakes_sync: Whether the sync of Services also depends on them.
        """

        def on_change() -> None:
            if wakes_sync:
                self.inbox.wake_up("host")
            if self.look_at_host is not None:
                self.look_at_host()

        try:
            return AddressNotices(on_change).stop
        except HostError as error:
            self.reports.log.warning("changes of node addresses are noticed late", error=error.message)
            return _nothing

    def of_programs(self, languages: Iterable[str], cleanup: ExitStack) -> list[ProgramNotices]:
        """Return what follows the programs that serve objects of these languages; the caller starts it.

        Args:
            languages: Names of languages.
            cleanup: Stops it in the end.
        """
        silence = ServiceProxySilence(self.reports)
        followed = [
            FOLLOWED[name](self._on_ended_program, silence.heard, self.reports.endpoint_health)
            for name in languages
            if name in FOLLOWED
        ]
        for each in followed:
            cleanup.callback(each.stop)
        return followed

    def _on_ended_program(self, report: str) -> None:
        self.reports.state.metrics.proxy_failures.add()
        self.reports.log.warning("the proxy of Services has failed", what=report)
        self.inbox.wake_up("check")

    def _on_foreign_commit(self, notice: NftCommit | None) -> None:
        if notice is not None:
            self.reports.state.metrics.foreign_commits.add()
        self.inbox.wake_up("check")
