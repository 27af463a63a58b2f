"""What the agent tells of itself: health, metrics and log, to whoever asks in whatever way."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import re
import socket
import threading
import time

import pytest
from msgspec import structs
from msgspec.structs import replace

from rulegen.agent.inbox import Inbox
from rulegen.agent.pages_server.health import ServiceHealth, healthz, livez
from rulegen.agent.telemetry.events import EventRequest
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_address, parse_network
from tests.agent.asking import ask, free_port
from tests.agent.stage import NODE, OPTIONS, Clock, changed, endpoints, node, service


def test_a_log_on_a_full_disk_ends_nobody():
    """A log on a full disk ends nobody and tells later how much is missing."""

    class Disk(io.StringIO):
        is_full = False

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk = Disk()
    log = AgentLog(out=disk)
    for disk.is_full in (False, True, True, False, False):
        log.info("something happened")
    lines = disk.getvalue().splitlines()
    assert [line.partition("  ")[2].strip() for line in lines if "INFO" in line] == ["something happened"] * 3
    lost = [line for line in lines if "could not be written" in line]
    assert len(lost) == 1
    assert lost[0].endswith('error="No space left on device" count=2')


def test_a_log_that_nobody_reads_stops_nobody():
    """A pipe is full when its reader hangs, such as the program that collects logs."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as reader, os.fdopen(writes, "w") as out:
        log = AgentLog(out=out)
        writer = threading.Thread(target=lambda: [log.info("x" * 900) for _ in range(200)], daemon=True)
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
        reader.read1(1 << 20)
        log.info("read again")
        assert 'error="nobody reads the log" count=' in reader.read1(1 << 20).decode()


class TestState:
    def test_the_age_is_that_of_the_oldest_change_that_waits(self):
        clock = Clock()
        state = AgentState(clock, timeout_s=60)
        assert (state.age_s, state.is_alive) == (0, False)
        state.wrote(0)
        state.changed()
        clock.now += 10
        state.changed()
        clock.now += 5
        assert state.age_s == 15
        state.wrote(1, oldest=110.0)
        assert state.age_s == 5
        assert (state.applied, state.desired) == (1, 2)
        state.wrote(2)
        assert state.age_s == 0
        assert list(state.metrics.programming.last) == [15, 5]

    def test_an_event_while_all_was_taken_counts_as_waiting(self):
        """An event that comes while all was taken counts as waiting."""
        clock = Clock()
        state = AgentState(clock)
        inbox = Inbox(state)
        inbox.on_event(changed(node()))
        clock.now += 10
        inbox.looked()  # the loop had found nothing more, just before it came
        assert state.age_s == 10
        inbox.signals.get_nowait()
        inbox.looked()
        assert state.age_s == 0

    def test_what_cannot_be_applied_yet_is_no_reason_for_a_restart(self):
        clock = Clock()
        state = AgentState(clock, timeout_s=60)
        state.changed()
        clock.now += 10_000
        assert (livez(state).status, healthz(state).status) == (200, 503)
        state.listed()
        clock.now += 59
        assert livez(state).status == 200
        clock.now += 2
        state.listed()
        assert livez(state).status == 503

    @pytest.mark.parametrize(("page", "early", "deleted"), [(healthz, 503, 503), (livez, 200, 200)])
    def test_health_is_what_was_written_not_that_it_runs(self, page, early, deleted):
        clock = Clock()
        state = AgentState(clock, timeout_s=60)
        assert page(state).status == early
        state.wrote(0)
        clock.now += 10_000
        assert page(state).status == 200
        state.changed()
        state.failed('no "luck"\nat all')
        clock.now += 59
        assert page(state).status == 200
        clock.now += 2
        document = json.loads(page(state).body)
        assert page(state).status == 503
        assert (document["healthy"], document["oldestUnappliedSeconds"], document["desiredGeneration"]) == (
            False,
            61,
            1,
        )
        assert (document["appliedGeneration"], document["lastError"]) == (0, 'no "luck"\nat all')
        state.wrote(1)
        assert page(state).status == 200
        assert "lastError" not in json.loads(page(state).body)
        state.node_is_deleted(deleted=True)
        assert page(state).status == deleted
        state.node_is_deleted(deleted=False)
        assert page(state).status == 200


