"""The agent's ingress where the API server is slow, silent or refuses: unknown is not absent, absent is not open."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.ingress import references, sync
from rulegen.agent.ingress.references import FIRST_S, SILENCE_S, Memory
from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.pages_server.health import healthz
from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.host.nginx.disk.last_read import NginxKnownObjects
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, scoped
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.selector import parse_selector
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.kube.validation.validate import check
from rulegen.languages.nginx.configuration import Configuration
from rulegen.model.ingress.options import IngressOptions
from rulegen.model.ingress.unread import MissingError
from rulegen.model.ingress.values.classes import Selection
from rulegen.plan.ingress import IngressPlan
from rulegen.plan.nginx import plan_site
from tests.apiserver.watching import soon
from tests.ingress_strategies import (
    OPTIONS,
    SETTINGS,
    TEMPLATES,
    WEB,
    config_map,
    file_of,
    ingress,
    path,
    rule,
    secret,
    settings_map,
    site,
    tls,
    tls_secret,
)
from tests.sizes import examples

NODE = ObjectReference("v1", "Node", "", "node", "uid")
CERT = ObjectName("default", "cert")
USERS = ObjectName("default", "users")
PASSWORDS = secret("users", auth=b"u:{PLAIN}p\n")
WITH_TLS = ingress("tls", rule("tls.test", path()), tls=[tls("cert", "tls.test")])
CERTIFICATE = tls_secret("cert", "tls.test")
SHUT = site("shut.test", auth_type="basic", auth_secret="users")
PLAIN = site("plain.test")
CLASS = k.IngressClass(metadata=k.ObjectMeta(name="mine"), spec=k.IngressClassSpec(controller="rulegen.io/ingress"))
RESTRICTED = settings_map(whitelist_source_range="10.0.0.0/8")


@dataclass
class Ticking:
    """A clock that goes on whenever somebody looks."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@dataclass
class MemorySite:
    """A site that is served from memory, by no nginx."""

    options: IngressOptions = OPTIONS
    notes: list[str] = field(default_factory=list)
    live: Configuration | None = None
    look: Callable[[IngressOptions], IngressOptions] = lambda options: options

    name = "nginx"

    @property
    def is_serving(self) -> bool:
        return self.live is not None

    def refresh(self) -> bool:
        before, self.options = self.options, self.look(self.options)
        return before != self.options

    def observe(self) -> Configuration | None:
        return self.live

    def check(self, world: ClusterSnapshot, observed: Configuration | None, before: NginxSite | None) -> NginxSite:
        return compile_ingress(world, self.options, TEMPLATES, served=True, before=before)

    def plan(self, site: NginxSite, observed: Configuration | None) -> IngressPlan:
        return plan_site(observed, site.configuration, site.names, self.live.digest if self.live else "")

    def deploy(self, site: NginxSite) -> DeployOutcome:
        action = DeployAction.NOTHING if site.configuration == self.live else DeployAction.RELOADED
        self.live = site.configuration
        return DeployOutcome(site.configuration.digest, action)


@dataclass
class Server:
    """An API server that answers what it is let answer: it is what the loop's watch asks.

    Attributes:
        looks: After so many looks at what is refused it ends its silence; 0 for never.
    """

    there: dict[ObjectKey, KubeObject] = field(default_factory=dict)
    silent: set[ObjectKey] = field(default_factory=set)
    forbidden: set[ObjectKey] = field(default_factory=set)
    cluster: SharedCluster = field(default_factory=SharedCluster)
    asked: set[ObjectKey] = field(default_factory=set)
    looks: int = 0

    def refer_to(self, *, secrets: frozenset[ObjectName], config_maps: frozenset[ObjectName]) -> None:
        self.asked = {ObjectKey("Secret", name) for name in secrets} | {
            ObjectKey("ConfigMap", name) for name in config_maps
        }
        self.answer()

    def refused(self) -> frozenset[ObjectKey]:
        self.looks -= 1
        if self.looks == 0:
            self.silent.clear()
            self.answer()
        return frozenset(self.forbidden & self.asked)

    def answer(self) -> None:
        """Tell of all that is asked for and answered."""
        for key in sorted(self.asked - self.silent - self.forbidden):
            self.tell(key)

    def tell(self, key: ObjectKey) -> bool:
        kind = getattr(k, key.kind)
        present = self.there.get(key)
        name = scoped(kind, *key.name)
        return bool(
            self.cluster.take(Gone(kind, name) if present is None else Changed(kind, check(present, ""), name)).site
        )

    def put(self, *objects: KubeObject) -> None:
        for stored in objects:
            metadata = stored.metadata
            self.there[key := ObjectKey(type(stored).__name__, ObjectName(metadata.namespace, metadata.name))] = stored
            if key.kind not in {"Secret", "ConfigMap"}:
                self.tell(key)
        self.answer()

    def delete(self, stored: KubeObject) -> None:
        key = ObjectKey(type(stored).__name__, ObjectName(stored.metadata.namespace, stored.metadata.name))
        del self.there[key]
        if key.kind not in {"Secret", "ConfigMap"} or key in self.asked:
            self.tell(key)


