"""Metrics in Prometheus' text format (version 0.0.4): kube-proxy's names where the meaning is the same, and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.agent.telemetry.state import AgentState, Durations

_SYNC: Final = "kubeproxy_sync_proxy_rules"
_COUNTERS: Final = {
    "restore_failures": (f"{_SYNC}_iptables_restore_failures_total", "", "Writes of rules that failed."),
    "partial_restore_failures": (
        f"{_SYNC}_iptables_partial_restore_failures_total",
        "",
        "Those of them that would have written only what changed; all rules are read and compared after one.",
    ),
    "service_changes": (f"{_SYNC}_service_changes_total", "", "Changes of Services that came."),
    "endpoint_changes": (f"{_SYNC}_endpoint_changes_total", "", "Changes of endpoints that came."),
    "healthz": ("kubeproxy_proxy_healthz_total", "code", "Answers of /healthz."),
    "livez": ("kubeproxy_proxy_livez_total", "code", "Answers of /livez."),
    "clients_cut": (
        "rulegen_http_clients_cut_total",
        "reason",
        "Clients of the agent's ports that were cut: crowded, late, outdated.",
    ),
    "forgotten_flows": (
        "kubeproxy_conntrack_reconciler_deleted_entries_total",
        "",
        "UDP connections that were forgotten, as nobody serves them any more.",
    ),
    "sync_failures": (
        "rulegen_sync_failures_total",
        "",
        "Syncs that failed, by reading or writing; each is tried again.",
    ),
    "writes": ("rulegen_writes_total", "", "Calls that wrote to the kernel."),
    "foreign_commits": ("rulegen_foreign_commits_total", "", "Commits to nf_tables that others made."),
    "drift": ("rulegen_drift_total", "kind", "Things of ours that others have changed."),
    "site_failures": (
        "rulegen_nginx_failures_total",
        "",
        "Times that nginx could not be made to serve what it should.",
    ),
    "reloads": ("rulegen_nginx_reloads_total", "action", "Reloads of nginx that its new workers confirmed."),
    "watch_errors": ("rulegen_watch_errors_total", "reason", "Lists and watches that failed."),
    "relists": ("rulegen_lists_total", "kind", "Lists that were read whole."),
    "events": ("rulegen_events_total", "outcome", "Events: sent, counted in a series, dropped as too many, failed."),
    "published": ("rulegen_published_total", "resource", "Statuses that were written with addresses of nodes."),
    "publish_failures": ("rulegen_publish_failures_total", "", "Turns of publishing addresses that failed."),
}
_GAUGES: Final = {
    "rules": (f"{_SYNC}_iptables_total", "table", "Rules of ours."),
    "no_local": (
        f"{_SYNC}_no_local_endpoints_total",
        "traffic_policy",
        "Ports of Services whose policy is Local and that have no endpoint here, though elsewhere.",
    ),
    "services": ("rulegen_services", "", "Services that are served."),
    "rejected": ("rulegen_rejected_objects", "", "Objects with faults, which are skipped."),
    "left_out": ("rulegen_left_out_services", "", "Services that the kernel refuses, which are left out."),
    "over_limit": (
        "rulegen_over_limit",
        "kind",
        "Services of which a part is served, and Ingresses of which nothing is, as they are over a limit.",
    ),
    "quarantined": ("rulegen_quarantined_ingresses", "", "Ingresses that nginx does not take."),
    "unread": ("rulegen_waiting_references", "", "What Ingresses name and the API server has not told of."),
    "site_changes": ("rulegen_nginx_changes", "", "Files of nginx that were not as wanted at the last look."),
    "drift_unmended": (
        "rulegen_drift_unmended",
        "",
        "Things that are not as wanted and stay so, as nothing is written.",
    ),
    "parameters_refused": ("rulegen_parameters_refused", "", "Kernel parameters that may not be set here."),
    "publishing": ("rulegen_publishing", "", "Whether this node writes the addresses of all into statuses."),
}


def exposition(state: AgentState) -> str:
    """Return all metrics."""
    return "".join(f"{line}\n" for line in _lines(state))


def _lines(state: AgentState) -> Iterator[str]:
    for name, text, durations in (
        (f"{_SYNC}_duration_seconds", "How long a sync took.", state.syncs),
        ("kubeproxy_sync_full_proxy_rules_duration_seconds", "How long one with all rules took.", state.full_syncs),
        ("kubeproxy_sync_partial_proxy_rules_duration_seconds", "How long one of changes took.", state.partial_syncs),
        (
            "kubeproxy_network_programming_duration_seconds",
            "From what changed endpoints (their last-change-trigger-time) to the kernel having it.",
            state.network_programming,
        ),
        ("kubeproxy_conntrack_reconciler_sync_duration_seconds", "How long a look at it took.", state.reconciles),
        (
            "rulegen_change_to_kernel_seconds",
            "From a change's arrival here to the kernel having it.",
            state.programming,
        ),
    ):
        yield from _histogram(name, text, durations)
    for name, text, value in (
        (f"{_SYNC}_last_timestamp_seconds", "When all was last as wanted.", state.last_applied),
        (f"{_SYNC}_last_queued_timestamp_seconds", "When a change last came.", state.last_queued),
        (f"{_SYNC}_service_changes_pending", "Changes of Services to be written.", state.pending["service"]),
        (f"{_SYNC}_endpoint_changes_pending", "Changes of endpoints to be written.", state.pending["endpoint"]),
        ("rulegen_desired_generation", "How many changes have come.", state.desired),
        ("rulegen_applied_generation", "Up to which they are applied.", state.applied),
        ("rulegen_oldest_unapplied_seconds", "How long the oldest of the others waits.", state.age_s),
        ("process_start_time_seconds", "When this began.", state.started),
    ):
        yield from _metric(name, "gauge", text, [("", value)])
    for table, kind, told in ((_COUNTERS, "counter", state.counted()), (_GAUGES, "gauge", state.gauged())):
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
    return harmless(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
