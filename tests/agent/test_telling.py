"""What the agent tells of itself: health, metrics and log, to whoever asks in whatever way."""

from __future__ import annotations

import datetime as dt
import http.client
import io
import json
import re
import socket
import threading
import time
from collections import defaultdict

import pytest

from rulegen.agent.health import ServiceHealth, healthz, livez
from rulegen.agent.journal import Journal
from rulegen.agent.metrics import exposition
from rulegen.agent.servers import Reply, Server
from rulegen.agent.state import AgentState
from rulegen.errors import HostError
from rulegen.kube import objects as k
from rulegen.kube.world import ObjectName, ServiceInput, World
from rulegen.model.facts import HostFacts
from rulegen.model.resolve import resolve
from tests.agent.stage import NODE, OPTIONS, Clock, endpoints, node, service


def ask(port: int, path: str = "/", method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_log_on_a_full_disk_ends_nobody_and_tells_later_how_much_is_missing():
    class Disk(io.StringIO):
        is_full = False

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk = Disk()
    journal = Journal(out=disk)
    for disk.is_full in (False, True, True, False, False):
        journal.info("something happened")
    lines = disk.getvalue().splitlines()
    assert [line.partition("  ")[2].strip() for line in lines if "INFO" in line] == ["something happened"] * 3
    told = [line for line in lines if "could not be written" in line]
    assert len(told) == 1
    assert told[0].endswith('error="No space left on device" count=2')


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
        assert list(state.programming.last) == [15, 5]

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
        told = json.loads(page(state).body)
        assert page(state).status == 503
        assert (told["healthy"], told["oldestUnappliedSeconds"], told["desiredGeneration"]) == (False, 61, 1)
        assert (told["appliedGeneration"], told["lastError"]) == (0, 'no "luck"\nat all')
        state.wrote(1)
        assert page(state).status == 200
        assert "lastError" not in json.loads(page(state).body)
        state.node_is_deleted(deleted=True)
        assert page(state).status == deleted
        state.node_is_deleted(deleted=False)
        assert page(state).status == 200


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})(?:\{{((?:{NAME}="(?:[^"\\\n]|\\[\\"n])*",?)*)\}})? (\S+)\Z')


