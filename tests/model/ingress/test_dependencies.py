"""Annotations that have no effect beside the others are reported, each where it was written."""

from __future__ import annotations

import pytest

from rulegen.model.ingress.policy.dependencies import ALONE, DEPENDENCIES, OF_CANARIES
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from tests.strategies.ingresses import (
    API,
    NAMED,
    WEB,
    certificate,
    compiled,
    config_map,
    ingress,
    path,
    reported,
    rule,
    secret,
    settings_map,
    site,
    text_of,
    tls,
)

USERS = secret("users", auth=b"anna:{PLAIN}open")
PAIR = secret("pair", ca_crt=certificate("ca.test", is_ca=True))
GROUND = (*WEB, *API, *NAMED, USERS, PAIR, config_map("extra", {"X-Extra": "1"}), config_map("scripts", {"A": "b"}))
REDIRECT = {"permanent-redirect": "https://new.test/"}
COOKIE = {"affinity": "cookie"}
AUTH = {"auth-url": "http://192.0.2.7/check"}


def said_of(annotations, *others, name="site", tls=()):
    """Return what is said of each annotation of an Ingress, and the verdict."""
    made = ingress(name, rule("site.test"), annotations=annotations, tls=tls)
    reasons = {}
    for reason in reported(compiled(*GROUND, *others, made), f"default/{name}"):
        about = reason.path.rpartition("/")[2].removesuffix('"]')
        assert about not in reasons, "reported twice"
        reasons[about] = reason.verdict, reason.message
    return reasons


def test_each_annotation_is_declared_to_depend_on_others_or_to_stand_alone():
    assert DEPENDENCIES.keys() | ALONE == set(ANNOTATIONS.values())
    assert not DEPENDENCIES.keys() & ALONE
    assert set(ANNOTATIONS.values()) > OF_CANARIES


