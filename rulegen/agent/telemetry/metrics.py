"""The metrics of an agent, each declared once: kube-proxy's names if the meaning is the same, and own ones.

Counting code uses the object (`state.metrics.drift.add("chain")`), so an undeclared name is a type error. /metrics and
the table in docs/run.md are generated from the same declarations (`scripts/docs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from rulegen.agent.telemetry.metric import (
    PROGRAMMING_BOUNDS,
    CounterMetric,
    GaugeMetric,
    HistogramMetric,
    LabelledCounterMetric,
    LabelledGaugeMetric,
    Metric,
)
from rulegen.text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SYNC: Final = "kubeproxy_sync_proxy_rules"


class SyncProgress(Protocol):
    """The progress of an agent, read for each request of /metrics."""

    @property
    def last_applied(self) -> float:
        """Time when the kernel last had all changes, in seconds since 1970."""

    @property
    def last_queued(self) -> float:
        """Time when a change last arrived, in seconds since 1970."""

    @property
    def pending(self) -> Mapping[str, int]:
        """Changes of `service` and `endpoint` that are not written yet."""

    @property
    def desired(self) -> int:
        """Number of changes that have arrived."""

    @property
    def applied(self) -> int:
        """Number of changes that are in the kernel."""

    @property
    def age_s(self) -> float:
        """Time that the oldest other change has waited, in seconds."""

    @property
    def started(self) -> float:
        """Start of the agent, in seconds since 1970."""


class Metrics:
    """All metrics of one agent."""

    def __init__(self, progress: SyncProgress) -> None:
        """Start with zero; `progress` is read for each request of /metrics."""
        self.syncs = HistogramMetric(f"{_SYNC}_duration_seconds", "Duration of all syncs.")
        self.full_syncs = HistogramMetric(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "Duration of syncs that read and compared all rules.",
        )
        self.partial_syncs = HistogramMetric(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds", "Duration of syncs that wrote changes only."
        )
        self.network_programming = HistogramMetric(
            "kubeproxy_network_programming_duration_seconds",
            "Time from a change of endpoints (endpoints.kubernetes.io/last-change-trigger-time) to the kernel.",
            PROGRAMMING_BOUNDS,
        )
        self.reconciles = HistogramMetric(
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "Duration of searches for stale UDP connections.",
        )
        self.programming = HistogramMetric(
            "rulegen_change_to_kernel_seconds",
            "Time from the arrival of a change at the agent until it is in the kernel.",
        )
        self._declare_progress(progress)
        self._declare_counters()
        self._declare_service_proxy()
        self._declare_gauges()

    def _declare_progress(self, progress: SyncProgress) -> None:
        self.last_applied = GaugeMetric(
            f"{_SYNC}_last_timestamp_seconds", "Time of the last complete sync.", lambda: progress.last_applied
        )
        self.last_queued = GaugeMetric(
            f"{_SYNC}_last_queued_timestamp_seconds", "Time when a change last arrived.", lambda: progress.last_queued
        )
        self.service_changes_pending = GaugeMetric(
            f"{_SYNC}_service_changes_pending",
            "Changes of Services that are not written yet.",
            lambda: progress.pending["service"],
        )
        self.endpoint_changes_pending = GaugeMetric(
            f"{_SYNC}_endpoint_changes_pending",
            "Changes of endpoints that are not written yet.",
            lambda: progress.pending["endpoint"],
        )
        self.desired = GaugeMetric(
            "rulegen_desired_generation", "Number of changes that have arrived.", lambda: progress.desired
        )
        self.applied = GaugeMetric(
            "rulegen_applied_generation", "Number of changes that are in the kernel.", lambda: progress.applied
        )
        self.oldest_unapplied = GaugeMetric(
            "rulegen_oldest_unapplied_seconds",
            "Age of the oldest change that the kernel does not have.",
            lambda: progress.age_s,
        )
        self.started = GaugeMetric("process_start_time_seconds", "Start of the agent.", lambda: progress.started)

    def _declare_counters(self) -> None:
        self.restore_failures = CounterMetric(f"{_SYNC}_iptables_restore_failures_total", "Failed writes of rules.")
        self.partial_restore_failures = CounterMetric(
            f"{_SYNC}_iptables_partial_restore_failures_total",
            "Failed partial writes. After each one, all rules are read and compared.",
        )
        self.service_changes = CounterMetric(f"{_SYNC}_service_changes_total", "Changes of Services.")
        self.endpoint_changes = CounterMetric(f"{_SYNC}_endpoint_changes_total", "Changes of endpoints.")
        self.healthz = LabelledCounterMetric("kubeproxy_proxy_healthz_total", "code", "Answers of /healthz.")
        self.livez = LabelledCounterMetric("kubeproxy_proxy_livez_total", "code", "Answers of /livez.")
        self.clients_cut = LabelledCounterMetric(
            "rulegen_http_clients_cut_total",
            "reason",
            "HTTP clients of the agent that were disconnected: crowded (to accept another client), late (over the time"
            " limit), outdated (still reading a page after two newer versions of it).",
        )
        self.deleted_flows = CounterMetric(
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "UDP connections deleted from conntrack, because no Service serves them.",
        )
        self.sync_failures = CounterMetric(
            "rulegen_sync_failures_total", "Syncs in which reading or writing failed. Each is tried again."
        )
        self.writes = CounterMetric("rulegen_writes_total", "Calls that wrote to the kernel.")
        self.foreign_commits = CounterMetric("rulegen_foreign_commits_total", "Commits to nf_tables by other programs.")
        self.drift = LabelledCounterMetric(
            "rulegen_drift_total", "kind", "Objects of rulegen that another program changed or deleted."
        )
        self.proxy_ends = CounterMetric(
            "rulegen_nginx_unexpected_ends_total",
            "How often the ingress engine (nginx or HAProxy) has ended unexpectedly. Each time it is started again.",
        )
        self.site_failures = CounterMetric(
            "rulegen_nginx_failures_total", "Failed updates of the ingress engine (nginx or HAProxy)."
        )
        self.ingress_changes = LabelledCounterMetric(
            "rulegen_ingress_changes_total",
            "outcome",
            "Changes of objects: decided (Ingresses depend on the object) or ignored (none does).",
        )
        self.reloads = LabelledCounterMetric(
            "rulegen_nginx_reloads_total",
            "action",
            "Confirmed changes of the ingress engine: started, reloaded, or updated (HAProxy, without a reload).",
        )
        self.watch_errors = LabelledCounterMetric(
            "rulegen_watch_errors_total", "reason", "Failed lists and watches of the API server."
        )
        self.lists = LabelledCounterMetric(
            "rulegen_lists_total", "kind", "Complete lists that the API server has sent."
        )
        self.events = LabelledCounterMetric(
            "rulegen_events_total",
            "outcome",
            "Events: sent, counted (in a series), shared (another node sent it), dropped (too many), failed.",
        )
        self.published = LabelledCounterMetric(
            "rulegen_published_total", "resource", "Statuses written with addresses of nodes."
        )
        self.publish_failures = CounterMetric("rulegen_publish_failures_total", "Failed attempts to publish addresses.")

    def _declare_service_proxy(self) -> None:
        self.proxy_failures = CounterMetric(
            "rulegen_proxy_failures_total",
            "How often the proxy of userspace mode, or its supervisor, has ended unexpectedly.",
        )
        self.ejections = LabelledCounterMetric(
            "rulegen_proxy_endpoint_changes_total",
            "outcome",
            "Endpoints that the proxy of userspace mode has ejected after a failed connection (ejected), or uses again"
            " (returned).",
        )

    def _declare_gauges(self) -> None:
        self.rules = LabelledGaugeMetric(f"{_SYNC}_iptables_total", "table", "Rules of rulegen or kube-proxy.")
        self.no_local = LabelledGaugeMetric(
            f"{_SYNC}_no_local_endpoints_total",
            "traffic_policy",
            "Ports of Services whose policy is Local and that have endpoints, but none on this node.",
        )
        self.services = GaugeMetric("rulegen_services", "Services that are served.")
        self.rejected = GaugeMetric("rulegen_rejected_objects", "Invalid objects, which are skipped.")
        self.left_out = GaugeMetric(
            "rulegen_left_out_services", "Services that the kernel refuses, which are left out."
        )
        self.over_limit = LabelledGaugeMetric(
            "rulegen_over_limit",
            "kind",
            "Services that are served in part, because they are above a limit (endpoints, frontends, source_ranges),"
            " and Ingresses that are not served for that reason (ingresses).",
        )
        self.quarantined = GaugeMetric(
            "rulegen_quarantined_ingresses", "Ingresses that the ingress engine (nginx or HAProxy) refuses."
        )
        self.unread = GaugeMetric(
            "rulegen_waiting_references",
            "Objects that Ingresses refer to and that the API server has not sent.",
        )
        self.site_changes = GaugeMetric(
            "rulegen_nginx_changes",
            "Files of the ingress engine that differed at the last check; with HAProxy, also what it held otherwise.",
        )
        self.drift_unmended = GaugeMetric(
            "rulegen_drift_unmended", "Differences that stay, because nothing is written (--drift report)."
        )
        self.parameters_refused = GaugeMetric(
            "rulegen_parameters_refused", "Kernel parameters that cannot be set on this host."
        )
        self.publishing = GaugeMetric(
            "rulegen_publishing", "1 while this node writes the addresses of all nodes into statuses."
        )

    def declared(self) -> tuple[Metric, ...]:
        """Return all metrics, in the order of their declaration."""
        return tuple(vars(self).values())


def exposition(metrics: Metrics, now: Mapping[Metric, Mapping[str, float]]) -> str:
    """Return all metrics in Prometheus' text format, version 0.0.4.

    Args:
        metrics: The metrics.
        now: Current values that are not stored, by metric and label value.
    """
    lines = (line for metric in metrics.declared() for line in _lines(metric, now.get(metric)))
    return "".join(f"{line}\n" for line in lines)


def metrics_table(metrics: Metrics) -> str:
    """Return the table of docs/run.md, a row for each metric."""
    rows = (
        f"| `{metric.name}{f'{{{metric.label}}}' if metric.label else ''}` | {metric.kind} | {metric.text} |"
        for metric in sorted(metrics.declared(), key=lambda metric: metric.name)
    )
    return "\n".join(("| metric | type | |", "|---|---|---|", *rows, ""))


def _lines(metric: Metric, now: Mapping[str, float] | None) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.text}"
    yield f"# TYPE {metric.name} {metric.kind}"
    if isinstance(metric, HistogramMetric):
        yield from _samples(metric)
        return
    for value, number in sorted((metric.values() if now is None else now).items()):
        labels = f'{{{metric.label}="{_escaped(value)}"}}' if metric.label else ""
        yield f"{metric.name}{labels} {number:.15g}"


def _samples(metric: HistogramMetric) -> Iterator[str]:
    name, counts = metric.name, list(metric.counts)
    for bound, count in zip(metric.bounds, counts, strict=False):
        yield f'{name}_bucket{{le="{bound:g}"}} {count}'
    yield f'{name}_bucket{{le="+Inf"}} {counts[-1]}'
    yield f"{name}_sum {metric.total:.15g}"
    yield f"{name}_count {counts[-1]}"


def _escaped(text: str) -> str:
    return harmless(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