def services(count: int, port: int, *, terminating: bool = False):
    """Return a Service whose load balancers ask on a port, with so many endpoints on this node, and one elsewhere."""
    web = service(
        "web",
        type="LoadBalancer",
        external_traffic_policy="Local",
        health_check_node_port=port,
        ports=(k.ServicePort(name="http", port=80, node_port=30080),),
    )
    here = endpoints("web", *range(1, count + 1), node=NODE)
    if terminating:
        leaving = k.EndpointConditions(ready=False, serving=True, terminating=True)
        here = structs.replace(here, endpoints=tuple(structs.replace(e, conditions=leaving) for e in here.endpoints))
    slices = (here,) if count else (endpoints("web", 9, node="node2"),)
    name = ObjectName("demo", "web")
    world = ClusterSnapshot(services={name: ServiceInput(service=web, slices=slices)}, nodes={NODE: node()})
    return list(resolve(world, OPTIONS, HostFacts()).services.values())


class TestServiceHealth:
    @pytest.fixture
    def sent(self) -> list[EventRequest]:
        return []

    @pytest.fixture
    def health(self, sent):
        clock = Clock()
        state = AgentState(clock)
        state.wrote(0)
        made = ServiceHealth(
            state, AgentLog(out=io.StringIO()), addresses={Family.IPV4: ("127.0.0.1",)}, send_event=sent.append
        )
        yield made
        made.stop()

    def test_health_checks_report_the_local_endpoints(self, health):
        port = free_port()
        health.serve(services(2, port))
        status, body, headers = ask(port, "/healthz")
        assert status == 200
        assert json.loads(body)["localEndpoints"] == 2
        assert json.loads(body)["service"] == {"namespace": "demo", "name": "web"}
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
        health.serve(services(0, port))
        status, body, headers = ask(port)
        assert (status, json.loads(body)["localEndpoints"]) == (503, 0)
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "0"

    def test_terminating_endpoints_get_nothing_new(self, health):
        """Endpoints that terminate are still served but get nothing new."""
        port = free_port()
        (web,) = services(2, port, terminating=True)
        assert len(web.ports[0].local) == 2
        health.serve([web])
        status, body, _ = ask(port)
        assert (status, json.loads(body)["localEndpoints"]) == (503, 0)

    def test_of_two_services_with_a_port_the_older_answers(self, health):
        """Of two services with one port the older answers and the other when it is gone."""
        port = free_port()

        def claimed(*names):
            inputs = {}
            for name, (age, count) in {"old": ("2026-01-01", 2), "new": ("2026-02-01", 1)}.items():
                if name in names:
                    web = service(
                        name,
                        type="LoadBalancer",
                        cluster_ip=f"10.96.0.{count}",
                        external_traffic_policy="Local",
                        health_check_node_port=port,
                    )
                    metadata = structs.replace(web.metadata, creation_timestamp=f"{age}T00:00:00Z")
                    slices = (endpoints(name, *range(1, count + 1), node=NODE),)
                    aged = structs.replace(web, metadata=metadata)
                    inputs[ObjectName("demo", name)] = ServiceInput(service=aged, slices=slices)
            return resolve(
                ClusterSnapshot(services=inputs, nodes={NODE: node()}), OPTIONS, HostFacts()
            ).services.values()

        health.serve(claimed("new", "old"))
        assert json.loads(ask(port)[1])["service"]["name"] == "old"
        health.serve(claimed("new"))
        assert json.loads(ask(port)[1])["service"]["name"] == "new"

    def test_each_family_tells_its_own_endpoints(self, health):
        health.addresses = {Family.IPV4: ("127.0.0.1",), Family.IPV6: ("::1",)}
        port = free_port()
        health.serve(services(2, port))
        assert json.loads(ask(port)[1])["localEndpoints"] == 2
        status, body, _ = ask(port, host="::1")
        assert (status, json.loads(body)["localEndpoints"]) == (503, 0)

    def test_it_listens_where_node_ports_are(self, health):
        port = free_port()
        options = replace(OPTIONS, node_port_networks=(parse_network("127.0.0.0/8"),))
        facts = HostFacts(
            interfaces=(Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("127.0.0.7"), 8))),)
        )
        health.serve_on(resolve(ClusterSnapshot(nodes={NODE: node()}), options, facts).nodes)
        health.serve(services(1, port))
        assert ask(port, host="127.0.0.7")[0] == ask(port)[0] == 200
        with pytest.raises(ConnectionRefusedError):
            ask(port, host="127.0.0.9")
        health.addresses = {Family.IPV4: ("127.0.0.7",)}
        health.serve(services(1, port))
        with pytest.raises(ConnectionRefusedError):
            ask(port)

    def test_a_node_that_lags_behind_gets_no_traffic(self, health):
        port = free_port()
        health.serve(services(1, port))
        health.state.changed()
        health.state.clock.now += 100
        status, body, _ = ask(port)
        assert (status, json.loads(body)["serviceProxyHealthy"]) == (503, False)

    def test_the_port_is_free_at_once_when_the_service_goes(self, health):
        port = free_port()
        health.serve(services(1, port))
        began = time.monotonic()
        health.serve([])
        assert time.monotonic() - began < 0.45
        with pytest.raises(ConnectionRefusedError):
            ask(port)
        health.serve(services(1, port))
        assert ask(port)[0] == 200

    def test_a_change_of_one_service_leaves_the_others_as_they_are(self, health):
        ports = free_port(), free_port()
        (web,) = services(1, ports[0])
        other = structs.replace(services(1, ports[1])[0], name=ObjectName("demo", "other"))
        health.serve([web, other])
        health.change({web.name: services(2, ports[0])[0]}, lambda _: "")
        assert [json.loads(ask(port)[1])["localEndpoints"] for port in ports] == [2, 1]
        health.change({other.name: None}, lambda _: "")
        assert json.loads(ask(ports[0])[1])["localEndpoints"] == 2
        with pytest.raises(ConnectionRefusedError):
            ask(ports[1])
        health.change({other.name: other}, lambda _: "")
        assert json.loads(ask(ports[1])[1])["service"]["name"] == "other"

    def test_a_port_in_use_is_logged_and_tried_again(self, health, sent):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            for _ in range(3):
                health.serve(services(1, port), lambda name: f"uid of {name}")
            assert health.log.out.getvalue().count("no health check") == 1
            (event,) = sent
            assert (event.reason, event.about[1:]) == (
                "FailedToStartServiceHealthcheck",
                ("Service", "demo", "web", "uid of demo/web"),
            )
        health.serve(services(1, port))
        assert ask(port)[0] == 200


