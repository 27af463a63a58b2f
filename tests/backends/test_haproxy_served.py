"""What HAProxy does not obey is reported, and closed where it protects; every field has been decided about."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from rulegen.backends.haproxy import obeyed, served
from rulegen.backends.haproxy.obeyed import Obeyed
from rulegen.backends.haproxy.served import disobeyed_by_host, disobeyed_by_path, disobeyed_settings
from rulegen.compiler.ingress.haproxy import compile_haproxy
from rulegen.model.ingress import ir, proxying
from rulegen.model.ingress.ir import (
    BasicAuth,
    ClientAuth,
    Limits,
    LocationPolicy,
    Server,
)
from rulegen.model.ingress.proxying import ProxySSL
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.setting import METADATA, SettingGuard
from rulegen.model.ingress.values.settings import SETTINGS as CONFIG_SETTINGS
from rulegen.model.ingress.values.settings import Settings
from tests.strategies.ingresses import SETTINGS, WEB, ingress, options, path, rule, service, settings_map, site, world


def test_each_annotation_and_each_setting_is_declared():
    assert set(obeyed.ANNOTATIONS) == set(ANNOTATIONS)
    assert set(obeyed.SETTINGS) == set(CONFIG_SETTINGS)


def test_few_annotations_and_settings_have_no_effect():
    rows = [*obeyed.ANNOTATIONS.values(), *obeyed.SETTINGS.values()]
    assert sum(row.how is Obeyed.NOT for row in rows) <= 18
    assert [row for row in rows if (row.how is Obeyed.AS_NGINX) == bool(row.words)] == []


def test_no_setting_that_protects_is_without_effect():
    guarded = ((field.name, field.metadata[METADATA].guards) for field in fields(Settings))
    protecting = {name for name, guards in guarded if guards is not SettingGuard.NOTHING}
    assert protecting
    assert not protecting & served.SETTINGS_NOT


@pytest.mark.parametrize("kind", served.DECLARED, ids=lambda kind: kind.__name__)
def test_every_field_of_the_model_is_declared(kind):
    """A new field of the model is obeyed by HAProxy only where somebody has said so."""
    assert set(served.DECLARED[kind]) == {field.name for field in fields(kind)}


def test_every_part_of_the_model_is_declared():
    """What is not: the whole model, its files, and the values of fields that HAProxy does not obey."""
    kinds = [value for module in (ir, proxying) for value in vars(module).values() if isinstance(value, type)]
    own = {kind for kind in kinds if is_dataclass(kind) and kind.__module__ in {ir.__name__, proxying.__name__}}
    disobeyed = {proxying.AuthCache, ir.ClientAuth, ir.ErrorPages, ir.ExternalAuth, ir.Mirror}
    assert own == {*served.DECLARED, *disobeyed, ir.IngressModel, ir.SecretFile} - {Settings}


def test_no_field_is_declared_twice():
    pairs = [(kind, name) for kind, names in (*served._AS_NGINX, *served._OTHERWISE) for name in names.split()]
    reported = ((LocationPolicy, served._POLICY_NOT), (Server, served._SERVER_NOT))
    reported += ((Limits, served._LIMITS_NOT), (Settings, served.SETTINGS_NOT))
    pairs += [(kind, name) for kind, names in reported for name in names]
    assert sorted(pairs, key=str) == sorted(set(pairs), key=str)


def test_a_method_that_no_auth_server_can_be_asked_with_closes_the_path():
    asked = site(auth_url="http://auth.test/", auth_method="PATCH")
    made = compile_haproxy(world(*WEB, asked), options(), served=False)
    closed = [reason.message for reason in made.model.reasons if reason.verdict is Verdict.CLOSED]
    assert [text for text in closed if "no requests with method PATCH" in text]


def test_a_host_whose_certificate_is_unread_is_closed():
    assert [how for how, _ in disobeyed_by_host(Server(host="a", rejects_tls=True))] == [Obeyed.CLOSES]


def test_long_chains_of_certificates_of_clients_are_reported():
    assert [how for how, _ in disobeyed_by_host(Server(host="a", client_auth=ClientAuth(ca="")))] == [Obeyed.NOT]


@pytest.mark.parametrize(
    "policy",
    [
        LocationPolicy(limits=Limits(rate=1)),
        LocationPolicy(connection_header="close"),
        LocationPolicy(rewrite_log=True),
        LocationPolicy(proxy_ssl=ProxySSL(verify=True, ca="a", name="b")),
    ],
    ids=["rate", "connection_header", "rewrite_log", "proxy_ssl_verify"],
)
def test_what_has_no_effect_is_reported(policy):
    assert [how for how, _ in disobeyed_by_path(policy)] == [Obeyed.NOT]


def test_what_is_obeyed_is_not_reported():
    policy = LocationPolicy(basic_auth=BasicAuth(realm="a", file="b"), rewrite_target="/x", limits=Limits(rps=1))
    assert not list(disobeyed_by_path(policy))
    assert not list(disobeyed_by_host(Server(host="a", has_tls=True)))
    assert not list(disobeyed_settings(Settings()))


def test_a_setting_without_effect_is_reported_by_its_key():
    assert list(disobeyed_settings(Settings(limit_rate=8))) == ["limit-rate"]


def _messages(*objects, **settings):
    given = world(*WEB, *objects, settings_map(**settings))
    made = compile_haproxy(given, options(config_map=SETTINGS), served=False)
    return [(reason.verdict, reason.message) for reason in made.model.reasons if reason.about is not None]


def _named(messages, text):
    return [verdict for verdict, message in messages if text in message]


def test_a_speed_that_is_not_limited_is_reported_for_its_ingress():
    assert _named(_messages(site(limit_rate="8")), "how fast") == [Verdict.UNSUPPORTED]
    assert not _named(_messages(site()), "how fast")


def test_a_client_that_a_cookie_does_not_keep_at_a_canary_is_reported():
    cookie = {"affinity": "cookie", "affinity-mode": "persistent"}
    main = ingress("site", rule("site.test"), annotations=cookie)
    canary = ingress("canary", rule("site.test"), annotations={"canary": "true", "canary-weight": "10"})
    plain = ingress("site", rule("site.test"))

    assert _named(_messages(main, canary), "cookie for affinity") == [Verdict.UNSUPPORTED]
    assert not _named(_messages(main), "cookie for affinity")
    assert not _named(_messages(plain, canary), "cookie for affinity")


@pytest.mark.parametrize(
    ("weight", "total", "least"),
    [(1, 2_000_000_000, 1), (1_999_999_999, 2_000_000_000, 9999), (25, 100, 2500), (5, 5, 500)],
)
def test_a_share_near_none_is_not_none_and_near_all_not_all(weight, total, least):
    annotations = {"canary": "true", "canary-weight": str(weight), "canary-weight-total": str(max(total, 100))}
    canary = ingress("canary", rule("site.test"), annotations=annotations)
    made = compile_haproxy(world(*WEB, site(), canary), options(), served=False)
    assert made.configuration.files["maps/canaries.map"].split(";")[1] == str(least)


def test_a_name_of_a_service_is_an_entry_of_a_map_that_backends_resolve():
    far = service("far", type="ExternalName", cluster_ip="", external_name="far.test", ports=())
    canary = ingress(
        "canary", rule("site.test", path(to="far")), annotations={"canary": "true", "canary-by-cookie": "try"}
    )
    made = compile_haproxy(world(*WEB, far, site(), canary), options(), served=False)
    entry = made.configuration.files["maps/names.map"].split()
    text = made.configuration.files["haproxy.cfg"]
    assert entry[1:] == ["far.test"]
    assert f"\nbackend {entry[0]}\n" in text
    assert "far.test" not in text
    assert "set-dst var(txn.address)" in text.partition(f"backend {entry[0]}\n")[2].partition("\nbackend ")[0]


@pytest.mark.parametrize(
    ("annotations", "without_effect", "answers_411"),
    [
        ({}, [], [Verdict.NOTE]),
        ({"proxy_body_size": "8m"}, [], [Verdict.NOTE]),
        ({"proxy_body_size": "0"}, [], []),
        ({"backend_protocol": "GRPC"}, [Verdict.UNSUPPORTED], []),
        ({"backend_protocol": "GRPC", "proxy_body_size": "0"}, [], []),
        ({"temporal_redirect": "https://a.test"}, [], []),
    ],
    ids=["default", "limit", "no-limit", "grpc", "grpc-no-limit", "redirect"],
)
def test_what_a_limit_on_bodies_does_is_reported(annotations, without_effect, answers_411):
    messages = _messages(site(**annotations))

    assert _named(messages, "no effect with gRPC") == without_effect
    assert _named(messages, "411") == answers_411
