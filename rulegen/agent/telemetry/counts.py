"""Metrics about the cluster: changes that arrive, and the resulting rules."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Final

from rulegen.errors import Rejected
from rulegen.kube.objects.events import Changed, Gone
from rulegen.kube.objects.structs import EndpointSlice, Pod, Service
from rulegen.model.services.ir import Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.agent.telemetry.metric import Metric
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.services.compile import Compiled
    from rulegen.kube.objects.events import Event
    from rulegen.kube.snapshot.cluster import Touched

TRIGGERED: Final = "endpoints.kubernetes.io/last-change-trigger-time"
"""Annotation of an EndpointSlice: the time of the event that caused its change."""


def count_change(state: AgentState, event: Event, touched: Touched) -> None:
    """Count an event as kube-proxy does; a list counts as many changes as it affects Services."""
    if event.kind not in {Service, EndpointSlice, Pod}:
        return
    triggered = None
    if isinstance(event, Changed) and not isinstance(event.state, Rejected):
        triggered = _time_of(event.state.object.metadata.annotations.get(TRIGGERED, ""))
    count = 1 if isinstance(event, Changed | Gone) else len(touched.services)
    if event.kind is Service:
        state.services_changed(count)
    else:
        state.endpoints_changed(count, triggered=triggered)


class RuleCounts:
    """Counts rules by table, and ports without endpoints on this node; recomputed only after another write."""

    def __init__(self, state: AgentState) -> None:
        """Start without counts."""
        self._state = state
        self._counted = -1
        self._counts: Mapping[Metric, Mapping[str, float]] = {}

    def of(self, compiled: Compiled | None) -> Mapping[Metric, Mapping[str, float]]:
        """Return the counts for the desired state; nothing before it is known."""
        generation = self._state.applied
        if compiled is not None and generation != self._counted:
            self._counts = _rule_counts(self._state, compiled)
            self._counted = generation
        return self._counts


def _rule_counts(state: AgentState, compiled: Compiled) -> Mapping[Metric, Mapping[str, float]]:
    tables = Counter[str]()
    for family in compiled.fragments:
        for fragment in compiled.rules(family):
            for name, chain in fragment.exact.items():
                tables[name.table] += len(chain)
            for block in fragment.blocks:
                tables[block.name.table] += len(block.rules)
    ports = [port for service in compiled.model.services.values() for port in service.ports]
    internal = sum(port.internal is Delivery.DROP for port in ports)
    external = sum(port.is_external and port.external is Delivery.DROP for port in ports)
    return {state.metrics.rules: tables, state.metrics.no_local: {"internal": internal, "external": external}}


def _time_of(text: str) -> float | None:
    """Return an RFC 3339 time in seconds since 1970; None if it is invalid."""
    try:
        return dt.datetime.fromisoformat(text).timestamp() if text.isascii() and len(text) < 40 else None
    except (ValueError, OverflowError):
        return None
