"""JSON for machines, from the agent: its pages, its health and its log are valid by their schemas."""

from __future__ import annotations

import io
import json

import jsonschema
import pytest

from rulegen.agent.pages import PATHS, views
from rulegen.agent.pages_server.health import ServiceHealth, healthz, livez
from rulegen.agent.pages_server.server import AS_JSON
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.cli.json_schemas import SCHEMAS
from rulegen.net import Family
from tests.agent.asking import ask, free_port
from tests.agent.stage import Clock, Stage, changed, endpoints, node, service
from tests.agent.telemetry.test_telling import services
from tests.cli.plans.test_schemas import check


@pytest.mark.parametrize("name", [path.removeprefix("/") for path in PATHS])
def test_a_page_as_json_is_valid(name):
    stage = Stage()
    stage.at(0, changed(node()), changed(service("api", 1)), changed(endpoints("api", 1)))
    stage.run(20)
    stage.loop.writer.kernels[Family.IPV4].tables["nat"]["KUBE-SERVICES"].pop()
    reply = views(stage.loop)[f"/{name}{AS_JSON}"]()
    document = check(reply.body, name)
    assert reply.status == 200
    assert "demo/api" in json.dumps(document)


def test_health_is_valid_before_and_after_the_first_write_and_in_failure():
    clock = Clock()
    state = AgentState(clock, timeout_s=60)
    statuses = []
    for happen in (lambda: None, state.changed, lambda: state.wrote(1), state.changed):
        happen()
        clock.now += 100
        statuses += [(reply.status, check(reply.body, "health")["healthy"]) for reply in (healthz(state), livez(state))]
    assert {healthy for _, healthy in statuses} == {True, False}
    state.last_error = "a failure"
    assert check(healthz(state).body, "health")["lastError"] == "a failure"


def test_the_health_of_a_service_is_valid():
    state = AgentState(Clock())
    state.wrote(0)
    health = ServiceHealth(state, AgentLog(out=io.StringIO()), addresses={Family.IPV4: ("127.0.0.1",)})
    try:
        port = free_port()
        for number in (2, 0):
            health.serve(services(number, port))
            assert check(ask(port)[1], "service-health")["localEndpoints"] == number
    finally:
        health.stop()


def test_each_line_of_the_log_is_valid():
    out = io.StringIO()
    log = AgentLog(is_json=True, least="debug", out=out)
    for write in (log.debug, log.info, log.warning, log.error):
        write("a message\n", service="demo/web", count=1, error="", mended=True, names=["a"], ratio=0.5)
    lines = out.getvalue().splitlines()
    assert [check(line, "log")["level"] for line in lines] == ["debug", "info", "warning", "error"]


def test_schemas_of_run_refuse_other_documents():
    for name in ("rules", "health", "service-health", "log"):
        validator = jsonschema.Draft202012Validator(SCHEMAS[name])
        assert list(validator.iter_errors({"level": "loud", "healthy": "yes", "kind": "Plan"})), name
