"""What metrics tell of the cluster: changes that come, and what comes of them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Final

from rulegen.errors import Rejected
from rulegen.kube.objects.events import Changed, Gone
from rulegen.kube.objects.structs import EndpointSlice, Service
from rulegen.model.services.ir import Delivery

if TYPE_CHECKING:
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.services.compile import Compiled
    from rulegen.kube.objects.events import Event
    from rulegen.kube.snapshot.cluster import Touched

TRIGGERED: Final = "endpoints.kubernetes.io/last-change-trigger-time"
"""Annotation of an EndpointSlice: when that happened for which it was changed."""


def count_change(state: AgentState, event: Event, touched: Touched) -> None:
    """Count what came as kube-proxy does; a list is as many changes as it touches Services."""
    if event.kind not in {Service, EndpointSlice}:
        return
    triggered = None
    if isinstance(event, Changed) and not isinstance(event.one, Rejected):
        triggered = _time_of(event.one.object.metadata.annotations.get(TRIGGERED, ""))
    count = 1 if isinstance(event, Changed | Gone) else len(touched.services)
    state.came("service" if event.kind is Service else "endpoint", count, triggered=triggered)


def count_rules(state: AgentState, compiled: Compiled) -> None:
    """Count rules by table, and ports without an endpoint here."""
    tables = Counter[str]()
    for family in compiled.fragments:
        for fragment in compiled.rules(family):
            for name, chain in fragment.exact.items():
                tables[name.table] += len(chain)
            for block in fragment.blocks:
                tables[block.name.table] += len(block.rules)
    for table, count in tables.items():
        state.gauge("rules", count, table)
    ports = [port for service in compiled.model.services.values() for port in service.ports]
    internal = sum(port.internal is Delivery.DROP for port in ports)
    external = sum(port.is_external and port.external is Delivery.DROP for port in ports)
    state.gauge("no_local", internal, "internal")
    state.gauge("no_local", external, "external")


def _time_of(text: str) -> float | None:
    """Return a time as RFC 3339 has it, in seconds since 1970; None where it is none."""
    try:
        return dt.datetime.fromisoformat(text).timestamp() if text.isascii() and len(text) < 40 else None
    except (ValueError, OverflowError):
        return None
