"""`rulegen run` and its configuration: what cannot be used changes nothing, what can is obeyed and says what opens."""

from __future__ import annotations

import io
import json
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from rulegen.agent.agent import Agent
from rulegen.agent.telemetry.log import AgentLog
from rulegen.cli.main import cli
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rulegen.model.services.options import Options

HEAD = {"apiVersion": API_VERSION, "kind": KIND, "hostnameOverride": "node1"}
CLOSED = {**HEAD, "nodePortAddresses": ["primary"], "clusterCIDR": "10.244.0.0/16"}


def reloaded(folder: Path, change: Callable[[Path], object]) -> tuple[list[Options], bool, str]:
    """Run an agent whose configuration changes before SIGHUP.

    Returns:
        The options of the agent before and behind it, whether it was found fit to begin anew, and the log.
    """
    config = folder / "config.yaml"
    config.write_text(json.dumps(CLOSED))
    seen: list[Options] = []
    fit: list[bool] = []
    log = io.StringIO()

    def run(agent: Agent) -> str:
        seen.append(agent.options)
        if len(seen) == 1:
            change(config)
            fit.append(agent.can_reload())
            return "reload"
        return "stop"

    with FakeApi() as api, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agent, "run", run)
        patch.setattr("rulegen.agent.telemetry.log.AgentLog", partial(AgentLog, out=log))
        done = CliRunner().invoke(cli, ["run", "--config", str(config), "--kubeconfig", api.kubeconfig(folder)])
    assert (done.exit_code, done.exception) == (0, None)
    return seen, fit[0], log.getvalue()


def folder_in_place(config: Path) -> None:
    config.unlink()
    config.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda config: config.unlink(), id="missing"),
        pytest.param(folder_in_place, id="a-folder"),
        pytest.param(lambda config: (config.unlink(), config.symlink_to(config)), id="a-link-to-itself"),
        pytest.param(lambda config: config.write_text(""), id="empty"),
        pytest.param(lambda config: config.write_text("# nothing\n"), id="a-comment"),
        pytest.param(lambda config: config.write_text(json.dumps(CLOSED)[:-20]), id="half-written"),
        pytest.param(lambda config: config.write_bytes(b"\0" * 200), id="zeros-after-a-crash"),
        pytest.param(lambda config: config.write_bytes(b"\xff\xfe{}"), id="no-text"),
        pytest.param(lambda config: config.write_text("[]"), id="a-list"),
        pytest.param(lambda config: config.write_text(json.dumps({**HEAD, "kind": "Pod"})), id="another-kind"),
        pytest.param(lambda config: config.write_text("{}"), id="without-kind"),
        pytest.param(
            lambda config: config.write_text(json.dumps({**HEAD, "nodePortAddresses": ["all"]})), id="a-wrong-value"
        ),
    ],
)
def test_an_invalid_configuration_changes_nothing(change, tmp_path):
    seen, is_fit, log = reloaded(tmp_path, change)
    assert not is_fit
    assert seen[0] == seen[1]
    assert seen[1].node_port_primary
    assert "not reloaded" in log
    assert "opens" not in log


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("nodePortAddresses", "node ports and health check ports open on every IPv4 address"),
        ("clusterCIDR", "connections to ClusterIPs are not masqueraded in IPv4"),
    ],
)
def test_a_removed_field_takes_effect_and_the_log_names_it(lost, named, tmp_path):
    left = {name: value for name, value in CLOSED.items() if name != lost}
    seen, is_fit, log = reloaded(tmp_path, lambda config: config.write_text(json.dumps(left)))
    assert is_fit
    assert seen[0] != seen[1]
    warnings = [line for line in log.splitlines() if "opens access" in line]
    assert named in " ".join(warnings)


def test_what_closes_more_is_no_warning(tmp_path):
    more = {**CLOSED, "iptables": {"localhostNodePorts": False}, "nodePortAddresses": ["primary"]}
    seen, is_fit, log = reloaded(tmp_path, lambda config: config.write_text(json.dumps(more)))
    assert is_fit
    assert not seen[1].localhost_node_ports
    assert "opens" not in log


@pytest.mark.parametrize("turn", [1, 2])
def test_a_change_while_an_agent_is_made_is_obeyed(turn, tmp_path, monkeypatch):
    """The first agent, and one that a reload makes: its configuration was read before the file changed."""
    config, woken = tmp_path / "config.yaml", threading.Event()
    config.write_text(json.dumps(CLOSED))
    made: list[Options] = []
    make = Agent.__init__

    def init(agent: Agent, **values: object) -> None:
        make(agent, **values)
        made.append(agent.options)
        if len(made) == turn:
            config.write_text(json.dumps({**CLOSED, "clusterCIDR": "10.77.0.0/16"}))

    def run(agent: Agent) -> str:
        if len(made) < turn:
            return "reload"
        return "reload" if len(made) == turn and woken.wait(30) else "stop"

    monkeypatch.setattr(Agent, "__init__", init)
    monkeypatch.setattr(Agent, "run", run)
    monkeypatch.setattr(Agent, "wake_up", lambda _agent, _why: woken.set())
    with FakeApi() as api:
        done = CliRunner().invoke(cli, ["run", "--config", str(config), "--kubeconfig", api.kubeconfig(tmp_path)])
    assert (done.exit_code, done.exception) == (0, None)
    assert [[str(cidr) for cidr in options.cluster_cidrs] for options in made[-2:]] == [
        ["10.244.0.0/16"],
        ["10.77.0.0/16"],
    ]
