"""`rulegen run` and a cluster that does not answer: what is said of it, and that `--once` does not wait for ever."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path

import pytest

from rulegen.agent.agent import Agent
from rulegen.agent.telemetry.log import AgentLog
from rulegen.cli.main import main
from rulegen.host.dataplane.idle import IdleDataplane
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.stale_flows import StaleUdpPolicy
from tests.apiserver.watching import soon
from tests.fakes.faults import Fault
from tests.servers.fakeapi import FakeApi

HOST = "host:\n  hostname: node1\n  interfaces: [{name: eth0, addresses: [192.168.50.10/24]}]\n"
RUN = ("run", "--node", "node1", "--drift", "report", "--no-events", "--health-address", "", "--metrics-address", "")
LISTS = ("services", "endpointslices", "nodes")


class NoKernel(IdleDataplane):
    """Has neither rules nor tools."""

    tools = None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "host").write_text(HOST)
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call rulegen where it has no kernel to look at; what it logs is in its errors, too."""
    monkeypatch.setattr(KernelDataplane, "of_host", lambda *_, **_more: NoKernel(HostFacts()))

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        return stop.value.code or 0, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, "cannot be reached: Connection refused"),
        (Fault.status(401, "Unauthorized"), "rejects the credentials (401: Unauthorized)"),
        (Fault.status(403, "no"), "not allowed to list"),
        (Fault.status(503, "starting"), "failed to list"),
        (Fault.mute(threading.Event()), "no answer in time"),
    ],
    ids=["away", "401", "403", "503", "silent"],
)
def test_once_gives_up_with_one_clear_line(run, folder, fault, expected):
    with FakeApi() as api:
        kubeconfig = api.kubeconfig(folder, **({} if fault else {"server": "http://127.0.0.1:1"}))
        for noun in LISTS:
            api.fail(noun, *[fault] * 1000 if fault else ())
        began = time.monotonic()
        code, err = run(*RUN, "--kubeconfig", kubeconfig, "--once", "--timeout", "2")
        took_s = time.monotonic() - began
    assert code == 1
    assert took_s < 30
    error = next(line for line in err.splitlines() if "timed out" in line)
    assert "timed out after 2 s: http://" in error
    assert expected in error
    assert re.search(r"not read: (services|endpointslices|nodes)", error)
    assert "--timeout" in err
    assert "Traceback" not in err
    assert "Cuttable" not in err


def test_once_ends_well_where_all_is_read(run, folder):
    with FakeApi() as api:
        api.put("nodes", {"metadata": {"name": "node1"}})
        code, err = run(*RUN, "--kubeconfig", api.kubeconfig(folder), "--once")
    assert code == 0, err


@pytest.mark.parametrize("text", ["0", "-5s", "x", "1y"])
def test_a_timeout_that_is_none(run, text):
    code, err = run(*RUN, "--once", "--timeout", text)
    assert code != 0
    assert "--timeout" in err


def test_a_timeout_is_for_once(run):
    code, err = run(*RUN, "--timeout", "5s")
    assert code != 0
    assert "--timeout needs --once" in err


@pytest.mark.parametrize("command", [("plan", "--observed", "none"), ("export",), ("apply", "--yes")])
@pytest.mark.parametrize(
    ("fault", "expected", "hint"),
    [
        (None, "cannot be reached: Connection refused", "that the server runs"),
        (Fault.status(401, "Unauthorized"), "rejects the credentials (401", "renew the token"),
        (Fault.status(403, "no"), "not allowed to list services (403", "grant it to this user"),
        (Fault.status(503, "starting"), "failed to list services (503", "check its log"),
        (Fault.mute(threading.Event()), "no answer in time", "firewalls in between"),
    ],
    ids=["away", "401", "403", "503", "silent"],
)
def test_a_command_says_it_in_one_line_and_with_what_to_do(run, folder, monkeypatch, command, fault, expected, hint):
    monkeypatch.setattr("rulegen.apiserver.transport.client.READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr("rulegen.apiserver.transport.client.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("rulegen.cli.commands.apply.write", None)
    with FakeApi() as api:
        kubeconfig = api.kubeconfig(folder, **({} if fault else {"server": "http://127.0.0.1:1"}))
        api.fail("services", *[fault] * 20 if fault else ())
        began = time.monotonic()
        output = ("-o", "out") if command[0] == "export" else ()
        code, err = run(*command, *output, "--kubeconfig", kubeconfig, "--host", "host", "--node", "node1")
        took_s = time.monotonic() - began
    assert code == 1
    assert took_s < 5
    assert len([line for line in err.splitlines() if expected in line]) == 1, err
    assert hint in err
    assert "Traceback" not in err
    assert not (folder / "out").exists()


@pytest.mark.not_quick
def test_an_outage_is_one_warning_and_one_line_at_its_end(folder):
    log = io.StringIO()
    with FakeApi() as api:
        api.put("nodes", {"metadata": {"name": "node1"}})
        kubeconfig = api.kubeconfig(folder)
        api.go_away()
        agent = Agent(
            options=Options(node_name="node1", healthz_address="", metrics_address=""),
            facts=HostFacts(),
            variant=None,
            stale_udp=StaleUdpPolicy.ALL,
            counts=False,
            kubeconfig=kubeconfig,
            context=None,
            log=AgentLog(out=log),
            mends=True,
            once=False,
            services=False,
            clock=time.monotonic,
            events=False,
        )
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            assert soon(lambda: "does not answer" in log.getvalue()), log.getvalue()
            api.come_back()
            assert soon(lambda: "answers again" in log.getvalue()), log.getvalue()
        finally:
            agent.wake_up("stop")
            thread.join(10)
    away, back = [line for line in log.getvalue().splitlines() if "API server" in line]
    assert re.search(r"WARNING +the API server does not answer", away)
    assert "Connection refused" in away
    assert "nothing is written before all lists were received" in away
    assert re.search(r"since=\d{4}-\d\d-\d\dT", away)
    assert re.search(r"INFO +the API server answers again server=http://\S+ after_s=\d+", back)
