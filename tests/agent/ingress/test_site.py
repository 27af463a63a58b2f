"""The agent's ingress: what changes is decided anew, what does not is not, and nothing that comes meanwhile is lost."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from rulegen.agent.ingress.proxy_watch import FILES_S
from rulegen.agent.ingress.sync import DECIDED_S, IngressSync
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome, ProgramEnds
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.configuration import Configuration
from rulegen.model.ingress.options import IngressOptions
from rulegen.plan.ingress import IngressPlan
from rulegen.plan.nginx import plan_site
from tests.agent.stage import Clock
from tests.strategies.ingresses import OPTIONS, TEMPLATES, WEB, compiled, site, world


@dataclass
class MemorySite:
    """A site that is served from memory, by no nginx."""

    options: IngressOptions = OPTIONS
    notes: list[str] = field(default_factory=list)
    live: Configuration | None = None
    look: Callable[[IngressOptions], IngressOptions] = lambda options: options
    decisions: int = 0
    order: list[str] = field(default_factory=list)

    name = "nginx"
    ends = ProgramEnds()
    hindrance = ""
    are_changed = False

    @property
    def is_serving(self) -> bool:
        return self.live is not None

    def follow_files(self, *, ends: bool = False) -> None: ...

    def have_files_changed(self) -> bool:
        changed, self.are_changed = self.are_changed, False
        return changed

    def refresh(self) -> bool:
        before, self.options = self.options, self.look(self.options)
        return before != self.options

    def observe(self) -> Configuration | None:
        self.order.append("observe")
        return self.live

    def check(self, world: ClusterSnapshot, observed: Configuration | None, before: NginxSite | None) -> NginxSite:
        self.decisions += 1
        self.order.append("check")
        return compile_ingress(world, self.options, TEMPLATES, served=True, before=before)

    def plan(self, site: NginxSite, observed: Configuration | None) -> IngressPlan:
        return plan_site(observed, site.configuration, site.names, self.live.digest if self.live else "")

    def move(self, site: NginxSite, world: ClusterSnapshot, services: object) -> bool:
        return False

    def give(self, before: NginxSite, decide: Callable[[], NginxSite]) -> bool:
        return False

    def deploy(self, site: NginxSite) -> DeployOutcome:
        action = DeployAction.NOTHING if site.configuration == self.live else DeployAction.RELOADED
        self.live = site.configuration
        return DeployOutcome(site.configuration.digest, action)


class Nothing:
    """Follows no Secret, as none is named."""

    def refer_to(self, **_: object) -> None: ...

    def refused(self) -> frozenset[ObjectKey]:
        return frozenset()


@dataclass
class Stage:
    """A loop that is turned by hand, and the cluster that it looks at."""

    live: MemorySite = field(default_factory=MemorySite)
    clock: Clock = field(default_factory=Clock)
    objects: tuple = (*WEB, site("a.test"), site("b.test"))

    def __post_init__(self) -> None:
        state = AgentState(self.clock)
        self.loop = IngressSync(self.live, self.snapshot, Nothing(), state, AgentLog(out=io.StringIO()), self.clock)

    def snapshot(self) -> ClusterSnapshot:
        return world(*self.objects)

    def change(self, *objects: object) -> None:
        self.objects = (*WEB, *objects)
        self.loop.touch()

    def is_right(self) -> bool:
        return self.live.live == compiled(*self.objects, served=True).configuration


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize("has_release", [False, True])
def test_report_mode_logs_each_foreign_change_once(has_release):
    stage = Stage()
    if has_release:
        stage.loop.serve()
    log = io.StringIO()
    stage.loop = IngressSync(
        stage.live, stage.snapshot, Nothing(), AgentState(stage.clock), AgentLog(out=log), stage.clock, mends=False
    )

    def reported() -> list[str]:
        stage.loop.serve()
        return [line for line in log.getvalue().splitlines() if "changed by another program" in line]

    assert reported() == []
    stage.change(site("a.test", proxy_read_timeout="7"), site("b.test"))
    assert reported() == []
    if has_release:
        live = stage.live.live
        lost = next(path for path in live.files if path.startswith("hosts/") and "b.test" in live.files[path])
        stage.live.live = msgspec.structs.replace(
            live, files={path: text for path, text in live.files.items() if path != lost}
        )
        (line,) = reported()
        assert "b.test" in line
        assert "a.test" not in line
        assert reported() == [line]


def test_what_did_not_change_is_not_decided_again(stage):
    assert stage.loop.serve()
    for _ in range(3):
        stage.clock.now += DECIDED_S / 4
        assert not stage.loop.serve()
    assert (stage.live.decisions, stage.is_right()) == (1, True)


def test_what_changes_is_served(stage):
    stage.loop.serve()
    stage.change(site("a.test", proxy_read_timeout="7"))
    assert stage.loop.serve()
    assert stage.is_right()
    assert stage.loop.served == {ObjectName("default", "a"): True}


def test_what_it_has_served_itself_is_read_after_the_check(stage):
    """Then the program is asked sooner; what is on disk is compared before anything is deployed all the same."""
    stage.loop.serve()
    assert stage.live.order == ["observe", "check", "observe"]
    stage.live.order.clear()
    stage.change(site("a.test", proxy_read_timeout="7"))
    assert stage.loop.serve()
    assert stage.live.order == ["check", "observe"]


def test_deleted_files_are_restored_without_a_new_decision(stage):
    stage.loop.serve()
    stage.live.live = None
    assert stage.loop.serve()
    assert (stage.live.decisions, stage.is_right()) == (1, True)


def test_in_the_end_all_is_decided_again_as_certificates_lapse(stage):
    stage.loop.serve()
    stage.clock.now += DECIDED_S
    stage.loop.serve()
    assert stage.live.decisions == 2


def test_a_change_during_a_decision_is_decided_next(stage):
    def snapshot() -> ClusterSnapshot:
        current = world(*stage.objects)
        stage.change(site("new.test"))
        return current

    stage.loop.objects.snapshot = snapshot
    stage.loop.serve()
    stage.loop.objects.snapshot = stage.snapshot
    assert not stage.is_right()
    assert stage.loop.serve()
    assert stage.is_right()


@pytest.mark.parametrize("is_noticed", [False, True])
def test_a_host_that_changes_is_served_as_it_is_now(stage, is_noticed):
    """Without IPv6 nginx listens on IPv4 alone; and again on both once it is back."""

    def listens() -> bool:
        return any("[::]:" in text for text in stage.live.live.files.values())

    stage.loop.serve()
    assert listens()
    for has_ipv6 in (False, True):
        stage.live.look = lambda o, has=has_ipv6: msgspec.structs.replace(
            o, host=msgspec.structs.replace(o.host, ipv6=has)
        )
        if is_noticed:
            stage.loop.look_at_host()
        assert stage.loop.serve()
        assert listens() is has_ipv6
        assert not stage.loop.serve()
    assert stage.is_right()


def test_what_could_not_be_decided_is_tried_again(stage, monkeypatch):
    stage.loop.serve()
    stage.change(site("new.test"))
    with monkeypatch.context() as patch:
        patch.setattr(stage.live, "check", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stage.loop.serve()
    assert stage.loop.serve()
    assert stage.is_right()


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_program_that_cannot_be_reloaded_serves_and_is_reported(stage, is_alone):
    stage.loop.serve()
    proxy, state = stage.loop.proxy, stage.loop.state
    proxy.is_alone = is_alone
    proxy.look()
    stage.live.hindrance = "its master hangs"
    proxy.look()
    assert state.not_served == "", "it may just be reloaded"
    proxy.look()
    assert (state.not_served, state.site_is_down, stage.loop.is_serving) == ("its master hangs", False, True)
    assert "changes of Ingresses wait error=" in stage.loop.log.out.getvalue()
    stage.loop.serve()
    stage.live.hindrance = ""
    proxy.look()
    assert state.not_served == ""
    assert stage.loop.is_woken, "what waits is served at once"


def test_files_that_others_change_are_checked_soon_but_not_all_the_time(stage):
    stage.loop.serve()
    proxy, checked = stage.loop.proxy, []
    for _ in range(3):
        stage.live.are_changed = True
        proxy.look_at_files()
        checked.append(stage.loop.is_woken)
        stage.loop.serve()
    assert checked == [True, False, False]
    proxy.look_at_files()
    assert not stage.loop.is_woken
    stage.clock.now += FILES_S
    proxy.look_at_files()
    assert stage.loop.is_woken, "the last change counts, too"
