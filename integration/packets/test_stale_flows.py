"""UDP of a fixed port follows its Service: a flow that connection tracking remembers must not outlive its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.flows import target
from integration.lab.hosts import FAMILIES
from integration.manifests import PORT, App, world

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.flows import Way
    from integration.lab.hosts import Answer, Family
    from integration.lab.lab import Lab

SOURCE_PORT = 40999


def _app(*ready: str, **more: Any) -> App:
    return App(name="dns", number=701, ready=ready, type="LoadBalancer", external_ip=True, **more)


OTHER = App(name="other", number=702, ready=("pod-a",))

Asker = tuple[str, "Way"]
POD: Asker = ("pod-c", "cluster")
ASKERS: list[Asker] = [
    POD, ("node1", "cluster"), ("client", "node"), ("client", "lb"), ("client", "external"),
]  # fmt: skip


def _ask(lab: Lab, asker: Asker, family: Family, timeout_s: float = 1) -> Answer:
    who, way = asker
    address, port = target(lab, _app(), way, family)
    return lab[who].request("UDP", address, port, source_port=SOURCE_PORT, timeout_s=timeout_s)


def _who_answers(lab: Lab, *askers: Asker) -> set[str]:
    """Ask in both families; return the names of all who answered, or how it failed."""
    answers = [_ask(lab, asker, family) for asker in askers for family in FAMILIES]
    return {answer.name or answer.outcome for answer in answers}


def test_a_flow_moves_when_its_endpoint_goes(lab: Lab, rulegen: Rulegen) -> None:
    """By whatever address it came."""
    rulegen.serve([_app("pod-a"), OTHER])
    assert _who_answers(lab, *ASKERS) == {"pod-a"}
    rulegen.apply(world([_app("pod-b"), OTHER]))
    assert _who_answers(lab, *ASKERS) == {"pod-b"}
    rulegen.check_converged()


@pytest.mark.same_rules(0)
@pytest.mark.of_nftables(0)
def test_a_flow_stays_when_another_endpoint_goes(lab: Lab, rulegen: Rulegen) -> None:
    """Also where its own endpoint is not chosen for new flows any more, as long as it serves."""
    rulegen.serve([_app("pod-a"), OTHER])
    assert _who_answers(lab, POD) == {"pod-a"}
    for app in (_app("pod-a", "pod-b"), _app("pod-b", terminating=("pod-a",))):
        rulegen.apply(world([app, OTHER]))
        assert _who_answers(lab, POD) == {"pod-a"}


@pytest.mark.same_rules(0)
def test_a_flow_ends_with_the_last_endpoint_and_then_moves(lab: Lab, rulegen: Rulegen) -> None:
    """Down to none and up again: the flow must not stick to what was, nor to the nothing in between."""
    rulegen.serve([_app("pod-a"), OTHER])
    assert _who_answers(lab, POD) == {"pod-a"}
    rulegen.apply(world([_app(), OTHER]))
    assert _who_answers(lab, POD) == {"refused"}
    rulegen.apply(world([_app("pod-b"), OTHER]))
    assert _who_answers(lab, POD) == {"pod-b"}


@pytest.mark.same_rules(0)
def test_a_flow_ends_with_its_service(lab: Lab, rulegen: Rulegen) -> None:
    rulegen.serve([_app("pod-a"), OTHER])
    assert _who_answers(lab, POD, ("client", "node")) == {"pod-a"}
    rulegen.apply(world([OTHER]))
    for family in FAMILIES:
        assert _ask(lab, POD, family, 0.4).outcome == "timeout"
        assert _ask(lab, ("client", "node"), family).outcome == "refused"


@pytest.mark.same_rules(0)
@pytest.mark.of_nftables(0)
def test_a_flow_from_before_the_service_comes_to_it(lab: Lab, rulegen: Rulegen) -> None:
    """A client that was there first is tracked without NAT, and sends on: the new Service must take it."""
    rulegen.serve([OTHER])
    for family in FAMILIES:
        assert _ask(lab, POD, family, 0.2).outcome == "timeout"
    rulegen.apply(world([_app("pod-a"), OTHER]))
    assert _who_answers(lab, POD) == {"pod-a"}


@pytest.mark.same_rules(0)
@pytest.mark.of_nftables(0)
def test_the_plan_tells_which_flows_it_will_end(lab: Lab, rulegen: Rulegen) -> None:
    rulegen.serve([_app("pod-a"), OTHER])
    assert _who_answers(lab, POD) == {"pod-a"}
    rulegen.write(world([_app("pod-b"), OTHER]))
    output = rulegen.plan().stdout
    assert str(_app().cluster_ip(4)) in output
    assert str(SOURCE_PORT) in output
    assert _who_answers(lab, POD) == {"pod-a"}


@pytest.mark.same_rules(0)
@pytest.mark.of_nftables(0)
def test_flows_of_others_stay(lab: Lab, rulegen: Rulegen) -> None:
    """A flow that has nothing to do with Services, or is not UDP, is not ours to end."""
    rulegen.serve([_app("pod-a"), OTHER])
    pod = lab["pod-b"].addresses(4)[0]
    assert lab["pod-c"].request("UDP", pod, 8080, source_port=SOURCE_PORT).name == "pod-b"
    assert lab["pod-c"].request("TCP", _app().cluster_ip(4), PORT, source_port=SOURCE_PORT).name == "pod-a"
    rulegen.apply(world([_app("pod-b"), OTHER]))
    listed = lab.node.run(["conntrack", "-L"]).check().stdout
    kept = [line for line in listed.splitlines() if f"sport={SOURCE_PORT}" in line]
    assert {line.split()[0] for line in kept} == {"udp", "tcp"}
