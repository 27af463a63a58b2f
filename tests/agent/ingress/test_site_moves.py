"""Changes reach a proxy that takes them at once before its files: endpoints alone, and all else when it is decided."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from rulegen.agent.ingress import sync
from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.errors import HostError
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.configuration import Configuration
from tests.agent.ingress.test_site import MemorySite
from tests.agent.ingress.test_site_index import Stage
from tests.strategies.ingresses import TEMPLATES, endpoints, ingress, path, rule, service, site


class Moving(MemorySite):
    """A site whose endpoints change alone, as with HAProxy: what it serves is what the cluster has then."""

    refuses: Exception | None = None
    takes = True
    gives = False
    action = DeployAction.RELOADED

    def deploy(self, site: NginxSite) -> DeployOutcome:
        self.order.append("deploy")
        return replace(super().deploy(site), action=self.action)

    def move(self, site: NginxSite, world: ClusterSnapshot, services: object) -> bool:
        if self.refuses is not None:
            raise self.refuses
        if self.takes:
            self.order.append("move")
            self.live = compile_ingress(world, self.options, TEMPLATES, served=True, before=site).configuration
        return self.takes

    def give(self, before: NginxSite, decide: Callable[[], NginxSite]) -> bool:
        if self.gives:
            self.live = decide().configuration
            self.order.append("give")
        return self.gives


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


def test_all_else_is_served_when_it_is_decided_and_decided_once(stage):
    stage.live.gives = True
    for name in ("b", "c"):
        stage.change(site(f"{name}.test"))
        stage.loop.move()
        assert f"server_name {name}.test" in "".join(stage.live.live.files.values())
    assert stage.live.order == ["check", "give"] * 2
    assert sync.QUIET_S + 0.2 < _wait_s(stage) <= sync.MOVED_LONGEST_S

    stage.change(_web("10.244.7.1"))
    stage.loop.move()
    assert _serves(stage, "10.244.7.1")
    assert stage.live.order[4:] == ["move"]
    decisions = stage.live.decisions
    stage.turn()
    assert stage.live.decisions == decisions + 1  # for the endpoints
    assert _serves(stage, "10.244.7.1")


def test_a_change_while_all_is_decided_early_is_not_missed(stage):
    """The change comes between the look at the cluster and the end of the decision that makes it matter."""
    stage.live.gives = True
    stage.meanwhile = lambda: stage.change(endpoints("other", ("10.244.9.4",)))
    stage.change(ingress("b", rule("b.test", path(to="other"))))
    stage.loop.move()
    stage.meanwhile = lambda: None
    stage.loop.move()
    assert _serves(stage, "10.244.9.4")


def test_files_follow_after_a_longer_quiet_time(stage):
    stage.change(_web("10.244.7.1"))
    stage.loop.move()
    assert sync.QUIET_S + 0.2 < _wait_s(stage) <= sync.MOVED_LONGEST_S


@pytest.mark.parametrize(("gives", "change"), [(False, _web("10.244.7.1")), (True, site("b.test"))])
def test_after_a_stop_the_files_have_what_is_served(stage, gives, change):
    stage.live.gives = gives
    stage.change(change)
    stage.loop.move()
    assert stage.loop.stop(for_good=True)
    served = stage.live.live

    stage.loop.write_rest()
    assert stage.live.order[-1] == "deploy"
    assert stage.live.live == served
    stage.loop.write_rest()
    assert stage.live.order.count("deploy") == 1


def test_after_a_stop_a_change_that_waits_for_a_reload_is_not_served(stage):
    """Nothing that the proxy does not have yet is worth a reload."""
    stage.change(site("b.test"))
    stage.loop.move()
    stage.loop.stop(for_good=True)
    stage.loop.write_rest()
    assert stage.live.order == []


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
    stage.loop.move()
    assert longest_s - 0.2 <= _wait_s(stage) <= longest_s
