"""What the agent says that others have changed: each thing once, with the rule and its Service, and nothing else."""

from __future__ import annotations

import msgspec
import pytest

from rulegen.agent.inbox import Wake
from rulegen.agent.services.drift import damage, tell
from rulegen.agent.telemetry.state import AgentState
from rulegen.diff.items import Action, Item, Line
from rulegen.kube.objects import structs as k
from rulegen.net import Family
from tests.agent.stage import OPTIONS, Stage, changed, endpoints, listed, node, service

WEB = (
    listed(k.Node, node()),
    listed(k.Service, service("web"), service("shop", 2)),
    listed(k.EndpointSlice, endpoints("web", 1, 2), endpoints("shop", 5)),
)


def lines(stage: Stage) -> list[str]:
    return [line for line in stage.log if "changed by another program" in line]


def drop(stage: Stage, chain: str, text: str) -> None:
    """Take the rules with a text out of a chain of nat."""
    rules = stage.writer.kernels[Family.IPV4].tables["nat"]
    name = next(name for name in rules if name.startswith(chain))
    rules[name] = [rule for rule in rules[name] if text not in rule]


@pytest.mark.parametrize("mends", [True, False])
def test_a_fresh_node_is_no_drift(mends):
    stage = Stage(mends=mends)
    stage.at(0, *WEB)
    stage.run(60)
    assert lines(stage) == []
    assert stage.state.metrics.drift["rule"] == 0
    assert stage.is_right() is mends


@pytest.mark.parametrize("mends", [True, False])
@pytest.mark.parametrize(
    "option",
    [{"localhost_node_ports": False}, {"masquerade_all": True}, {"cluster_cidrs": ()}, {"masquerade_bit": 15}],
    ids=lambda option: next(iter(option)),
)
def test_an_agent_that_begins_with_another_option_finds_no_drift(mends, option):
    before = Stage()
    stage = Stage(kernels=before.writer.kernels, mends=mends, options=msgspec.structs.replace(OPTIONS, **option))
    for agent in (before, stage):
        agent.at(0, *WEB)
    before.run(3)
    stage.run(60)
    assert lines(stage) == []


def test_each_foreign_change_has_its_rule_and_service():
    """Two tampered places are two each with its rule and service."""
    stage = Stage()
    stage.at(0, *WEB)
    stage.at(
        5, lambda: drop(stage, "KUBE-SERVICES", "10.96.0.1/32"), lambda: drop(stage, "KUBE-SERVICES", "10.96.0.2/32")
    )
    stage.at(5, Wake("check"))
    stage.run(8)
    (line,) = lines(stage)
    assert "count=2" in line
    for address, owner in (("10.96.0.1", "demo/web"), ("10.96.0.2", "demo/shop")):
        assert f"-d {address}/32 -p tcp" in line
        assert f"of Service {owner} was deleted" in line
    assert stage.is_right()


def test_what_one_who_only_reports_saw_is_not_said_again():
    before = Stage()
    stage = Stage(kernels=before.writer.kernels, mends=False)
    for agent in (before, stage):
        agent.at(0, *WEB)
    stage.at(5, lambda: drop(stage, "KUBE-SERVICES", "10.96.0.1/32"))
    for seconds in range(5, 50, 3):
        stage.at(seconds, Wake("check"))
    before.run(3)
    stage.run(60)
    assert len(lines(stage)) == 1


def test_a_change_that_is_not_written_yet_is_no_drift():
    """A change that nobody has written yet is no work of others."""
    before = Stage()
    stage = Stage(kernels=before.writer.kernels, mends=False)
    for agent in (before, stage):
        agent.at(0, *WEB)
    stage.at(5, changed(endpoints("web", 1, 2, 3)))
    stage.at(20, lambda: drop(stage, "KUBE-SERVICES", "10.96.0.2/32"), Wake("check"))
    before.run(3)
    stage.run(60)
    (line,) = lines(stage)
    assert "demo/shop" in line
    assert "demo/web" not in line
    assert any("differs from the objects" in line for line in stage.log)


def test_the_same_thing_five_times_is_one_line_with_a_number(capsys):
    item = Item(
        action=Action.ADD, language="iptables", family="IPv4", kind="rule", name="nat X", lines=(Line("+", "-j Y"),)
    )
    said: list[str] = []

    class Journal:
        def warning(self, *_: object, **fields: object) -> None:
            said.append(str(fields["what"]))

    state = AgentState(lambda: 0.0)
    tell(damage([item] * 5, ()), state, Journal(), said.append, mended=True)
    assert said[0] == "rule nat X [IPv4] `-j Y` was deleted (5 times)"
    assert state.metrics.drift["rule"] == 5


def test_a_rule_of_others_reaches_no_terminal_and_is_cut():
    text = "-j \x1b[31m" + "x" * 5000
    item = Item(
        action=Action.DELETE, language="iptables", family="IPv4", kind="rule", name="nat X", lines=(Line("-", text),)
    )
    ((_, shown),) = damage([item], ())
    assert shown.isprintable()
    assert len(shown) < 1000