IDLE = [
    ({"health-check-interval": "7"}, "health-check-interval", "without health-check-path"),
    ({"slow-start": "30"}, "slow-start", "without health-check-path"),
    ({"auth-secret": "users"}, "auth-secret", "without auth-type"),
    ({"auth-secret-type": "auth-map"}, "auth-secret-type", "without auth-type"),
    ({"auth-realm": "Members"}, "auth-realm", "without auth-type"),
    ({"auth-method": "POST"}, "auth-method", "without auth-url"),
    ({"auth-signin": "https://sso.test/"}, "auth-signin", "without auth-url"),
    ({**AUTH, "auth-signin-redirect-param": "to"}, "auth-signin-redirect-param", "without auth-signin"),
    ({"auth-response-headers": "X-User"}, "auth-response-headers", "without auth-url"),
    ({"auth-proxy-set-headers": "extra"}, "auth-proxy-set-headers", "without auth-url"),
    ({"auth-request-redirect": "/x"}, "auth-request-redirect", "without auth-url"),
    ({"auth-always-set-cookie": "true"}, "auth-always-set-cookie", "without auth-url"),
    ({"auth-cache-key": "$http_authorization"}, "auth-cache-key", "without auth-url"),
    (
        {"auth-url": "http://auth.example.com/", "auth-cache-duration": "200 1m"},
        "auth-cache-duration",
        "without auth-cache-key",
    ),
    ({"auth-keepalive": "5"}, "auth-keepalive", "without auth-url"),
    ({"auth-keepalive-requests": "5"}, "auth-keepalive-requests", "without auth-keepalive"),
    ({"auth-keepalive-timeout": "5"}, "auth-keepalive-timeout", "without auth-keepalive"),
    ({"enable-global-auth": "true"}, "enable-global-auth", "without global-auth-url in the ConfigMap"),
    ({"auth-tls-verify-client": "optional"}, "auth-tls-verify-client", "without auth-tls-secret"),
    ({"auth-tls-verify-depth": "3"}, "auth-tls-verify-depth", "without auth-tls-secret"),
    ({"auth-tls-match-cn": "CN=a"}, "auth-tls-match-cn", "without auth-tls-secret"),
    ({"auth-tls-error-page": "/why"}, "auth-tls-error-page", "without auth-tls-secret"),
    (
        {"auth-tls-pass-certificate-to-upstream": "true"},
        "auth-tls-pass-certificate-to-upstream",
        "without auth-tls-secret",
    ),
    ({"proxy-ssl-name": "a.test"}, "proxy-ssl-name", "without backend-protocol (HTTPS, GRPCS, AUTO_HTTP)"),
    ({"proxy-ssl-secret": "pair"}, "proxy-ssl-secret", "without backend-protocol"),
    ({"proxy-ssl-ciphers": "HIGH"}, "proxy-ssl-ciphers", "without backend-protocol"),
    ({"proxy-ssl-protocols": "TLSv1.3"}, "proxy-ssl-protocols", "without backend-protocol"),
    ({"proxy-ssl-secret": "pair", "proxy-ssl-verify": "on"}, "proxy-ssl-verify", "without backend-protocol"),
    ({"backend-protocol": "GRPC", "proxy-ssl-server-name": "on"}, "proxy-ssl-server-name", "without backend-protocol"),
    (
        {"backend-protocol": "HTTPS", "proxy-ssl-verify-depth": "3"},
        "proxy-ssl-verify-depth",
        "without proxy-ssl-verify",
    ),
    ({"fastcgi-index": "index.php"}, "fastcgi-index", "without backend-protocol (FCGI)"),
    ({"fastcgi-params-configmap": "scripts", "backend-protocol": "HTTPS"}, "fastcgi-params-configmap", "(FCGI)"),
    ({"limit-burst-multiplier": "3"}, "limit-burst-multiplier", "without limit-rps or limit-rpm"),
    ({"limit-rate-after": "5"}, "limit-rate-after", "without limit-rate or limit-rate in the ConfigMap"),
    ({"limit-allowlist": "10.0.0.0/8"}, "limit-allowlist", "without limit-rps, limit-rpm or limit-connections"),
    ({"limit-whitelist": "10.0.0.0/8"}, "limit-whitelist", "without limit-rps, limit-rpm or limit-connections"),
    ({"cors-allow-origin": "https://a.test"}, "cors-allow-origin", "without enable-cors"),
    ({"cors-allow-methods": "GET"}, "cors-allow-methods", "without enable-cors"),
    ({"cors-allow-headers": "X-A"}, "cors-allow-headers", "without enable-cors"),
    ({"cors-expose-headers": "X-A"}, "cors-expose-headers", "without enable-cors"),
    ({"cors-allow-credentials": "false"}, "cors-allow-credentials", "without enable-cors"),
    ({"cors-max-age": "60"}, "cors-max-age", "without enable-cors"),
    ({"canary": "true"}, "canary", "without canary-by-header, canary-by-cookie or canary-weight"),
    ({"canary-weight": "10"}, "canary-weight", "without canary"),
    ({"canary-by-header": "X-New"}, "canary-by-header", "without canary"),
    ({"canary-by-cookie": "new"}, "canary-by-cookie", "without canary"),
    ({"canary-by-header-value": "yes"}, "canary-by-header-value", "without canary-by-header"),
    ({"canary-by-header-pattern": "y.*"}, "canary-by-header-pattern", "without canary-by-header"),
    ({"canary-weight-total": "200"}, "canary-weight-total", "without canary-weight"),
    ({"affinity-canary-behavior": "legacy"}, "affinity-canary-behavior", "without canary"),
    ({"affinity-mode": "persistent"}, "affinity-mode", "without affinity"),
    ({"session-cookie-name": "route"}, "session-cookie-name", "without affinity"),
    ({"session-cookie-path": "/a"}, "session-cookie-path", "without affinity"),
    ({"session-cookie-domain": "site.test"}, "session-cookie-domain", "without affinity"),
    ({"session-cookie-expires": "60"}, "session-cookie-expires", "without affinity"),
    ({"session-cookie-max-age": "60"}, "session-cookie-max-age", "without affinity"),
    ({"session-cookie-samesite": "Lax"}, "session-cookie-samesite", "without affinity"),
    ({"session-cookie-change-on-failure": "true"}, "session-cookie-change-on-failure", "without affinity"),
    ({"session-cookie-secure": "true"}, "session-cookie-secure", "without affinity"),
    ({"session-cookie-partitioned": "true"}, "session-cookie-partitioned", "without affinity"),
    (
        {"affinity": "cookie", "session-cookie-conditional-samesite-none": "true"},
        "session-cookie-conditional-samesite-none",
        "without session-cookie-samesite (None)",
    ),
    ({"permanent-redirect-code": "308"}, "permanent-redirect-code", "without permanent-redirect"),
    ({"temporal-redirect-code": "307"}, "temporal-redirect-code", "without temporal-redirect"),
    ({"disable-proxy-intercept-errors": "true"}, "disable-proxy-intercept-errors", "without custom-http-errors"),
    ({"x-forwarded-prefix": "/app"}, "x-forwarded-prefix", "without rewrite-target"),
    ({"proxy-redirect-from": "/a/"}, "proxy-redirect-from", "without proxy-redirect-to"),
    ({"proxy-redirect-to": "/a/"}, "proxy-redirect-to", "without proxy-redirect-from"),
    ({"proxy-buffers-number": "8"}, "proxy-buffers-number", "without proxy-buffering"),
    ({"proxy-busy-buffers-size": "16k"}, "proxy-busy-buffers-size", "without proxy-buffering"),
    ({"proxy-max-temp-file-size": "1m"}, "proxy-max-temp-file-size", "without proxy-buffering"),
    ({"satisfy": "any"}, "satisfy", "without auth-type, auth-url"),
    ({"mirror-host": "a.test"}, "mirror-host", "without mirror-target"),
    ({"mirror-request-body": "off"}, "mirror-request-body", "without mirror-target"),
]
OVERRULED = [
    (
        {"whitelist-source-range": "10.0.0.0/8", "allowlist-source-range": "10.0.0.0/9"},
        "whitelist-source-range",
        "allowlist-source-range has priority",
    ),
    (
        {"limit-rps": "1", "limit-whitelist": "10.0.0.0/8", "limit-allowlist": "10.0.0.0/9"},
        "limit-whitelist",
        "limit-allowlist has priority",
    ),
    ({**REDIRECT, "temporal-redirect": "/now"}, "permanent-redirect", "temporal-redirect has priority"),
    ({**COOKIE, "upstream-hash-by": "$request_uri"}, "upstream-hash-by", "affinity has priority"),
    ({**COOKIE, "load-balance": "ewma"}, "load-balance", "affinity has priority"),
    ({"upstream-hash-by": "$request_uri", "load-balance": "ewma"}, "load-balance", "upstream-hash-by has priority"),
    ({**COOKIE, "service-upstream": "true"}, "affinity", "service-upstream has priority"),
    (
        {**COOKIE, "session-cookie-max-age": "60", "session-cookie-expires": "90"},
        "session-cookie-expires",
        "session-cookie-max-age has priority",
    ),
    (
        {"canary": "true", "canary-by-header": "X-A", "canary-by-header-value": "b", "canary-by-header-pattern": "c"},
        "canary-by-header-pattern",
        "canary-by-header-value has priority",
    ),
    *(
        ({**REDIRECT, **guard}, next(iter(guard)), "permanent-redirect redirects the requests first")
        for guard in (
            {"limit-rps": "1"},
            {"limit-rpm": "1"},
            {"limit-connections": "1"},
            AUTH,
            {"auth-type": "basic", "auth-secret": "users"},
            {"whitelist-source-range": "10.0.0.0/8"},
            {"allowlist-source-range": "10.0.0.0/8"},
            {"denylist-source-range": "10.0.0.0/8"},
        )
    ),
]