def parse(text: str) -> dict[str, dict[str, float]]:
    """Return values by metric and labels; fail where it is not the text format 0.0.4."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    found: dict[str, dict[str, float]] = defaultdict(dict)
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
            assert (labels or "") not in found[name], f"{line} comes twice"
            found[name][labels or ""] = float(value)
    for name, kind in kinds.items():
        if kind == "histogram":
            buckets = list(found[f"{name}_bucket"].values())
            assert buckets == sorted(buckets)
            assert list(found[f"{name}_bucket"])[-1] == 'le="+Inf"'
            assert buckets[-1] == found[f"{name}_count"][""]
        if kind == "counter":
            assert name.endswith("_total")
    return found


class TestMetrics:
    def test_an_agent_that_has_done_nothing_yet_tells_all_names(self):
        found = parse(exposition(AgentState(Clock())))
        assert found["kubeproxy_sync_proxy_rules_duration_seconds_count"] == {"": 0}
        assert found["rulegen_writes_total"] == {"": 0}

    def test_values_are_exact_however_large(self):
        state = AgentState(Clock())
        state.desired = state.applied = 12_345_678
        state.count("writes", by=1_234_567)
        state.gauge("services", 10_000_001)
        for seconds in (0.0004, 0.02, 0.3, 45):
            state.syncs.add(seconds)
        state.count("foreign_commits", by=3)
        found = parse(exposition(state))
        assert found["rulegen_desired_generation"] == {"": 12_345_678}
        assert found["rulegen_writes_total"] == {"": 1_234_567}
        assert found["rulegen_services"] == {"": 10_000_001}
        assert found["rulegen_foreign_commits_total"] == {"": 3}
        sync = "kubeproxy_sync_proxy_rules_duration_seconds"
        assert found[f"{sync}_bucket"]['le="0.001"'] == 1
        assert found[f"{sync}_bucket"]['le="0.025"'] == 2
        assert found[f"{sync}_bucket"]['le="30"'] == 3
        assert (found[f"{sync}_count"][""], found[f"{sync}_sum"][""]) == (4, pytest.approx(45.3204))

    def test_hostile_labels_stay_labels(self):
        state = AgentState(Clock())
        for label in ('a"} 9\nrulegen_services 7', "back\\slash", "é"):
            state.count("drift", label)
        assert len(parse(exposition(state))["rulegen_drift_total"]) == 3


def services(count: int, port: int):
    """Return a Service whose load balancers ask on a port, with so many endpoints on this node, and one elsewhere."""
    told = service(
        "web",
        type="LoadBalancer",
        external_traffic_policy="Local",
        health_check_node_port=port,
        ports=(k.ServicePort(name="http", port=80, node_port=30080),),
    )
    here = endpoints("web", *range(1, count + 1), node=NODE)
    slices = (here,) if count else (endpoints("web", 9, node="node2"),)
    name = ObjectName("demo", "web")
    world = World(services={name: ServiceInput(service=told, slices=slices)}, nodes={NODE: node()})
    return list(resolve(world, OPTIONS, HostFacts()).services.values())


class TestServiceHealth:
    @pytest.fixture
    def health(self):
        clock = Clock()
        state = AgentState(clock)
        state.wrote(0)
        found = ServiceHealth(state, Journal(out=io.StringIO()), addresses=("127.0.0.1",))
        yield found
        found.stop()

    def test_load_balancers_are_told_how_many_endpoints_are_here(self, health):
        port = free_port()
        health.take(services(2, port))
        status, body, headers = ask(port, "/healthz")
        assert status == 200
        assert json.loads(body)["localEndpoints"] == 2
        assert json.loads(body)["service"] == {"namespace": "demo", "name": "web"}
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
        health.take(services(0, port))
        status, body, headers = ask(port)
        assert (status, json.loads(body)["localEndpoints"]) == (503, 0)
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "0"

    def test_a_node_that_lags_behind_gets_no_traffic(self, health):
        port = free_port()
        health.take(services(1, port))
        health.state.changed()
        health.state.clock.now += 100
        status, body, _ = ask(port)
        assert (status, json.loads(body)["serviceProxyHealthy"]) == (503, False)

    def test_the_port_is_free_at_once_when_the_service_goes(self, health):
        port = free_port()
        health.take(services(1, port))
        began = time.monotonic()
        health.take([])
        assert time.monotonic() - began < 0.45
        with pytest.raises(ConnectionRefusedError):
            ask(port)
        health.take(services(1, port))
        assert ask(port)[0] == 200

    def test_a_port_that_is_taken_is_told_and_tried_again(self, health):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            health.take(services(1, port))
            assert "no health check" in health.journal.out.getvalue()
        health.take(services(1, port))
        assert ask(port)[0] == 200


class TestServer:
    @pytest.fixture
    def server(self):
        def bad() -> Reply:
            raise ValueError("a fault of ours")

        pages = {
            "/ok": lambda: Reply(200, "well\n"),
            "/bytes": lambda: Reply(200, "a rule that others wrote: \udcff\n"),
            "/bad": bad,
        }
        found = Server("127.0.0.1", 0, pages)
        yield found
        found.stop()

    def test_pages(self, server):
        assert ask(server.port, "/ok?x=1")[:2] == (200, "well\n")
        assert ask(server.port, "/ok", "HEAD")[:2] == (200, "")
        assert ask(server.port, "/other")[0] == 404
        assert ask(server.port, "/ok", "POST")[0] == 501
        assert ask(server.port, "/ok")[2]["X-Content-Type-Options"] == "nosniff"

    def test_bytes_that_are_no_text_are_told_nevertheless(self, server):
        assert ask(server.port, "/bytes")[:2] == (200, "a rule that others wrote: \\udcff\n")

    def test_a_fault_of_ours_is_an_answer_too(self, server):
        status, body, _ = ask(server.port, "/bad")
        assert status == 500
        assert "Traceback" not in body

    @pytest.mark.parametrize(
        "garbage", [b"\0\xff" * 500 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b""]
    )
    def test_garbage_harms_nobody_else(self, server, garbage):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        assert ask(server.port, "/ok")[0] == 200

    def test_clients_that_say_nothing_keep_nobody_waiting(self, server):
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(20)]
        try:
            slow[0].sendall(b"GET /ok HT")
            assert ask(server.port, "/ok")[0] == 200
        finally:
            for one in slow:
                one.close()

    def test_it_ends_at_once_though_clients_are_connected(self):
        server = Server("127.0.0.1", 0, {})
        with socket.create_connection(("127.0.0.1", server.port)):
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 0.45
        assert not [one for one in threading.enumerate() if one.name == f"http {server.port}"]

    def test_an_address_that_is_taken_is_one_clear_line(self, server):
        with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"):
            Server("127.0.0.1", server.port, {})


HOSTILE = ('a\nERROR faked="yes"', "\x1b[31mred", "\u202eeman", "\udcff", 'quo"te and space', "x" * 5000, "")


class TestJournal:
    @staticmethod
    def lines(*, is_json: bool, **fields) -> list[str]:
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        journal = Journal(is_json=is_json, out=out, now=lambda: dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC))
        journal.warning("changed", **fields)
        out.seek(0)
        return out.read().splitlines()

    @pytest.mark.parametrize("value", HOSTILE)
    @pytest.mark.parametrize("is_json", [False, True])
    def test_whatever_a_name_holds_it_stays_one_line(self, value, is_json):
        lines = self.lines(is_json=is_json, name=value, count=3)
        assert len(lines) == 1
        assert lines[0].isprintable()
        if is_json:
            told = json.loads(lines[0])
            assert (told["level"], told["message"], told["count"]) == ("warning", "changed", 3)
            assert told.get("name", "") == value
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
        journal = Journal(out=out, least="warning")
        journal.debug("1")
        journal.info("2")
        journal.warning("3")
        journal.error("4")
        assert [line.split()[1] for line in out.getvalue().splitlines()] == ["WARNING", "ERROR"]
