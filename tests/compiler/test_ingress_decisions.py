"""Decisions about Ingresses: whose they are, who wins, what is closed, where requests go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.selector import parse_selector
from rulegen.model.ingress.ir import FixedResponse
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.annotation import CLOSE
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.classes import Selection
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    API,
    HTPASSWD,
    NAMED,
    SETTINGS,
    WEB,
    certificate,
    compiled,
    config_map,
    endpoints,
    file_of,
    ingress,
    key_pem,
    path,
    refusal,
    reported,
    rule,
    secret,
    service,
    settings_map,
    site,
    text_of,
    verdicts,
)

if TYPE_CHECKING:
    from rulegen.compiler.ingress.nginx import NginxSite

GROUND = (*WEB, *API, *NAMED)


def classed(name: str | None = None, legacy: str | None = None, namespace: str = "default") -> k.Ingress:
    reported = {} if legacy is None else {"kubernetes.io/ingress.class": legacy}
    return ingress("site", rule("site.test"), class_name=name, annotations=reported, namespace=namespace)


def class_of(name: str, controller: str) -> k.IngressClass:
    return k.IngressClass(metadata=k.ObjectMeta(name=name), spec=k.IngressClassSpec(controller=controller))


OURS, OTHERS = class_of("ours", "rulegen.io/ingress"), class_of("others", "example.com/x")


@pytest.mark.parametrize(
    ("each", "selection", "is_ours"),
    [
        (classed("ours"), Selection(), True),
        (classed("others"), Selection(), False),
        (classed("gone"), Selection(), False),
        (classed("rulegen"), Selection(), True),
        (classed(), Selection(), False),
        (classed(), Selection(without_class=True), True),
        (classed(legacy="rulegen"), Selection(), True),
        (classed(legacy="nginx"), Selection(), False),
        (classed(legacy="nginx"), Selection(class_name="nginx"), True),
        (classed("others", legacy="rulegen"), Selection(), False),
        (classed("ours", legacy="nginx"), Selection(), True),
        (classed("others"), Selection(controller="example.com/x"), True),
        (classed("others"), Selection(class_name="others", by_name=True), True),
        (classed("others"), Selection(class_name="others"), False),
        (classed(legacy=""), Selection(without_class=True), False),
        (classed("ours"), Selection(namespaces=frozenset({"shop"})), False),
        (classed("ours"), Selection(namespaces=frozenset({"default"})), True),
        (classed("ours"), Selection(namespace_selector=parse_selector("team in (shop, blog)")), True),
        (classed("ours"), Selection(namespace_selector=parse_selector("team!=shop")), False),
        (classed("ours", namespace="unknown"), Selection(namespace_selector=parse_selector("!team")), False),
    ],
)
def test_whose_an_ingress_is(each, selection, is_ours):
    team = k.Namespace(metadata=k.ObjectMeta(name="default", labels={"team": "shop"}))
    result = compiled(*GROUND, OURS, OTHERS, team, each, selection=selection)
    assert (file_of("site.test") in result.configuration.files) is is_ours
    assert (verdicts(result, f"{each.metadata.namespace}/site") == {Verdict.SKIPPED}) is not is_ours


# -- conflicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        (("a", "2026-01-02T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), "b"),
        (("a", "2026-01-01T00:00:00Z"), ("b", "2026-01-02T00:00:00Z"), "a"),
        (("a", "2026-01-01T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), "a"),
        (("b", None), ("a", None), "a"),
        (("a", None), ("b", "2026-01-01T00:00:00Z"), "b"),
    ],
)
def test_the_oldest_wins_and_the_conflict_is_reported(first, second, winner):
    result = compiled(
        *GROUND,
        *(ingress(name, rule("site.test", path(to="web")), created=created) for name, created in (first, second)),
    )
    loser = ({"a", "b"} - {winner}).pop()
    owners = {location.ingress.name for location in result.model.servers["site.test"].locations if location.ingress}
    assert owners == {winner}
    (reason,) = reported(result, f"default/{loser}")
    assert reason.verdict is Verdict.LOST
    assert f"default/{winner}" in reason.message


def test_paths_of_several_ingresses_come_together():
    result = compiled(
        *GROUND,
        ingress("a", rule("site.test", path("/a"))),
        ingress("b", rule("site.test", path("/b", to="api")), namespace="default"),
    )
    paths = {location.path: location.ingress for location in result.model.servers["site.test"].locations}
    assert paths["/a/"].name == "a"
    assert paths["/b/"].name == "b"


def test_an_alias_never_takes_a_host_of_another():
    result = compiled(*GROUND, site("victim.test"), site(server_alias="victim.test, free.test"))
    assert result.model.servers["site.test"].aliases == ("free.test",)
    assert Verdict.LOST in verdicts(result)


def _on_the_same_host(namespace: str, **annotations: str) -> NginxSite:
    """Return a site, and a younger Ingress with another path of its host."""
    reported = {key.replace("_", "-"): text for key, text in annotations.items()}
    there = (service("web", namespace=namespace), endpoints("web", namespace=namespace))
    guest = ingress(
        "guest",
        rule("site.test", path("/guest")),
        annotations=reported,
        namespace=namespace,
        created="2026-01-02T00:00:00Z",
    )
    return compiled(*GROUND, *(there if namespace != "default" else ()), site(), guest)


@pytest.mark.parametrize("annotations", [{"app_root": "/guest"}, {"ssl_ciphers": "AES128-SHA"}])
def test_only_the_first_namespace_of_a_host_decides_for_it_all(annotations):
    own, foreign = (_on_the_same_host(namespace, **annotations) for namespace in ("default", "other"))
    written = next(iter(annotations.values()))
    assert written in (own.model.servers["site.test"].app_root, own.model.servers["site.test"].ciphers)
    server = foreign.model.servers["site.test"]
    assert (server.app_root, server.ciphers) == ("", "")
    assert verdicts(foreign, "other/guest") - {Verdict.NOTE} == {Verdict.LOST}


@pytest.mark.parametrize(
    ("annotations", "settings", "says"),
    [
        ({}, {}, "requests over HTTP need no client certificate"),
        ({"ssl-redirect": "false", "force-ssl-redirect": "true"}, {}, ""),
        ({"force-ssl-redirect": "true"}, {}, ""),
        (
            {"force-ssl-redirect": "true"},
            {"use_forwarded_headers": "true", "proxy_real_ip_cidr": "10.0.0.0/8"},
            "requests over HTTP with the header X-Forwarded-Proto: https need no client certificate",
        ),
        ({"auth-tls-verify-client": "optional"}, {}, ""),
    ],
)
def test_what_needs_no_client_certificate_is_reported(annotations, settings, says):
    """As in ingress-nginx, requests over HTTP are served where they are not redirected."""
    texts = {key.replace("-", "_"): text for key, text in {"auth-tls-secret": "ca", **annotations}.items()}
    made = compiled(*WEB, *NAMED, site(**texts), settings_map(**settings))
    assert [reason.message for reason in reported(made) if says and says in reason.message] == [
        reason.message for reason in reported(made)
    ]
    assert bool(reported(made)) is bool(says)
    assert "return 403" not in text_of(made)


@pytest.mark.parametrize("secret_name", ["gone", "ca"])
def test_a_guest_closes_nothing_but_its_own_paths(secret_name):
    result = _on_the_same_host("other", auth_tls_secret=secret_name)
    server = result.model.servers["site.test"]
    assert server.client_auth is None
    closed = {location.path for location in server.locations if location.target == FixedResponse(503)}
    assert closed == {"/guest", "/guest/"}
    assert Verdict.CLOSED in verdicts(result, "other/guest")
    assert not reported(result)
    own = _on_the_same_host("default", auth_tls_secret=secret_name)
    assert own.model.servers["site.test"].client_auth is not None


def test_one_ingress_is_not_let_fill_the_memory_of_every_node():
    result = compiled(*GROUND, site("b.test"), ingress("site", *(rule(f"h{n}.test") for n in range(2501))))
    assert verdicts(result) == {Verdict.REJECTED}
    assert set(result.model.servers) == {"", "b.test"}


# -- protection --------------------------------------------------------------------------------------------------------

BASIC = {"auth-type": "basic", "auth-secret": "users"}
EXTERNAL = {"auth-url": "http://api.default.svc/check"}
BROKEN = [
    {"auth-type": "digest", "auth-secret": "users"},
    {"auth-type": "Basic", "auth-secret": "users"},
    {"auth-type": ""},
    {"auth-type": "basic"},
    {"auth-type": "basic", "auth-secret": "gone"},
    {"auth-type": "basic", "auth-secret": "other/users"},
    {"auth-type": "basic", "auth-secret": "../users"},
    {"auth-type": "basic", "auth-secret": "cert"},
    {"auth-type": "basic", "auth-secret": "broken"},
    {**BASIC, "auth-secret-type": "auth-map-x"},
    {**BASIC, "auth-realm": "off"},
    {**BASIC, "auth-realm": "a\nb"},
    {**BASIC, "satisfy": "some"},
    {"auth-url": ""},
    {"auth-url": "not a url"},
    {"auth-url": "http://localhost/x"},
    {"auth-url": "http://127.0.0.1/x"},
    {"auth-url": "http://[::1]:8080/x"},
    {"auth-url": "http://[::ffff:127.0.0.1]/x"},
    {"auth-url": "http://169.254.169.254/x"},
    {"auth-url": "http://0/x"},
    {"auth-url": "http://2130706433/x"},
    {"auth-url": "http://0x7f.1/x"},
    {"auth-url": "http://unix:/run/x.sock:/"},
    {"auth-url": "http://$http_host/x"},
    {"auth-url": "http://$arg_h/x"},
    {"auth-url": "http://a.test/$http_cookie"},
    {"auth-url": "http://empty.default.svc/"},
    {**EXTERNAL, "auth-method": "get"},
    {**EXTERNAL, "auth-signin": "http://a.test/?c=$http_authorization"},
    {**EXTERNAL, "auth-signin": "javascript:x"},
    {**EXTERNAL, "auth-signin": "http://a.test/", "auth-signin-redirect-param": "a b"},
    {**EXTERNAL, "auth-response-headers": "X-A: b"},
    {**EXTERNAL, "auth-response-headers": "X-A, Content-Length"},
    {**EXTERNAL, "auth-response-headers": "transfer-encoding"},
    {**EXTERNAL, "auth-proxy-set-headers": "gone"},
    {**EXTERNAL, "auth-proxy-set-headers": "other/headers"},
    {**EXTERNAL, "auth-proxy-set-headers": "framing"},
    {**EXTERNAL, "auth-request-redirect": "$http_cookie"},
    {**EXTERNAL, "auth-always-set-cookie": "maybe"},
    {**EXTERNAL, "auth-cache-key": "$remote_user'"},
    {**EXTERNAL, "auth-cache-key": "$request_uri"},
    {**EXTERNAL, "auth-cache-key": "$http_authorization", "auth-cache-duration": "5m 200"},
    {"auth-tls-secret": ""},
    {"auth-tls-secret": "gone"},
    {"auth-tls-secret": "users"},
    {"auth-tls-secret": "ca", "auth-tls-match-cn": "(CN=x"},
    {"auth-tls-secret": "ca", "auth-tls-match-cn": "CN=("},
    {"auth-tls-secret": "ca", "auth-tls-verify-client": "sometimes"},
    {"auth-tls-secret": "ca", "auth-tls-verify-depth": "-1"},
    {"auth-tls-secret": "ca", "auth-tls-pass-certificate-to-upstream": "maybe"},
    {"auth-tls-secret": "ca", "auth-tls-error-page": "http://x.test/;return 418;"},
    {"whitelist-source-range": "10.0.0.300"},
    {"whitelist-source-range": ""},
    {"allowlist-source-range": "10.0.0.0/8,,x"},
    {"allowlist-source-range": "", "whitelist-source-range": "10.0.0.0/8"},
    {"denylist-source-range": "everyone"},
    {"limit-rps": "many"},
    {"limit-rpm": "1.5"},
    {"limit-connections": "ten"},
    {"custom-headers": "gone"},
    {"custom-headers": "headers"},
    {"custom-headers": "framing"},
    {"proxy-ssl-secret": ""},
    {"proxy-ssl-secret": "gone"},
    {"proxy-ssl-secret": "users"},
    {"proxy-ssl-secret": "key-alone"},
    {"proxy-ssl-secret": "pair", "proxy-ssl-verify": "on"},
    {"proxy-ssl-verify": "on"},
    {"proxy-ssl-verify": "yes", "proxy-ssl-secret": "upstream"},
    {"proxy-ssl-ciphers": "a;b"},
    {"proxy-ssl-name": "a;b"},
    {"proxy-ssl-protocols": "TLSv2"},
    {"proxy-ssl-server-name": "yes"},
    {"proxy-ssl-verify-depth": "x"},
]


@pytest.mark.parametrize(
    "annotations", BROKEN, ids=lambda reported: " ".join(f"{key}={text}" for key, text in reported.items())
)
def test_what_protects_and_cannot_be_read_lets_nobody_in(annotations):
    result = compiled(
        *GROUND,
        service("empty"),
        secret("broken", auth=b"no password file"),
        secret("users", "other", auth=HTPASSWD),
        secret("key-alone", tls_key=key_pem(), ca_crt=certificate("ca.test", is_ca=True)),
        secret("pair", tls_crt=certificate("site.test"), tls_key=key_pem(), ca_crt=b""),
        config_map("framing", {"Content-Length": "0"}),
        config_map("headers", {"X-A": "b"}, "other"),
        ingress("site", rule("site.test", path(), path("/x", "Exact")), rule("b.test"), annotations=annotations),
    )
    for host in ("site.test", "b.test"):
        assert not re.search(r"_pass \S", text_of(result, host))
        assert all(
            location.target == FixedResponse(503)
            for location in result.model.servers[host].locations
            if location.ingress
        )
    assert any(reason.verdict is Verdict.CLOSED for reason in reported(result))


def test_every_annotation_that_protects_is_broken_above():
    closing = {name for name, annotation in ANNOTATIONS.items() if annotation.invalid is CLOSE}
    tried = {name for annotations in BROKEN for name in annotations}
    assert closing - tried == {"fastcgi-params-configmap"}


@pytest.mark.parametrize(
    ("name", "annotations", "written"),
    [
        ("pair", {}, ("proxy_ssl_certificate ", "proxy_ssl_certificate_key ", "proxy_ssl_verify off")),
        ("ca", {"proxy-ssl-verify": "on"}, ("proxy_ssl_trusted_certificate ", "proxy_ssl_verify on")),
    ],
)
def test_a_secret_for_backends_may_hold_only_one_of_the_two(name, annotations, written):
    result = compiled(
        *GROUND,
        secret("pair", tls_crt=certificate("site.test"), tls_key=key_pem()),
        ingress(
            "site", rule("site.test"), annotations={"backend-protocol": "HTTPS", "proxy-ssl-secret": name} | annotations
        ),
    )
    assert not reported(result)
    assert all(text in text_of(result) for text in written)
    assert ("proxy_ssl_certificate" in text_of(result)) is (name == "pair")


@pytest.mark.parametrize(
    ("given", "depth"), [({}, 1), ({"proxy-ssl-verify-depth": "0"}, 1), ({"proxy-ssl-verify-depth": "3"}, 3)]
)
def test_certificates_of_backends_are_verified_to_a_depth_of_one_unless_another_is_set(given, depth):
    asked = {"backend-protocol": "HTTPS", "proxy-ssl-secret": "upstream", "proxy-ssl-verify": "on", **given}
    result = compiled(*GROUND, ingress("site", rule("site.test"), annotations=asked))
    assert f"proxy_ssl_verify_depth {depth};" in text_of(result)


@pytest.mark.parametrize(
    ("annotations", "written"),
    [
        (BASIC, "auth_basic_user_file secrets/"),
        ({**BASIC, "auth-realm": 'a "b" \\'}, r'auth_basic "a \\\"b\\\" \\\\";'),
        ({"auth-tls-secret": "ca"}, "proxy_set_header ssl-client-issuer-dn $ssl_client_i_dn;"),
        (EXTERNAL, "auth_request //rulegen/auth/"),
        ({"allowlist-source-range": "10.0.0.0/8"}, "deny all;"),
        ({"denylist-source-range": "10.0.0.0/8"}, "deny 10.0.0.0/8;"),
        ({"auth-tls-secret": "ca"}, "ssl_verify_client on;"),
        ({"proxy-ssl-secret": "upstream", "proxy-ssl-verify": "on"}, "proxy_ssl_verify on;"),
    ],
)
def test_what_protects_and_can_be_read_stands_with_every_path(annotations, written):
    result = compiled(
        *GROUND, ingress("site", rule("site.test", path("/a"), path("/b", "Exact")), annotations=annotations)
    )
    text = text_of(result)
    assert written in text
    if not written.startswith("ssl_"):
        assert text.count(written) >= sum("default.web" in line for line in text.splitlines() if "proxy_pass" in line)


@pytest.mark.parametrize(
    ("own", "everywhere", "expected"),
    [
        ({}, {"whitelist-source-range": "10.0.0.0/8"}, ["allow 10.0.0.0/8", "deny all"]),
        (
            {"allowlist-source-range": "192.0.2.1"},
            {"whitelist-source-range": "10.0.0.0/8"},
            ["allow 192.0.2.1", "deny all"],
        ),
        ({"denylist-source-range": "192.0.2.1"}, {"denylist-source-range": "10.0.0.0/8"}, ["deny 192.0.2.1"]),
        ({"denylist-source-range": "192.0.2.1"}, {"block-cidrs": "10.0.0.0/8"}, ["deny 10.0.0.0/8", "deny 192.0.2.1"]),
        (
            {"allowlist-source-range": "10.1.0.0/16", "denylist-source-range": "10.1.2.3"},
            {},
            ["deny 10.1.2.3", "allow 10.1.0.0/16", "deny all"],
        ),
    ],
)
def test_who_may_of_one_and_of_all(own, everywhere, expected):
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test"), annotations=own),
        config_map(SETTINGS.name, everywhere, SETTINGS.namespace),
    )
    assert re.findall(r"(?:allow|deny) [^;]+", text_of(result)) == expected


def test_a_canary_can_require_client_certificates():
    canary = {"canary": "true", "canary-weight": "10", "auth-tls-secret": "ca"}
    result = compiled(
        *GROUND, site(), ingress("canary", rule("site.test", path(to="api")), annotations=canary, created=None)
    )
    assert "ssl_verify_client on;" in text_of(result)


# -- canaries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "share"),
    [
        ({"canary-weight": "0"}, 0),
        ({"canary-weight": "20"}, 20),
        ({"canary-weight": "100"}, 100),
        ({"canary-weight": "1", "canary-weight-total": "3"}, 1),
        ({"canary-weight": "12345", "canary-weight-total": "100000"}, 12.345),
        ({"canary-weight": "99999", "canary-weight-total": "100000"}, 99.999),
        ({"canary-weight": "1", "canary-weight-total": "1000000"}, 0.0001),
        ({"canary-weight": "500"}, 100),
    ],
)
@needs_nginx
def test_shares_of_canaries(annotations, share, tmp_path):
    canary = ingress("canary", rule("site.test", path(to="api")), annotations={"canary": "true", **annotations})
    result = compiled(*GROUND, site(), canary)
    (location,) = [each for each in result.model.servers["site.test"].locations if each.ingress]
    assert location.canaries[0].share == pytest.approx(share, abs=0.01)
    assert ("split_clients" in text_of(result)) is (0 < share < 100)
    assert location.ingress == ObjectName("default", "site")
    assert refusal(result.configuration, tmp_path / "nginx") == ""


@pytest.mark.parametrize(
    ("weight", "share"), [("1", "0.01%"), ("60", "0.01%"), ("123456", "12.35%"), ("999999", "99.99%")]
)
def test_a_share_near_none_is_not_none_and_near_all_not_all(weight, share):
    reported = {"canary": "true", "canary-weight": weight, "canary-weight-total": "1000000"}
    result = compiled(*GROUND, site(), ingress("canary", rule("site.test", path(to="api")), annotations=reported))
    assert re.findall(r"\d+\.\d+%", text_of(result)) == [share]


@pytest.mark.parametrize("weight", ["12.345", "0x1", "1e2", "", "2147483648"])
def test_a_weight_that_is_none_rejects_the_canary_alone(weight):
    canary = ingress("canary", rule("site.test"), annotations={"canary": "true", "canary-weight": weight})
    result = compiled(*GROUND, site(), canary)
    assert text_of(result) == text_of(compiled(*GROUND, site()))
    assert verdicts(result, "default/canary") == {Verdict.REJECTED}