@pytest.mark.parametrize(("annotations", "name", "why"), [*IDLE, *OVERRULED])
def test_what_has_no_effect_is_not_served_as_written(annotations, name, why):
    verdict, message = said_of(annotations)[name]
    assert why in message
    assert "no effect" in message
    assert verdict.deviates


def test_each_annotation_that_depends_on_others_is_among_these():
    shown = {name for _, name, _ in (*IDLE, *OVERRULED)}
    remarks = {name for _, name in REMARKS}
    assert {known.name for known in DEPENDENCIES} - shown - remarks == set()


REMARKS = [
    *(
        ({**REDIRECT, name: value}, name)
        for name, value in {
            "backend-protocol": "GRPC",
            "mirror-target": "http://192.0.2.9",
            "limit-rate": "5",
            "connection-proxy-header": "close",
            "upstream-vhost": "a.test",
            "proxy-body-size": "8m",
            "client-body-buffer-size": "8k",
            "proxy-buffering": "on",
            "proxy-request-buffering": "on",
            "proxy-buffer-size": "8k",
            "proxy-connect-timeout": "9",
            "proxy-send-timeout": "9",
            "proxy-read-timeout": "9",
            "proxy-next-upstream": "error",
            "proxy-next-upstream-tries": "2",
            "proxy-next-upstream-timeout": "2",
            "proxy-http-version": "1.0",
            "proxy-cookie-domain": "a.test b.test",
            "proxy-cookie-path": "/a /b",
        }.items()
    ),
    ({"enable-cors": "false", "cors-max-age": "60"}, "cors-max-age"),
    ({"canary": "false", "canary-weight": "10"}, "canary-weight"),
    ({"cors-max-age": "1728000"}, "cors-max-age"),
    ({"whitelist-source-range": "10.0.0.0/8", "allowlist-source-range": "10.0.0.0/8"}, "whitelist-source-range"),
    ({"ssl-redirect": "true"}, "ssl-redirect"),
    ({"preserve-trailing-slash": "true"}, "preserve-trailing-slash"),
    ({"ssl-ciphers": "HIGH"}, "ssl-ciphers"),
    ({"ssl-prefer-server-ciphers": "true"}, "ssl-prefer-server-ciphers"),
]


