"""The running agent's ingress, where the API server is slow, silent or refuses: unknown is not absent or open."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.agent.ingress.references import FIRST_S, SILENCE_S, Memory
from rulegen.host.proxy.disk.last_read import StoredObjects
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.selector import parse_selector
from rulegen.model.ingress.values.classes import Selection
from tests.agent.site_unread.stage import (
    CERT,
    CERTIFICATE,
    CLASS,
    PASSWORDS,
    PLAIN,
    RESTRICTED,
    SHUT,
    USERS,
    WITH_TLS,
    Stage,
    secrets,
)
from tests.strategies.ingresses import (
    SETTINGS,
    config_map,
    ingress,
    path,
    rule,
    secret,
    settings_map,
    site,
    tls_secret,
)


class TestRunning:
    def begun(self, *more, **changes) -> Stage:
        return Stage(WITH_TLS, SHUT, PLAIN, CERTIFICATE, PASSWORDS, *more, **changes).turn()

    def test_a_restart_changes_nothing_while_unanswered(self):
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

    def test_an_ingress_that_becomes_invalid_is_closed_until_it_is_valid_or_deleted(self):
        wild = ingress("wild", rule("*.test", path()))
        stage = self.begun(wild)
        assert stage.is_open("*.test")
        stage.server.put(ingress("shut", rule("shut.test", path()), annotations=dict.fromkeys(("not a key",), "")))
        stage.turn()
        assert not stage.is_open("shut.test")
        assert "503" in stage.text("shut.test")
        stage.server.put(ingress("shut", rule("shut.test", path())))
        stage.turn()
        assert stage.is_open("shut.test")
        broken = ingress("broken", rule("new.test", path()), annotations={"not a key": ""})
        stage.server.put(broken)
        assert "503" in stage.turn().text("new.test")
        stage.server.delete(broken)
        assert not stage.turn().text("new.test")

    def test_with_an_unknown_nginx_it_waits_for_all_answers(self):
        stage = self.begun()
        again = stage.again(silent=secrets(CERT, USERS))
        again.loop.objects.known = Memory()
        again.server.looks = 8000
        again.loop.touch()
        assert not again.loop.serve()
        assert again.clock.now > FIRST_S
        assert again.site.live == stage.site.live

    def test_the_same_from_disk(self, tmp_path: Path):
        stage = self.begun(RESTRICTED, config_map=SETTINGS, known=StoredObjects(tmp_path))
        assert "allow 10.0.0.0/8;" in stage.text("plain.test")
        again = stage.again(silent=[*secrets(CERT, USERS), ObjectKey("ConfigMap", SETTINGS)])
        again.loop.objects.known = StoredObjects(tmp_path)
        again.loop.touch()
        assert not again.loop.serve()
        assert again.site.live == stage.site.live
        assert oct((tmp_path / "known").stat().st_mode & 0o777) == "0o700"
        assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "known").iterdir()} == {"0o600"}

    def test_a_damaged_file_counts_as_unknown_and_is_logged(self, tmp_path: Path):
        stage = self.begun(known=StoredObjects(tmp_path))
        spoilt = next(path for path in (tmp_path / "known").iterdir() if b'"users"' in path.read_bytes())
        spoilt.write_bytes(spoilt.read_bytes()[:20])
        again = stage.again(silent=secrets(USERS))
        again.loop.objects.known = StoredObjects(tmp_path)
        again.turn()
        assert not again.is_open("shut.test")
        assert "it contains no object" in again.log.getvalue()

    def test_a_new_reference_applies_only_once_it_is_answered(self):
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
            assert "return 503" in stage.text("new.test")  # closed, so that no other Ingress gets its requests
            assert not stage.is_open("new.test")
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

    def test_a_restart_opens_nothing_while_passwords_are_unread(self):
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
def test_a_deleted_restricting_object_still_restricts(name, tmp_path):
    guard, changes, sign = GUARDS[name]
    class_name = "mine" if name == "class" else "rulegen"
    shut = ingress(
        "shut",
        rule("shut.test", path()),
        class_name=class_name,
        annotations={"whitelist-source-range": "10.1.0.0/16"} if name in {"class", "namespace"} else {},
    )
    more = [settings_map(add_headers="default/guard")] if name == "headers" else []
    stage = Stage(shut, guard, *more, known=StoredObjects(tmp_path), **changes).turn()
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
    again.loop.objects.known = StoredObjects(tmp_path)
    again.turn()
    assert again.site.live == before
    stage.server.put(guard)
    stage.turn()
    assert stage.site.live == before
    assert "no longer: " in stage.log.getvalue()


def test_an_ingress_of_a_deleted_foreign_class_is_not_served():
    other = k.IngressClass(metadata=k.ObjectMeta(name="rulegen"), spec=k.IngressClassSpec(controller="example.com/x"))
    stage = Stage(other, PLAIN).turn()
    assert not stage.text("plain.test")
    stage.server.delete(other)
    stage.turn()
    assert not stage.text("plain.test")


UNREADABLE = (
    {"whitelist_source_range": "10.0.0.0/33"},
    {"block_cidrs": "10.0.0.0/33"},
    {"block_user_agents": "~("},
    {"block_referers": "~("},
    {"proxy_real_ip_cidr": "10.0.0.0/33"},
    {"bind_address": "everywhere"},
    {"global_auth_url": "http://localhost/"},
)


@pytest.mark.parametrize("data", UNREADABLE, ids=lambda data: next(iter(data)))
def test_a_setting_that_restricts_access_and_cannot_be_read_leaves_the_one_of_before_in_use(data):
    (key,) = data
    good = settings_map(block_cidrs="203.0.113.9", proxy_read_timeout="7")
    stage = Stage(PLAIN, good, config_map=SETTINGS).turn()
    before = stage.site.live
    for _ in range(2):
        stage.server.put(settings_map(**data, proxy_read_timeout="9"))
        stage.turn()
        assert stage.site.live == before
    (event,) = (event for event in stage.events if event.reason == "SettingsNotUsed")
    assert event.about.kind == "Node"
    assert key.replace("_", "-") in event.note
    assert key.replace("_", "-") in stage.log.getvalue()
    # Ingresses change as ever, with the settings that could be read.
    stage.server.put(ingress("later", rule("later.test", path())))
    stage.turn()
    assert stage.is_open("later.test")
    assert "deny 203.0.113.9;" in "".join(stage.site.live.files.values())
    stage.server.put(settings_map(proxy_read_timeout="9"))
    stage.turn()
    assert "deny 203.0.113.9;" not in "".join(stage.site.live.files.values())
    assert "no longer waiting" in stage.log.getvalue()
    assert stage.is_open("plain.test")


def test_an_invalid_key_of_the_auth_server_leaves_the_server_of_before_in_use():
    asked = {"global_auth_url": "http://192.0.2.80/check", "global_auth_signin": "https://sso.test/"}
    stage = Stage(PLAIN, settings_map(**asked), config_map=SETTINGS).turn()
    before = stage.site.live
    assert "auth_request " in stage.text("plain.test")
    stage.server.put(settings_map(**asked | {"global_auth_signin": "javascript:alert(1)"}))
    assert stage.turn().site.live == before
    (event,) = (event for event in stage.events if event.reason == "SettingsNotUsed")
    assert "global-auth-signin" in event.note
    again = stage.again()  # a restart knows no earlier settings
    assert "503" in again.turn().text("plain.test")
    stage.server.put(settings_map(**asked | {"global_auth_signin": "https://new.test/"}))
    assert "new.test" in stage.turn().text("plain.test")


@pytest.mark.parametrize("data", UNREADABLE, ids=lambda data: next(iter(data)))
def test_without_settings_of_before_one_that_cannot_be_read_closes(data):
    stage = Stage(PLAIN, settings_map(**data), config_map=SETTINGS).turn()
    assert not stage.is_open("plain.test")
    stage.server.put(settings_map(**data, proxy_read_timeout="9"))
    stage.turn()
    assert not stage.is_open("plain.test")
    stage.server.put(settings_map())
    stage.turn()
    assert stage.is_open("plain.test")


def test_a_setting_that_closes_ingresses_is_an_event_of_the_node():
    stage = Stage(PLAIN, settings_map(whitelist_source_range="10.0.0.0/33"), config_map=SETTINGS).turn()
    assert not stage.is_open("plain.test")
    (event,) = (event for event in stage.events if event.reason == "IngressesClosed")
    assert event.about.kind == "Node"
    assert "whitelist-source-range" in event.note
