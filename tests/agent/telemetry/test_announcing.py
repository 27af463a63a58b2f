"""What the loop has users told, and what it shows: events about what went wrong, views of what is wanted."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace

from rulegen.agent.inbox import Wake
from rulegen.agent.pages import PATHS, views
from rulegen.agent.telemetry.counts import RuleCounts
from rulegen.agent.telemetry.events import EventRequest
from rulegen.errors import Fault, Rejected
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, Listed
from rulegen.kube.objects.names import ObjectName
from rulegen.model.services.limits import ServiceLimits
from rulegen.net import Family
from tests.agent.stage import NODE, Stage, changed, endpoints, listed, node, service

WEB = ObjectName("demo", "web")
FAULTY = Rejected("Service demo/web", "test", (Fault("spec.ports", "none"),), "uid-1")


PAIR = (service("web"), service("other", 2))


class Told(list[EventRequest]):
    def reasons(self) -> list[str]:
        return [event.reason for event in self]


@pytest.fixture
def sent() -> Told:
    return Told()


@pytest.fixture
def stage(sent) -> Stage:
    made = Stage(send_event=sent.append)
    made.at(0, listed(k.Node, node()), listed(k.Service, service("web")), listed(k.EndpointSlice, endpoints("web", 1)))
    return made


def flush(stage: Stage) -> None:
    for rules in stage.writer.kernels[Family.IPV4].tables["nat"].values():
        rules.clear()


def written(**more) -> Stage:
    """Return an agent on a node where another has written what is wanted."""
    before = Stage()
    stage = Stage(kernels=before.writer.kernels, **more)
    for agent in (before, stage):
        agent.at(0, listed(k.Node, node()), listed(k.Service, service("web")))
    before.run(3)
    return stage


class TestEvents:
    def test_without_problems_there_are_no_events(self, stage, sent):
        stage.run(200)
        assert sent == []

    def test_drift_causes_an_event_about_the_node(self, stage, sent):
        stage.at(40, lambda: flush(stage))
        stage.run(80)
        assert set(sent.reasons()) == {"DriftMended"}
        assert {(event.about.kind, event.about.name) for event in sent} == {("Node", NODE)}
        assert any("deleted" in event.note for event in sent)

    def test_drift_that_is_not_repaired_causes_an_event(self, sent):
        stage = written(send_event=sent.append, mends=False)
        stage.at(5, lambda: flush(stage), Wake("check"))
        stage.run(10)
        assert set(sent.reasons()) == {"DriftFound"}

    def test_what_is_not_written_yet_is_a_difference_and_no_drift(self, sent):
        """What nobody has written yet is a difference and no drift."""
        stage = Stage(send_event=sent.append, mends=False)
        stage.at(0, listed(k.Node, node()), listed(k.Service, service("web")))
        stage.run(10)
        assert sent.reasons() == ["DifferenceFound"]
        assert not [line for line in stage.log if "changed by another program" in line]

    def test_what_stays_so_is_reported_once(self, sent):
        """What stays so is told once however often it is looked at."""
        stage = written(send_event=sent.append, mends=False)
        stage.at(4, lambda: flush(stage), Wake("check"))
        counts = []
        stage.at(5, lambda: counts.append(len(sent)))
        for seconds in range(6, 60, 3):
            stage.at(seconds, Wake("check"))
        stage.at(65, lambda: counts.append(len(sent)))
        stage.at(70, changed(service("shop", 2)))
        stage.run(100)
        assert 0 < counts[0] == counts[1] < len(sent)
        assert stage.state.metrics.drift_unmended.value > 0

    def test_an_invalid_object_gets_one_event(self, stage, sent):
        stage.at(5, Changed(k.Service, FAULTY, WEB), changed(service("other", 2)))
        stage.at(50, Changed(k.Service, FAULTY, WEB))
        stage.run(100)
        (event,) = sent
        assert event.about == ("v1", "Service", "demo", "web", "uid-1")
        assert (event.reason, event.is_shared, event.note) == ("Rejected", True, "not served: spec.ports: none")
        assert [line for line in stage.log if "skipped" in line] != []

    def test_an_object_invalid_again_gets_a_second_event(self, stage, sent):
        stage.at(5, Changed(k.Service, FAULTY, WEB))
        stage.at(50, changed(service("web")))
        stage.at(100, Changed(k.Service, FAULTY, WEB))
        stage.run(150)
        assert sent.reasons() == ["Rejected", "Rejected"]
        assert any("no longer skipped" in line for line in stage.log)

    def test_an_invalid_object_in_a_list_gets_an_event(self, stage, sent):
        stage.at(5, Listed(k.Service, (FAULTY,)))
        stage.run(50)
        assert sent.reasons() == ["Rejected"]

    def test_an_address_conflict_gives_both_services_one_event(self, stage, sent):
        taken, other = (replace(plain, spec=replace(plain.spec, external_ips=("203.0.113.1",))) for plain in PAIR)
        stage.at(5, changed(taken), changed(other))
        stage.at(100, changed(endpoints("web", 2)))
        stage.at(150, changed(PAIR[1]))
        stage.at(200, changed(other))
        stage.run(250)
        assert [(event.about.name, event.reason) for event in sent] == [
            (name, "AddressConflict") for name in ("web", "other", "web", "other")
        ]
        assert all("demo/web" in event.note and "demo/other" in event.note for event in sent)

    def test_failed_syncs_cause_an_event(self, stage, sent):
        stage.writer.failures.extend(["lost", "half"])
        stage.run(60)
        assert set(sent.reasons()) == {"FailedToSync"}
        assert stage.is_right()
        assert stage.state.metrics.restore_failures.value == 2

    def test_an_unset_parameter_causes_an_event(self, stage, sent):
        stage.at(5, lambda: stage.reports.refused_parameters({"net.ipv4.x": "sysctl net.ipv4.x = 1: read-only"}))
        stage.run(10)
        assert sent.reasons() == ["ParameterNotSet"]

    def test_a_node_is_known_by_its_uid_or_else_by_its_name(self, stage):
        stage.run(1)
        assert stage.node.reference().uid == NODE
        metadata = k.ObjectMeta(name=NODE, uid="uid-9")
        stage.loop.apply_event(changed(k.Node(metadata=metadata)))
        assert stage.node.reference().uid == "uid-9"
        stage.loop.apply_event(Gone(k.Node, ObjectName("", NODE)))
        assert stage.node.reference().uid == NODE


def test_it_is_ready_once_however_often_it_begins_anew(stage):
    stage.writer.failures.append("lost")
    stage.at(20, changed(node("zone-b")))
    stage.at(40, changed(node("zone-c")))
    stage.run(60)
    assert len(stage.ready) == 1


class TestCounts:
    def test_changes_are_counted_by_kind(self, stage):
        stage.at(5, changed(service("b", 2)), changed(endpoints("b", 2)), changed(endpoints("b", 3)))
        stage.at(6, changed(endpoints("b", 3)))  # the same again is no change
        stage.run(20)
        assert stage.state.metrics.service_changes.value == 2
        assert stage.state.metrics.endpoint_changes.value == 3
        assert not stage.state.pending

    @pytest.mark.parametrize("text", ["2999-01-01T00:00:00.123456789Z", "2999-01-01T00:00:00Z"])
    def test_the_time_of_a_change_is_read(self, stage, text):
        changing = endpoints("web", 7)
        metadata = k.ObjectMeta(
            name=changing.metadata.name,
            namespace="demo",
            labels=changing.metadata.labels,
            annotations={"endpoints.kubernetes.io/last-change-trigger-time": text},
        )
        stage.at(
            5,
            changed(
                k.EndpointSlice(
                    metadata=metadata, **{f: getattr(changing, f) for f in ("address_type", "endpoints", "ports")}
                )
            ),
        )
        stage.run(20)
        assert stage.state.metrics.network_programming.counts[-1] == 1

    @pytest.mark.parametrize("text", ["", "yesterday", "9" * 500, "2026-13-45T99:99:99Z", "\u0662026-01-01T00:00:00Z"])
    def test_what_is_no_time_is_none(self, stage, text):
        metadata = k.ObjectMeta(
            name="web-1",
            namespace="demo",
            labels={"kubernetes.io/service-name": "web"},
            annotations={"endpoints.kubernetes.io/last-change-trigger-time": text},
        )
        stage.at(5, changed(k.EndpointSlice(metadata=metadata, address_type="IPv4")))
        stage.run(20)
        assert stage.state.metrics.network_programming.counts[-1] == 0

    def test_rules_and_ports_without_endpoint_here_are_counted(self, stage):
        """Rules and ports without an endpoint here are counted for who asks."""
        away = service("away", 2, internal_traffic_policy="Local")
        stage.at(5, changed(away), changed(endpoints("away", 9, node="elsewhere")))
        stage.run(20)
        counts = RuleCounts(stage.state).of(stage.desired.compiled())
        ours = [
            rule
            for kernel in stage.writer.kernels.values()
            for rules in kernel.tables["nat"].values()
            for rule in rules
        ]
        assert counts[stage.state.metrics.rules]["nat"] == len(ours)
        assert counts[stage.state.metrics.no_local] == {"internal": 1, "external": 0}


class TestConnections:
    def test_they_are_looked_at_now_and_then_though_nothing_changes(self, stage):
        stage.run(200)
        assert len(stage.writer.reconciled) >= 5
        assert stage.writer.plans == [100.0]

    def test_who_only_reports_forgets_nothing(self):
        stage = Stage(mends=False)
        stage.at(0, listed(k.Service, service("web")))
        stage.run(200)
        assert stage.writer.reconciled == []


class TestViews:
    @pytest.fixture
    def pages(self, stage):
        stage.at(5, Changed(k.Service, FAULTY, ObjectName("demo", "bad")))
        stage.at(6, changed(service("web", external_ips=("203.0.113.9",))))
        stage.run(50)
        return views(stage.loop)

    def test_each_page_is_text_and_json(self, pages):
        for path in PATHS:
            text, document = pages[path](), pages[f"{path}?output=json"]()
            assert (text.status, document.status) == (200, 200)
            assert text.kind.startswith("text/plain")
            assert json.loads(document.body)["schemaVersion"] == 1

    def test_the_plan_is_what_would_be_written_now(self, stage, pages):
        assert "No changes." in pages["/plan"]().body
        assert "Service demo/web: spec.ports: none" in pages["/plan"]().body
        flush(stage)
        assert "Plan: " in pages["/plan"]().body
        document = json.loads(pages["/plan?output=json"]().body)
        assert document["summary"]["add"] > 3
        assert document["rejected"][0]["object"] == "Service demo/web"

    def test_the_model_is_what_was_decided(self, pages):
        text = pages["/model"]().body
        assert "demo/web (ClusterIP)" in text
        assert "IPv4 tcp 80 http: 10.96.0.1, 203.0.113.9 (external)" in text
        assert "cluster: 10.244.1.1:8080" in text
        ports = json.loads(pages["/model?output=json"]().body)["services"][0]["ports"]
        assert ports[0]["cluster_ip"] == "10.96.0.1"

    def test_the_rules_are_those_of_the_kernel(self, stage, pages):
        document = json.loads(pages["/rules?output=json"]().body)["rules"]["IPv4"]["nat"]
        assert "KUBE-SERVICES" in document
        assert any("10.244.1.1:8080" in rule for rules in document.values() for rule in rules)
        assert "-A KUBE-SERVICES" in pages["/rules"]().body

    def test_before_anything_is_known_that_is_said(self):
        for page in views(Stage().loop).values():
            assert page().status == 503


def test_a_service_over_a_limit_is_reported_once_and_counted(stage, sent):
    stage.desired.options = msgspec.structs.replace(stage.desired.options, limits=ServiceLimits(endpoints=25))
    stage.at(5, changed(service("web")), changed(endpoints("web", *range(1, 9))), changed(service("other", 2)))
    stage.at(40, changed(endpoints("web", *range(1, 10))))  # as many as it has by now is no news
    stage.run(100)
    events = [event for event in sent if event.reason == "OverLimit"]
    assert [(event.about.name, event.is_shared) for event in events] == [("web", True)]
    assert "8 endpoints" in events[0].note
    assert "--max-service-endpoints" in events[0].note
    assert stage.state.metrics.over_limit["endpoints"] == 1
    assert stage.state.metrics.over_limit["frontends"] == 0
