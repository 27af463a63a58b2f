"""What HAProxy does not obey is reported, and closed where it protects; every field has been decided about."""

from __future__ import annotations

from dataclasses import fields

import pytest

from rulegen.backends.haproxy import served
from rulegen.backends.haproxy.served import Obeyed, disobeyed_by_host, disobeyed_by_path, disobeyed_settings
from rulegen.model.ingress.ir import BasicAuth, ClientAuth, ExternalAuth, Limits, LocationPolicy, Server
from rulegen.model.ingress.proxying import Proxying
from rulegen.model.ingress.values.readers import Url
from rulegen.model.ingress.values.setting import METADATA, SettingGuard
from rulegen.model.ingress.values.settings import Settings
from rulegen.model.ingress.values.texts import NO_TEXT, literal


def test_no_setting_that_protects_is_without_effect():
    guarded = ((field.name, field.metadata[METADATA].guards) for field in fields(Settings))
    protecting = {name for name, guards in guarded if guards is not SettingGuard.NOTHING}
    assert protecting
    assert not protecting & served.SETTINGS_NOT


def test_the_table_names_fields_that_exist():
    assert {field.name for field in fields(Settings)} >= served.SETTINGS_NOT
    assert set(served.POLICY) == {field.name for field in fields(LocationPolicy)}
    assert {field.name for field in fields(Proxying)} >= served._PROXYING_NOT
    assert {field.name for field in fields(Server)} >= served._SERVER_NOT.keys()


@pytest.mark.parametrize(
    "policy",
    [LocationPolicy(external_auth=ExternalAuth(url=Url("http", literal("a.test"), 0, NO_TEXT)))],
    ids=["external_auth"],
)
def test_a_path_that_only_an_auth_server_opens_is_closed(policy):
    assert [how for how, _ in disobeyed_by_path(policy)] == [Obeyed.CLOSES]


@pytest.mark.parametrize(
    "server",
    [Server(host="a", client_auth=ClientAuth(ca="")), Server(host="a", rejects_tls=True)],
    ids=["client_auth", "rejects_tls"],
)
def test_a_host_that_only_certificates_open_is_closed(server):
    assert [how for how, _ in disobeyed_by_host(server)] == [Obeyed.CLOSES]


@pytest.mark.parametrize(
    "policy",
    [
        LocationPolicy(limits=Limits(rate=1)),
        LocationPolicy(proxying=Proxying(buffers_answers=True)),
        LocationPolicy(cookie_path=("/a", "/b")),
    ],
    ids=["rate", "buffering", "cookie_path"],
)
def test_what_has_no_effect_is_reported(policy):
    assert [how for how, _ in disobeyed_by_path(policy)] == [Obeyed.NOT]


def test_what_is_obeyed_is_not_reported():
    policy = LocationPolicy(basic_auth=BasicAuth(realm="a", file="b"), rewrite_target="/x", limits=Limits(rps=1))
    assert not list(disobeyed_by_path(policy))
    assert not list(disobeyed_by_host(Server(host="a", has_tls=True)))
    assert not list(disobeyed_settings(Settings()))


def test_a_setting_without_effect_is_reported_by_its_key():
    assert list(disobeyed_settings(Settings(use_gzip=True))) == ["use-gzip"]