class Stage:
    """A loop that is turned by hand."""

    def __init__(self, *objects: KubeObject, silent=(), forbidden=(), known=None, live=None, **changes) -> None:
        self.server = Server(silent=set(silent), forbidden=set(forbidden))
        self.log, self.events = io.StringIO(), list[EventRequest]()
        self.site = MemorySite(replace(OPTIONS, **changes), live=live)
        self.clock = Ticking()
        self.known = known if known is not None else Memory()
        self.loop = self.begin()
        self.server.put(*WEB, *objects)

    def begin(self) -> IngressSync:
        """Return a loop that knows what the cluster was told."""
        return IngressSync(
            self.site,
            self.server.cluster.for_ingresses,
            self.server,
            AgentState(self.clock),
            AgentLog(out=self.log),
            self.clock,
            cluster=self.server.cluster,
            known=self.known,
            tell=self.events.append,
            forget=self.server.cluster.take,
            about=lambda: NODE,
            is_alone=True,
        )

    def turn(self) -> Stage:
        self.loop.touch()
        self.loop.serve()
        return self

    def text(self, host: str) -> str:
        assert self.site.live is not None
        return self.site.live.files.get(file_of(host), "")

    def is_open(self, host: str) -> bool:
        return "proxy_pass" in self.text(host)

    def is_shut(self, host: str) -> bool:
        """Whether nobody gets in who does not say who it is, or nobody at all."""
        return "auth_basic_user_file" in self.text(host) or not self.is_open(host)

    def again(self, *, silent=()) -> Stage:
        """Return the loop of an agent that begins beside the nginx of this one."""
        stage = Stage(silent=silent, known=self.loop.objects.known, live=self.site.live)
        stage.site.options = self.site.options
        stage.server.put(*self.server.there.values())
        return stage


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "LOOK_S", 0.0)


def secrets(*names: ObjectName) -> list[ObjectKey]:
    return [ObjectKey("Secret", name) for name in names]


