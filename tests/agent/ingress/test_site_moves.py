"""Changed endpoints reach a proxy that takes them alone at once, and everything else with the whole configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rulegen.agent.ingress import sync
from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.errors import HostError
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.configuration import Configuration
from tests.agent.ingress.test_site import MemorySite
from tests.agent.ingress.test_site_index import Stage
from tests.strategies.ingresses import TEMPLATES, endpoints, service, site


class Moving(MemorySite):
    """A site whose endpoints change alone, as with HAProxy: what it serves is what the cluster has then."""

    refuses: Exception | None = None
    takes = True
    action = DeployAction.RELOADED

    def deploy(self, site: NginxSite) -> DeployOutcome:
        return replace(super().deploy(site), action=self.action)

    def move(self, site: NginxSite, world: ClusterSnapshot, services: object) -> bool:
        if self.refuses is not None:
            raise self.refuses
        if self.takes:
            self.order.append("move")
            self.live = compile_ingress(world, self.options, TEMPLATES, served=True, before=site).configuration
        return self.takes


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr("tests.agent.ingress.test_site_index.MemorySite", Moving)
    made = Stage()
    assert isinstance(made.live, Moving)
    made.live.order.clear()
    return made


def _web(*addresses: str):
    return endpoints("web", addresses)


def _serves(stage: Stage, *addresses: str) -> bool:
    assert isinstance(stage.live.live, Configuration)
    text = "".join(stage.live.live.files.values())
    return all(f"{address}:8080" in text for address in addresses)


def _wait_s(stage: Stage) -> float:
    """Return how long the thread would gather changes."""
    waits = []
    clock = stage.loop.clock
    stage.loop.clock = lambda: (waits.append(1), clock() + 0.1 * len(waits))[1]
    stage.loop.gather(0.0)
    stage.loop.clock = clock
    return 0.1 * len(waits)


def test_changed_endpoints_are_served_before_anything_is_decided(stage):
    stage.change(_web("10.244.7.1"))
    stage.loop.move()

    assert stage.live.order == ["move"]
    assert _serves(stage, "10.244.7.1")


def test_each_change_while_others_are_gathered_is_served(stage):
    for number in range(1, 4):
        stage.change(_web(f"10.244.7.{number}"))
        stage.loop.move()
        assert _serves(stage, f"10.244.7.{number}")
    stage.loop.move()
    assert stage.live.order == ["move"] * 3


@pytest.mark.parametrize("other", [site("b.test"), service("web", type="NodePort")], ids=["ingress", "service"])
def test_after_another_change_endpoints_wait_for_the_whole_configuration(stage, other):
    """The engine itself sees a changed Service; an Ingress is none of its business."""
    stage.change(other)
    stage.change(_web("10.244.7.1"))
    is_ingress = other.metadata.name == "b"
    stage.loop.move()
    assert stage.live.order == ([] if is_ingress else ["move"])

    stage.turn()
    assert _serves(stage, "10.244.7.1")
    stage.change(_web("10.244.7.2"))
    stage.loop.move()
    assert _serves(stage, "10.244.7.2")


@pytest.mark.parametrize("refuses", [HostError("no"), ValueError("no"), None])
def test_what_the_proxy_does_not_take_waits_no_longer_than_before(stage, refuses):
    stage.live.refuses, stage.live.takes = refuses, False
    stage.change(_web("10.244.7.1"))
    stage.loop.move()

    assert not _serves(stage, "10.244.7.1")
    assert _wait_s(stage) < sync.QUIET_S + 0.2
    stage.turn()
    assert _serves(stage, "10.244.7.1")


def test_files_follow_after_a_longer_quiet_time(stage):
    stage.change(_web("10.244.7.1"))
    stage.loop.move()
    assert sync.QUIET_S + 0.2 < _wait_s(stage) <= sync.MOVED_LONGEST_S


def test_nothing_is_moved_before_anything_was_served(stage):
    stage.loop.site = None
    stage.change(_web("10.244.7.1"))
    stage.loop.move()
    assert stage.live.order == []


@pytest.mark.parametrize(("action", "longest_s"), [(DeployAction.UPDATED, 0.1), (DeployAction.RELOADED, 0.4)])
def test_a_change_without_a_reload_makes_the_quiet_time_short(stage, action, longest_s):
    stage.live.action = action
    stage.change(site("b.test"))
    stage.turn()

    stage.change(site("c.test"))
    assert longest_s - 0.2 <= _wait_s(stage) <= longest_s
