"""Services that the kernel rejected: left out, reported once, tried again after a change and after some minutes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.agent.telemetry.events import EventRequest, ObjectReference

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.services.attribution import Belongings
    from rulegen.kube.objects.names import ObjectName
    from rulegen.languages.language import Shape

RETRY_S: Final = 300.0
"""Seconds until an unchanged Service is tried again."""
UNTRIED_S: Final = 1.0
"""The same for a Service that was not tried for lack of time."""
SHOWN: Final = 5
"""Maximum number of Services with the same reason that the log names."""


class RefusedService(NamedTuple):
    """Why a Service is left out, and when it is tried again.

    Attributes:
        is_untried: Whether there was no time to try it: the reason says nothing about the Service itself.
    """

    reason: str
    until: float
    is_untried: bool = False


@dataclass(slots=True)
class LeftOut:
    """The Services that are left out.

    Attributes:
        send_event: Sends users an event.
        uid_of: Returns the UID of a Service, if known.
    """

    log: AgentLog
    state: AgentState
    send_event: Callable[[EventRequest], None]
    uid_of: Callable[[ObjectName], str]
    _refusals: dict[ObjectName, RefusedService] = field(default_factory=dict)
    _lacking: dict[frozenset[Shape], RefusedService] = field(default_factory=dict)

    def add(self, reasons: Mapping[ObjectName, str], now: float, untried: Collection[ObjectName] = ()) -> None:
        """Record the rejected Services, and report the new ones.

        Args:
            reasons: The reason by Service.
            now: The current time.
            untried: Services that were not tried for lack of time: they are tried again soon, without an Event.
        """
        by_reason: defaultdict[str, list[ObjectName]] = defaultdict(list)
        for name, reason in sorted(reasons.items()):
            if name not in self._refusals or (self._untried(name) and name not in untried):
                by_reason[reason].append(name)
                if name not in untried:
                    about = ObjectReference("v1", "Service", name.namespace, name.name, self.uid_of(name))
                    self.send_event(EventRequest(about, "LeftOut", "Serve", f"this version is not served: {reason}"))
            again_s = UNTRIED_S if name in untried else RETRY_S
            self._refusals[name] = RefusedService(reason, now + again_s, is_untried=name in untried)
        for reason, names in by_reason.items():
            shown = ", ".join(map(str, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")
            again_s = UNTRIED_S if names[0] in untried else RETRY_S
            self.log.warning("left out", services=shown, reason=reason, again_in_s=again_s)
        self._count()

    def add_lacking(self, lacking: Iterable[frozenset[Shape]], now: float) -> None:
        """Record a feature that the kernel rejects for every Service.

        Services that need it are not tried again soon.
        """
        for needs in lacking:
            self._lacking[needs] = RefusedService("", now + RETRY_S)

    def refused(self, belongings: Belongings, now: float, text: Callable[[frozenset[Shape]], str]) -> dict[str, str]:
        """Return the Services (`namespace/name`) that need a missing feature, with the reason."""
        self._lacking = {needs: refusal for needs, refusal in self._lacking.items() if refusal.until > now}
        if not self._lacking:
            return {}
        return {
            owner: text(needs)
            for owner in belongings.owners
            for needs in self._lacking
            if belongings.shapes(owner) >= needs
        }

    def settle(self, left_out: Collection[ObjectName]) -> None:
        """Record which Services are still left out; report those that are served again."""
        for name in sorted(self._refusals.keys() - set(left_out)):
            del self._refusals[name]
            self.log.info("no longer left out", service=str(name))
        self._count()

    def due(self, now: float) -> set[ObjectName]:
        """Return the Services that are due to be tried again, and postpone their next attempt."""
        due = {name for name, refusal in self._refusals.items() if refusal.until <= now}
        for name in due:
            self._refusals[name] = self._refusals[name]._replace(until=now + RETRY_S)
        return due

    @property
    def names(self) -> frozenset[ObjectName]:
        """Names of all Services that are left out."""
        return frozenset(self._refusals)

    @property
    def next_at(self) -> float | None:
        """Time of the next attempt; None if no Service is left out."""
        return min((refusal.until for refusal in self._refusals.values()), default=None)

    def texts(self) -> Iterator[str]:
        """Yield a line of text for each Service that is left out."""
        for name, refusal in sorted(self._refusals.items()):
            yield f"Service {name} is left out, and its old rules stay: {refusal.reason}"

    def _untried(self, name: ObjectName) -> bool:
        return self._refusals[name].is_untried

    def _count(self) -> None:
        self.state.metrics.left_out.set(len(self._refusals))
