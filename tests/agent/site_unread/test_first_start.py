"""The first start of the agent's ingress, where the API server answers late, partly or not at all."""

from __future__ import annotations

import time

import pytest

from rulegen.agent.ingress import references, sync
from rulegen.agent.ingress.references import FIRST_S, SILENCE_S
from rulegen.agent.pages_server.health import healthz
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.unread import MissingError
from tests.agent.site_unread.stage import (
    CERT,
    CERTIFICATE,
    PASSWORDS,
    PLAIN,
    RESTRICTED,
    SHUT,
    USERS,
    WITH_TLS,
    Stage,
    secrets,
)
from tests.apiserver.watching import soon
from tests.strategies.ingresses import (
    SETTINGS,
    ingress,
    path,
    rule,
    site,
    tls,
    tls_secret,
)


class TestFirstStart:
    def test_it_begins_when_all_is_answered(self):
        stage = Stage(WITH_TLS, SHUT, PLAIN, CERTIFICATE, PASSWORDS, silent=secrets(CERT, USERS))
        stage.server.looks = 200
        stage.loop.serve()
        assert 2.0 < stage.clock.now < SILENCE_S
        assert stage.is_open("shut.test")
        assert "ssl_certificate secrets/" in stage.text("tls.test")
        assert stage.log.getvalue().count("waits") == 0

    def test_unanswered_objects_are_logged_once_others_served(self):
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
    def test_without_settings_nothing_is_served_and_unhealthy(self, how):
        key = ObjectKey("ConfigMap", SETTINGS)
        there = [RESTRICTED] if how != "absent" else []
        faults = {how: [key]} if how != "absent" else {}
        stage = Stage(PLAIN, *there, config_map=SETTINGS, **faults)
        with pytest.raises(MissingError) as caught:
            stage.turn()
        stage.loop.proxy.look()
        stage.loop.reports.failure(caught.value, 1.0)
        stage.loop.reports.failure(caught.value, 2.0)
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