class TestFirstStart:
    def test_it_begins_when_all_is_answered(self):
        stage = Stage(WITH_TLS, SHUT, PLAIN, CERTIFICATE, PASSWORDS, silent=secrets(CERT, USERS))
        stage.server.looks = 200
        stage.loop.serve()
        assert 2.0 < stage.clock.now < SILENCE_S
        assert stage.is_open("shut.test")
        assert "ssl_certificate secrets/" in stage.text("tls.test")
        assert stage.log.getvalue().count("waits") == 0

    def test_what_stays_unanswered_is_named_once_and_all_others_are_served(self):
        more = [ingress(f"m{n}", rule(f"m{n}.test", path()), tls=[tls(f"c{n}", f"m{n}.test")]) for n in range(20)]
        silent = secrets(CERT, USERS, *(ObjectName("default", f"c{n}") for n in range(20)))
        stage = Stage(WITH_TLS, SHUT, PLAIN, *more, silent=silent).turn()
        assert SILENCE_S <= stage.clock.now < FIRST_S
        assert stage.is_open("plain.test")
        assert "ssl_reject_handshake on;" in stage.text("tls.test")
        assert not stage.is_open("shut.test")
        for _ in range(3):
            stage.turn()
        lines = [line for line in stage.log.getvalue().splitlines() if "not answered" in line]
        assert len(lines) == 1
        assert "count=22" in lines[0]
        assert "does not exist" not in stage.log.getvalue()
        assert not stage.events
        stage.server.silent.clear()
        stage.server.put(CERTIFICATE, PASSWORDS, *(tls_secret(f"c{n}", f"m{n}.test") for n in range(20)))
        stage.turn()
        assert "ssl_certificate secrets/" in stage.text("tls.test")
        assert stage.is_open("shut.test")
        assert stage.log.getvalue().count("all objects were read") == 1

    def test_what_is_forbidden_is_not_waited_for(self):
        stage = Stage(WITH_TLS, SHUT, PLAIN, forbidden=secrets(CERT, USERS)).turn()
        assert stage.clock.now < SILENCE_S
        assert stage.is_open("plain.test")
        assert "ssl_reject_handshake on;" in stage.text("tls.test")
        assert not stage.is_open("shut.test")
        assert {event.about.name for event in stage.events} == {"tls", "shut"}
        assert all("denies access to it" in event.note for event in stage.events)
        stage.turn()
        assert len(stage.events) == 2

    @pytest.mark.parametrize("how", ["absent", "silent", "forbidden"])
    def test_without_the_settings_nothing_is_served_and_health_says_so(self, how):
        key = ObjectKey("ConfigMap", SETTINGS)
        there = [RESTRICTED] if how != "absent" else []
        faults = {how: [key]} if how != "absent" else {}
        stage = Stage(PLAIN, *there, config_map=SETTINGS, **faults)
        with pytest.raises(MissingError) as caught:
            stage.turn()
        stage.loop.reports.failure(caught.value, 1.0, is_down=True)
        stage.loop.reports.failure(caught.value, 2.0, is_down=True)
        assert stage.site.live is None
        assert [event.reason for event in stage.events] == ["IngressesNotServed"]
        reply = healthz(stage.loop.state)
        assert reply.status == 503
        assert f"ConfigMap {SETTINGS}" in reply.body
        stage.server.silent.clear()
        stage.server.forbidden.clear()
        stage.server.put(RESTRICTED)
        stage.turn()
        assert "allow 10.0.0.0/8;" in stage.text("plain.test")


def test_after_a_wait_for_answers_the_next_change_is_not_put_off(monkeypatch):
    """The pause before the next reload goes by what a reload costs, not by what the API server makes us wait."""
    for module, name, seconds in (
        (references, "SILENCE_S", 1.0),
        (references, "LOOK_S", 0.01),
        (sync, "BREATH_S", 0.01),
        (sync, "QUIET_S", 0.01),
    ):
        monkeypatch.setattr(module, name, seconds)
    stage = Stage(WITH_TLS, PLAIN, CERTIFICATE, silent=secrets(CERT))
    stage.loop.clock = stage.loop.objects.clock = time.monotonic
    stage.loop.start()
    try:
        assert soon(lambda: stage.site.live and stage.is_open("plain.test"))
        began = time.monotonic()
        stage.server.silent.clear()
        stage.server.answer()
        stage.server.put(site("new.test"))
        stage.loop.touch()
        assert soon(lambda: stage.is_open("new.test") and "ssl_certificate secrets/" in stage.text("tls.test"))
        assert time.monotonic() - began < 2.0  # four times the wait would be 4
    finally:
        stage.loop.stop()