HOSTILE = ('a\nERROR faked="yes"', "\x1b[31mred", "\u202eeman", "\udcff", 'quo"te and space', "x" * 5000, "")


class TestJournal:
    @staticmethod
    def lines(*, is_json: bool, **fields) -> list[str]:
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        log = AgentLog(is_json=is_json, out=out, now=lambda: dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC))
        log.warning("changed", **fields)
        out.seek(0)
        return out.read().splitlines()

    @pytest.mark.parametrize("value", HOSTILE)
    @pytest.mark.parametrize("is_json", [False, True])
    def test_whatever_a_name_holds_it_stays_one_line(self, value, is_json):
        lines = self.lines(is_json=is_json, name=value, count=3)
        assert len(lines) == 1
        assert lines[0].isprintable()
        if is_json:
            document = json.loads(lines[0])
            assert (document["level"], document["message"], document["count"]) == ("warning", "changed", 3)
            assert document.get("name", "") == value
        else:
            assert lines[0].startswith("2026-01-02T03:04:05.000Z WARNING changed ")
            assert lines[0].endswith(" count=3")
            assert len(lines[0]) < 1200

    def test_text_can_be_taken_apart(self):
        (line,) = self.lines(is_json=False, what='a "b" c', plain="d")
        assert line.endswith(r'changed what="a \"b\" c" plain=d')

    def test_a_value_cannot_look_like_another_field(self):
        (line,) = self.lines(is_json=False, what='x" level="none', plain='"quoted"', equal="a=b")
        assert re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)', line) == [
            ("what", r'"x\" level=\"none"'),
            ("plain", r'"\"quoted\""'),
            ("equal", "a=b"),
        ]

    def test_levels(self):
        out = io.StringIO()
        log = AgentLog(out=out, least="warning")
        log.debug("1")
        log.info("2")
        log.warning("3")
        log.error("4")
        assert [line.split()[1] for line in out.getvalue().splitlines()] == ["WARNING", "ERROR"]
