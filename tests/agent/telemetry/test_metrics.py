"""Metrics: declared once, written in Prometheus' text format, documented."""

from __future__ import annotations

import re
import threading
from collections import defaultdict

import pytest

from rulegen.agent.pages_server.health import healthz, livez
from rulegen.agent.telemetry.metrics import exposition
from rulegen.agent.telemetry.state import AgentState
from tests.agent.stage import Clock
from tests.project.docs.metrics_table import PAGE, with_table
from tests.project.places import ROOT

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})(?:\{{((?:{NAME}="(?:[^"\\\n]|\\[\\"n])*",?)*)\}})? (\S+)\Z')


def parse(text: str) -> dict[str, dict[str, float]]:
    """Return values by metric and labels; fail where it is not the text format 0.0.4."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    values: dict[str, dict[str, float]] = defaultdict(dict)
    closed, current = set(), ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in closed, f"{name} comes twice"
            closed.add(name)
            current = name
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current
            assert kind in {"counter", "gauge", "histogram"}
            kinds[name] = kind
        else:
            match = SAMPLE.match(line)
            assert match, line
            name, labels, value = match.groups()
            base = re.sub(r"_(bucket|sum|count)\Z", "", name) if kinds[current] == "histogram" else name
            assert base == current, f"{name} among {current}"
            assert (labels or "") not in values[name], f"{line} comes twice"
            values[name][labels or ""] = float(value)
    for name, kind in kinds.items():
        if kind == "histogram":
            buckets = list(values[f"{name}_bucket"].values())
            assert buckets == sorted(buckets)
            assert list(values[f"{name}_bucket"])[-1] == 'le="+Inf"'
            assert buckets[-1] == values[f"{name}_count"][""]
        if kind == "counter":
            assert name.endswith("_total")
    return values


class TestMetrics:
    def test_an_agent_that_has_done_nothing_yet_tells_all_names(self):
        values = parse(exposition(AgentState(Clock()).metrics, {}))
        assert values["kubeproxy_sync_proxy_rules_duration_seconds_count"] == {"": 0}
        assert values["rulegen_writes_total"] == {"": 0}

    def test_values_are_exact_however_large(self):
        state = AgentState(Clock())
        state.desired = state.applied = 12_345_678
        state.metrics.writes.add(1_234_567)
        state.metrics.services.set(10_000_001)
        for seconds in (0.0004, 0.02, 0.3, 45):
            state.metrics.syncs.add(seconds)
        state.metrics.foreign_commits.add(3)
        values = parse(exposition(state.metrics, {}))
        assert values["rulegen_desired_generation"] == {"": 12_345_678}
        assert values["rulegen_writes_total"] == {"": 1_234_567}
        assert values["rulegen_services"] == {"": 10_000_001}
        assert values["rulegen_foreign_commits_total"] == {"": 3}
        sync = "kubeproxy_sync_proxy_rules_duration_seconds"
        assert values[f"{sync}_bucket"]['le="0.001"'] == 1
        assert values[f"{sync}_bucket"]['le="0.032"'] == 2
        assert values[f"{sync}_bucket"]['le="16.384"'] == 3
        assert (values[f"{sync}_count"][""], values[f"{sync}_sum"][""]) == (4, pytest.approx(45.3204))

    def test_network_programming_is_measured_as_kube_proxy_does(self):
        """The way from a change of endpoints to the kernel is measured as kube-proxy does."""
        clock, wall = Clock(), Clock(1_000_000.0)
        state = AgentState(clock, wall=wall)
        state.endpoints_changed(triggered=999_999.0)  # before this began: it tells nothing of us
        state.endpoints_changed(triggered=1_000_001.0)
        state.services_changed(3)
        state.changed()
        wall.now += 5
        values = parse(exposition(state.metrics, {}))
        assert values["kubeproxy_sync_proxy_rules_endpoint_changes_pending"] == {"": 2}
        assert values["kubeproxy_sync_proxy_rules_service_changes_pending"] == {"": 3}
        assert values["kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds"] == {"": 1_000_000}
        state.wrote(1)
        values = parse(exposition(state.metrics, {}))
        programming = "kubeproxy_network_programming_duration_seconds"
        assert (values[f"{programming}_count"][""], values[f"{programming}_sum"][""]) == (1, 4)
        assert (values[f"{programming}_bucket"]['le="3"'], values[f"{programming}_bucket"]['le="4"']) == (0, 1)
        assert values["kubeproxy_sync_proxy_rules_endpoint_changes_pending"] == {"": 0}
        assert values["kubeproxy_sync_proxy_rules_endpoint_changes_total"] == {"": 2}
        assert values["kubeproxy_sync_proxy_rules_last_timestamp_seconds"] == {"": 1_000_005}

    def test_who_asks_for_health_is_counted_by_the_answer(self):
        state = AgentState(Clock())
        healthz(state)
        livez(state)
        state.wrote(0)
        healthz(state)
        values = parse(exposition(state.metrics, {}))
        assert values["kubeproxy_proxy_healthz_total"] == {'code="200"': 1, 'code="503"': 1}
        assert values["kubeproxy_proxy_livez_total"] == {'code="200"': 1}

    def test_every_metric_that_is_declared_is_set_somewhere(self):
        code = "".join(file.read_text() for file in (ROOT / "rulegen").rglob("*.py") if file.name != "metrics.py")
        state = AgentState(Clock())
        names = [name for name, metric in vars(state.metrics).items() if getattr(metric, "read", None) is None]
        assert len(names) > 30
        assert [name for name in names if f"metrics.{name}" not in code] == []

    def test_names_and_labels_are_declared_once(self):
        names = [metric.name for metric in AgentState(Clock()).metrics.declared()]
        assert len(names) == len(set(names))

    def test_a_value_that_is_known_elsewhere_is_written_and_not_kept(self):
        metrics = AgentState(Clock()).metrics
        values = parse(exposition(metrics, {metrics.lists: {"services": 2, "nodes": 1}}))
        assert values["rulegen_lists_total"] == {'kind="services"': 2, 'kind="nodes"': 1}
        assert parse(exposition(metrics, {}))["rulegen_lists_total"] == {}

    def test_counts_of_many_threads_are_not_lost(self):
        metrics = AgentState(Clock()).metrics

        def count() -> None:
            for _ in range(2000):
                metrics.writes.add()
                metrics.drift.add("rule")
                metrics.syncs.add(0.5)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (metrics.writes.value, metrics.drift["rule"], metrics.syncs.counts[-1]) == (8000, 8000, 8000)

    def test_the_table_in_the_docs_is_that_of_the_declarations(self):
        page = PAGE.read_text(encoding="utf-8")
        assert page == with_table(page), "write it anew: scripts/docs"

    def test_hostile_labels_stay_labels(self):
        state = AgentState(Clock())
        for label in ('a"} 9\nrulegen_services 7', "back\\slash", "é"):
            state.metrics.drift.add(label)
        assert len(parse(exposition(state.metrics, {}))["rulegen_drift_total"]) == 3