class TestRunning:
    def begun(self, *more, **changes) -> Stage:
        return Stage(WITH_TLS, SHUT, PLAIN, CERTIFICATE, PASSWORDS, *more, **changes).turn()

    def test_an_agent_that_begins_anew_changes_nothing_for_what_is_not_answered(self):
        stage = self.begun()
        again = stage.again(silent=secrets(CERT, USERS))
        again.loop.touch()
        assert not again.loop.serve()
        assert again.site.live == stage.site.live
        assert again.clock.now < SILENCE_S
        assert again.log.getvalue().count("not answered") == 1 + 1  # one line, two objects
        again.server.put(site("new.test"))
        again.turn()
        assert again.is_open("new.test")
        assert again.text("tls.test") == stage.text("tls.test")

    def test_beside_an_nginx_of_which_nothing_is_known_it_waits_for_all_answers(self):
        stage = self.begun()
        again = stage.again(silent=secrets(CERT, USERS))
        again.loop.objects.known = Memory()
        again.server.looks = 8000
        again.loop.touch()
        assert not again.loop.serve()
        assert again.clock.now > FIRST_S
        assert again.site.live == stage.site.live

    def test_the_same_from_disk(self, tmp_path: Path):
        stage = self.begun(RESTRICTED, config_map=SETTINGS, known=NginxKnownObjects(tmp_path))
        assert "allow 10.0.0.0/8;" in stage.text("plain.test")
        again = stage.again(silent=[*secrets(CERT, USERS), ObjectKey("ConfigMap", SETTINGS)])
        again.loop.objects.known = NginxKnownObjects(tmp_path)
        again.loop.touch()
        assert not again.loop.serve()
        assert again.site.live == stage.site.live
        assert oct((tmp_path / "known").stat().st_mode & 0o777) == "0o700"
        assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "known").iterdir()} == {"0o600"}

    def test_what_is_spoilt_on_disk_is_unknown_and_told(self, tmp_path: Path):
        stage = self.begun(known=NginxKnownObjects(tmp_path))
        spoilt = next(path for path in (tmp_path / "known").iterdir() if b'"users"' in path.read_bytes())
        spoilt.write_bytes(spoilt.read_bytes()[:20])
        again = stage.again(silent=secrets(USERS))
        again.loop.objects.known = NginxKnownObjects(tmp_path)
        again.turn()
        assert not again.is_open("shut.test")
        assert "it contains no object" in again.log.getvalue()

    def test_an_ingress_that_names_something_new_is_as_it_was_until_that_is_answered(self):
        stage = self.begun()
        other = ObjectName("default", "other")
        stage.server.silent = set(secrets(other))
        before = stage.text("shut.test"), stage.text("plain.test")
        stage.server.put(site("shut.test", auth_type="basic", auth_secret="other"))
        stage.server.put(site("plain.test", auth_type="basic", auth_secret="other"))
        stage.server.put(site("new.test", auth_type="basic", auth_secret="other"))
        for _ in range(2):
            stage.turn()
            assert (stage.text("shut.test"), stage.text("plain.test")) == before
            assert not stage.text("new.test")
        assert ObjectKey("Secret", USERS) in stage.server.asked
        stage.server.silent.clear()
        stage.server.put(secret("other", auth=b"o:{PLAIN}p\n"))
        stage.turn()
        assert stage.text("shut.test") != before[0]
        assert all("auth_basic_user_file" in stage.text(host) for host in ("shut.test", "plain.test", "new.test"))
        stage.turn()
        assert ObjectKey("Secret", USERS) not in stage.server.asked

    def test_a_secret_that_is_deleted_closes(self):
        stage = self.begun()
        stage.server.delete(PASSWORDS)
        stage.turn()
        assert not stage.is_open("shut.test")
        again = stage.again(silent=secrets(USERS))  # it is not known from before any more
        again.turn()
        assert not again.is_open("shut.test")

    def test_one_that_is_named_again_is_asked_for_anew(self):
        stage = self.begun()
        stage.server.delete(SHUT)
        stage.turn()
        stage.server.delete(PASSWORDS)
        stage.server.silent = set(secrets(USERS))
        stage.server.put(SHUT)
        stage.turn()
        assert not stage.is_open("shut.test")

    def test_so_is_one_that_was_named_before_the_agent_began_anew_with_what_it_knew(self):
        stage = self.begun()
        stage.server.delete(SHUT)
        stage.loop = stage.begin()
        stage.turn()
        stage.server.delete(PASSWORDS)
        stage.server.silent = set(secrets(USERS))
        stage.server.put(SHUT)
        stage.turn()
        assert not stage.is_open("shut.test")