@pytest.mark.parametrize(("annotations", "name"), REMARKS)
def test_it_is_a_remark_where_nothing_would_be_served_otherwise(annotations, name):
    assert said_of(annotations)[name][0] is Verdict.NOTE


@pytest.mark.parametrize(
    ("annotations", "data"),
    [
        ({"auth-always-set-cookie": "false", "session-cookie-secure": "false", "enable-global-auth": "false"}, {}),
        ({"proxy-ssl-verify": "off", "use-regex": "false", "ssl-redirect": "false"}, {}),
        ({"limit-rate-after": "5"}, {"limit-rate": "9", "proxy-buffering": "on"}),
        ({"proxy-buffers-number": "8"}, {"proxy-buffering": "on"}),
        ({"satisfy": "any"}, {"whitelist-source-range": "10.0.0.0/8"}),
        ({"preserve-trailing-slash": "true"}, {"force-ssl-redirect": "true"}),
        ({"proxy-ssl-name": "a.test", "backend-protocol": "AUTO_HTTP"}, {}),
        ({"affinity": "cookie", "session-cookie-name": "route", "affinity-mode": "persistent"}, {}),
    ],
)
def test_what_asks_for_what_is_done_is_not_reported(annotations, data):
    result = compiled(
        *GROUND,
        settings_map(**{key.replace("-", "_"): text for key, text in data.items()}),
        site(**{key.replace("-", "_"): text for key, text in annotations.items()}),
    )
    assert reported(result) == []


def test_with_a_section_for_tls_nothing_is_said_of_ciphers_and_redirects():
    assert said_of({"ssl-ciphers": "HIGH", "ssl-redirect": "true"}, tls=(tls("absent", "site.test"),)).keys() <= {
        "spec.tls[0]"
    }


def test_an_invalid_value_of_what_is_needed_is_the_only_fault():
    assert said_of({"auth-url": "ftp://a.test", "auth-method": "POST"}).keys() == {"auth-url"}


