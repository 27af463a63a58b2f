"""Metrics in Prometheus' text format (version 0.0.4): kube-proxy's names where the meaning is the same, and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.agent.state import AgentState, Durations

_COUNTERS: Final = {
    "sync_failures": ("kubeproxy_sync_proxy_rules_iptables_restore_failures_total", "", "Writes that failed."),
    "writes": ("rulegen_writes_total", "", "Calls that wrote to the kernel."),
    "foreign_commits": ("rulegen_foreign_commits_total", "", "Commits to nf_tables that others made."),
    "drift": ("rulegen_drift_total", "kind", "Things of ours that others have changed."),
    "reloads": ("rulegen_nginx_reloads_total", "action", "Reloads of nginx that its new workers confirmed."),
    "watch_errors": ("rulegen_watch_errors_total", "reason", "Lists and watches that failed."),
}
_GAUGES: Final = {
    "services": ("rulegen_services", "", "Services that are served."),
    "rejected": ("rulegen_rejected_objects", "", "Objects with faults, which are skipped."),
    "quarantined": ("rulegen_quarantined_ingresses", "", "Ingresses that nginx does not take."),
    "drift_unmended": ("rulegen_drift_unmended", "", "Things of ours that others have changed and that stay so."),
}


def exposition(state: AgentState) -> str:
    """Return all metrics."""
    return "".join(f"{line}\n" for line in _lines(state))


def _lines(state: AgentState) -> Iterator[str]:
    yield from _histogram("kubeproxy_sync_proxy_rules_duration_seconds", "How long a sync took.", state.syncs)
    yield from _histogram(
        "kubeproxy_sync_full_proxy_rules_duration_seconds", "How long a sync with all rules took.", state.full_syncs
    )
    yield from _histogram(
        "kubeproxy_network_programming_duration_seconds",
        "From a change's arrival to the kernel having it.",
        state.programming,
    )
    yield from _metric("rulegen_desired_generation", "gauge", "How many changes have come.", [("", state.desired)])
    yield from _metric("rulegen_applied_generation", "gauge", "Up to which they are applied.", [("", state.applied)])
    yield from _metric(
        "rulegen_oldest_unapplied_seconds", "gauge", "How long the oldest of the others waits.", [("", state.age_s)]
    )
    for table, kind, told in ((_COUNTERS, "counter", dict(state.counters)), (_GAUGES, "gauge", dict(state.gauges))):
        for key, (name, label, text) in table.items():
            values = [
                (f'{{{label}="{_escaped(value)}"}}' if label else "", number)
                for (known, value), number in sorted(told.items())
                if known == key
            ]
            yield from _metric(name, kind, text, values or ([] if label else [("", 0)]))


def _metric(name: str, kind: str, text: str, values: list[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{labels} {value:.15g}" for labels, value in values)


def _histogram(name: str, text: str, durations: Durations) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    counts = durations.counts or [0] * (len(durations.bounds) + 1)
    for bound, count in zip(durations.bounds, counts, strict=False):
        yield f'{name}_bucket{{le="{bound:g}"}} {count}'
    yield f'{name}_bucket{{le="+Inf"}} {counts[-1]}'
    yield f"{name}_sum {durations.total:.15g}"
    yield f"{name}_count {counts[-1]}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