GUARDS = {
    "settings": (RESTRICTED, {"config_map": SETTINGS}, "allow 10.0.0.0/8;"),
    "headers": (config_map("guard", {"X-Frame-Options": "DENY"}), {"config_map": SETTINGS}, "X-Frame-Options"),
    "class": (CLASS, {}, "allow 10.1.0.0/16;"),
    "namespace": (
        k.Namespace(metadata=k.ObjectMeta(name="default", labels={"team": "shop"})),
        {"selection": Selection(namespace_selector=parse_selector("team=shop"))},
        "allow 10.1.0.0/16;",
    ),
    "default certificate": (
        tls_secret("default", "x.test"),
        {"default_certificate": ObjectName("default", "default")},
        "",
    ),
}


@pytest.mark.parametrize("name", GUARDS)
def test_what_restricts_others_and_is_taken_away_restricts_them_still(name, tmp_path):
    guard, changes, sign = GUARDS[name]
    class_name = "mine" if name == "class" else "rulegen"
    shut = ingress(
        "shut",
        rule("shut.test", path()),
        class_name=class_name,
        annotations={"whitelist-source-range": "10.1.0.0/16"} if name in {"class", "namespace"} else {},
    )
    more = [settings_map(add_headers="default/guard")] if name == "headers" else []
    stage = Stage(shut, guard, *more, known=NginxKnownObjects(tmp_path), **changes).turn()
    before = stage.site.live
    everything = "".join(before.files.values())
    assert sign in everything
    stage.server.delete(guard)
    stage.turn()
    assert stage.site.live == before
    key = f"{type(guard).__name__} {guard.metadata.name}"
    events = [event for event in stage.events if event.reason == "ServedAsBefore"]
    assert len(events) == 1
    assert guard.metadata.name in events[0].note, key
    assert "it was deleted: its last known content stays in use" in stage.log.getvalue()
    again = stage.again()
    again.loop.objects.known = NginxKnownObjects(tmp_path)
    again.turn()
    assert again.site.live == before
    stage.server.put(guard)
    stage.turn()
    assert stage.site.live == before
    assert "no longer: " in stage.log.getvalue()


def test_an_ingress_of_another_controller_is_not_ours_when_its_class_is_gone():
    other = k.IngressClass(metadata=k.ObjectMeta(name="rulegen"), spec=k.IngressClassSpec(controller="example.com/x"))
    stage = Stage(other, PLAIN).turn()
    assert not stage.text("plain.test")
    stage.server.delete(other)
    stage.turn()
    assert not stage.text("plain.test")


KEYS = [*secrets(CERT, USERS), ObjectKey("ConfigMap", SETTINGS)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["silent", "forbidden", "delete", "put", "again", "answer"]),
        st.sampled_from(range(len(KEYS))),
    ),
    max_size=8,
)


@settings(max_examples=examples(25), deadline=None)
@given(STEPS)
def test_whatever_the_api_server_says_or_not_nothing_that_is_shut_opens(steps):
    """And once it answers, all is as if it had always answered."""
    objects = [CERTIFICATE, PASSWORDS, RESTRICTED]
    references.LOOK_S = 0.0
    stage = Stage(WITH_TLS, SHUT, PLAIN, *objects, config_map=SETTINGS).turn()
    for what, number in steps:
        key, stored = KEYS[number], objects[number]
        match what:
            case "silent" | "forbidden":
                getattr(stage.server, what).add(key)
            case "delete" if key in stage.server.there and key not in stage.server.silent | stage.server.forbidden:
                stage.server.delete(stored)
            case "put":
                stage.server.put(stored)
            case "again":
                stage = stage.again(silent=stage.server.silent)
            case "answer":
                stage.server.silent.clear()
                stage.server.forbidden.clear()
                stage.server.answer()
        stage.turn()
        assert stage.is_shut("shut.test")
        assert "allow 10.0.0.0/8;" in stage.text("plain.test") + stage.text("shut.test")
        told_gone = ObjectKey("Secret", CERT) in stage.server.cluster.gone()
        assert told_gone or "ssl_certificate secrets/00000" not in stage.text("tls.test")
    stage.server.silent.clear()
    stage.server.forbidden.clear()
    stage.server.put(*objects)
    stage.turn()
    assert stage.site.live == Stage(WITH_TLS, SHUT, PLAIN, *objects, config_map=SETTINGS).turn().site.live