def test_a_cookie_that_is_not_changed_is_not_served_as_written():
    reasons = said_of({**COOKIE, "session-cookie-change-on-failure": "true"})
    assert reasons["session-cookie-change-on-failure"][0] is Verdict.UNSUPPORTED


def test_of_a_canary_what_only_the_main_ingress_decides_is_reported_if_it_differs():
    main = ingress("site", rule("site.test", path("/")), annotations={"proxy-body-size": "8m", **AUTH})
    asks = {"canary": "true", "canary-weight": "9", "load-balance": "ewma", "proxy-body-size": "8m", "limit-rps": "5"}
    reasons = said_of({**asks, "session-cookie-name": "x"}, main, name="late")
    assert reasons.keys() == {"limit-rps", "session-cookie-name"}
    assert {verdict for verdict, _ in reasons.values()} == {Verdict.IGNORED}
    assert "the main Ingress default/site decides" in reasons["limit-rps"][1]


def test_of_host_wide_annotations_the_one_that_does_not_decide_is_reported():
    first = ingress("first", rule("site.test", path("/a")), annotations={"app-root": "/one", "ssl-ciphers": "HIGH"})
    late = {"app-root": "/two", "ssl-ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256", "ssl-redirect": "false"}
    second = ingress("second", rule("site.test", path("/a/longer")), annotations=late)
    result = compiled(*GROUND, first, second)
    server = result.model.servers["site.test"]
    assert (server.app_root, server.ciphers) == ("/two", "HIGH")
    lost = {
        (str(reason.about.name), reason.path.rpartition("/")[2])
        for reason in result.model.reasons
        if reason.verdict is Verdict.LOST
    }
    assert lost == {("default/first", 'app-root"]'), ("default/second", 'ssl-ciphers"]')}


@pytest.mark.parametrize(("second", "loses"), [("optional", True), ("on", False)])
def test_of_two_demands_for_client_certificates_the_one_that_loses_is_reported(second, loses):
    asks = [
        ingress(name, rule("site.test", path(f"/{name}")), annotations={"auth-tls-secret": "pair", **more})
        for name, more in (("first", {}), ("second", {"auth-tls-verify-client": second}))
    ]
    result = compiled(*GROUND, *asks)
    assert (Verdict.LOST in {reason.verdict for reason in reported(result, "default/second")}) is loses


@pytest.mark.parametrize(
    ("text", "is_free"),
    [
        ("/public", True),
        ("/public/(.*)", True),
        ("/public(/|$)(.*)", True),
        ("/public/[a|b]", True),
        ("/public/a\\|b", True),
        ("/public/a|/secret", False),
        ("/public|/", False),
        ("/public?", False),
        ("/public*", False),
        ("/private", False),
    ],
)
def test_no_auth_locations_free_an_expression_only_if_all_that_it_matches_begins_so(text, is_free):
    owner = ingress(
        "site",
        rule("site.test", path(text, "ImplementationSpecific")),
        annotations={"use-regex": "true", "auth-type": "basic", "auth-secret": "users"},
    )
    result = compiled(*GROUND, settings_map(no_auth_locations="/public"), owner)
    location = next(known for known in result.model.servers["site.test"].locations if known.source == text)
    assert (location.policy.basic_auth is None) is is_free
    warned = any("no-auth-locations" in reason.message for reason in reported(result))
    assert warned is (text.startswith("/public") and not is_free)


def test_without_a_burst_not_one_request_above_the_limit_passes():
    assert "limit_req zone=" in (text := text_of(compiled(*GROUND, site(limit_rps="2", limit_burst_multiplier="0"))))
    assert "burst" not in text


def test_headers_of_the_ingress_are_on_its_redirects_too():
    allowed = settings_map(global_allowed_response_headers="X-Extra")
    text = text_of(compiled(*GROUND, allowed, site(permanent_redirect="/new", custom_headers="extra")))
    assert text.index("add_header X-Extra 1 always") < text.index("return 301 /new")
