"""Texts of annotations: what each takes, what it makes of it, and what it refuses."""

from __future__ import annotations

import pytest

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.annotation import CLOSE, IGNORE, REJECT
from rulegen.model.ingress.values.annotations.headers import CORS_HEADERS
from rulegen.model.ingress.values.annotations.reading import read_annotations
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.annotations.unsupported import SNIPPETS, UNSUPPORTED
from rulegen.model.ingress.values.settings import SETTINGS
from rulegen.model.ingress.values.texts import Reference, Subject, Text, literal
from tests.strategies.ingresses import (
    NAMED,
    PREFIX,
    WEB,
    compiled,
    endpoints,
    ingress,
    rule,
    service,
    settings_map,
    site,
    text_of,
)

ABOUT = ObjectKey("Ingress", ObjectName("demo", "web"))

TAKEN = [
    ("use-regex", "true", True),
    ("use-regex", " F ", False),
    ("limit-rps", "5 ", 5),
    ("rewrite-target", "/app/$1?x=$2", "/app/$1?x=$2"),
    ("rewrite-target", "$1", "$1"),
    ("app-root", "/app", "/app"),
    ("permanent-redirect", "https://a.test/x?y#z", literal("https://a.test/x?y#z")),
    ("permanent-redirect", "/here$request_uri", Text(("/here", Reference(Subject.REQUEST_URI)))),
    ("permanent-redirect-code", "308", 308),
    ("server-alias", "A.test, *.b.test,, a.test, ", ("a.test", "*.b.test")),
    ("custom-http-errors", "404, 503,404", (404, 503)),
    ("canary-weight", "0", 0),
    ("auth-cache-key", "", Text()),
    ("auth-cache-duration", "", (((200, 202, 401), 300),)),
    ("auth-cache-duration", "200 202 1h 30m, 401 10s,5m", (((200, 202), 5400), ((401,), 10), ((), 300))),
    ("auth-cache-duration", "200 100ms,401 9999999y", (((200,), 0), ((401,), 31_536_000))),
    ("auth-secret", "users", ("", "users")),
    ("auth-secret", "default/users", ("default", "users")),
    ("proxy-body-size", "8m", 8 << 20),
    ("proxy-body-size", "1G", 1 << 30),
    ("proxy-body-size", "0", 0),
    ("proxy-read-timeout", "60", 60),
    ("proxy-read-timeout", "2m", 120),
    ("proxy-next-upstream", "error  timeout error", ("error", "timeout")),
    ("proxy-cookie-domain", "a.test b.test", ("a.test", "b.test")),
    ("proxy-cookie-domain", "off", None),
    ("backend-protocol", "grpc", "GRPC"),
    ("limit-rps", "1", 1),
    ("limit-rps", "0", 0),
    ("limit-rps", "-5", 0),
    ("limit-rpm", "+007", 7),
    ("limit-rps", "1000001", 1_000_000),
    ("limit-connections", "99999999999", 65535),
    ("limit-rate", "0", 0),
    ("cors-allow-methods", "GET, POST, GET", "GET, POST"),
    ("cors-max-age", "0", 0),
    ("cors-max-age", "-1", -1),
    ("cors-allow-methods", "PROPFIND, REPORT,MKCOL", "PROPFIND, REPORT, MKCOL"),
    ("cors-allow-methods", "get Post", "get, Post"),
    ("cors-allow-headers", "*", CORS_HEADERS),
    ("cors-allow-headers", "X-One X_Two", "X-One, X_Two"),
    ("cors-expose-headers", "*", "*"),
    ("cors-expose-headers", "*, X-One,*", "*, X-One"),
    ("session-cookie-max-age", "-1", -1),
    ("session-cookie-samesite", "lax", "Lax"),
    ("session-cookie-expires", "-1", -1),
    ("session-cookie-expires", "2m", 120),
    ("session-cookie-name", "a-b.c", "a-b.c"),
    ("proxy-next-upstream-tries", "999999", 999999),
    ("proxy-redirect-from", "hello.test/x", "hello.test/x"),
    ("proxy-redirect-from", "https://hello.test/", "https://hello.test/"),
    ("upstream-vhost", "a.test:8080", literal("a.test:8080")),
    ("upstream-vhost", "my_backend", literal("my_backend")),
    ("mirror-host", "a.test:8080", literal("a.test:8080")),
    ("mirror-host", "$host", Text((Reference(Subject.HOST),))),
    ("mirror-request-body", "off", "off"),
    ("limit-burst-multiplier", "0", 0),
]
REFUSED = {
    "use-regex": ("yes", "", "TrUe", "true\n"),
    "ssl-redirect": ("no", "false ", "\tfalse", "true "),
    "force-ssl-redirect": ("no", "false ", " false", "true "),
    "enable-global-auth": ("no", "false ", " false", "true "),
    "rewrite-target": ("x", "//x", "/$0", "/$10", "/$host", "/a b", "/${1}", "http://x.test/", "/$", "/\n"),
    "app-root": ("x", "//x", "/a b", "/$host", "/\u202e"),
    "permanent-redirect": (
        "x",
        "//x.test",
        "ftp://x",
        "http://",
        "http://a b",
        "http://x/$http_cookie",
        "http://x:0x/",
    ),
    "permanent-redirect-code": ("200", "299", "309", "0301", "301.0", "+301"),
    "server-alias": ("~^a$", "*", "a_b", "10.0.0.1", "a..b", "-a", "*.*.a"),
    "custom-http-errors": ("200", "299", "600", "404;", "499"),
    "canary-weight": ("0x1", "12.345", "1e2", "\uff11", "99999999999"),
    "canary-by-header": ("a b", "a:", "$x", "é", "x" * 81, "-a", ""),
    "canary-by-cookie": ("a b", "a=b", "a;b", '"', ""),
    "auth-type": ("digest", "Basic", ""),
    "auth-secret": ("../x", "a/b/c", "/x", "x/", "X", "a b", ""),
    "auth-cache-key": (
        *("foo", "$remote_user", "$http_a;", "$http_a b", "$http_a\n", '$http_a"', "$request_body", "$"),
        *("$http_a#", "$http_a\\", "$http_a\0", "$http_a\u00e9", "${http_a"),
    ),
    "auth-cache-duration": (
        *("200", "200 401", "5", "5m 200", "99 5m", "600 5m", "200 5m;", "200 5m{", "-5m", "200 $a"),
        *('200 "5m"', "200 5m#", "200 5\\m", "200 5m\0", "200 \u0665m"),
    ),
    "auth-url": ("/x", "http://", "http://a:b@c.test/", "http://a.test:65536/", "unix:/x", "http://[::1/"),
    "satisfy": ("some", "ANY"),
    "whitelist-source-range": ("", "a", "10.0.0.0/33", "10.0.0.300", "10.0.0.1-2", "::/129", "0x0a000001"),
    "limit-rps": ("1.5", "5r/s", "1e3", "5\n", "\uff11", "0x1", "5;", "9" * 30),
    "denylist-source-range": ("a", "10.0.0.0/8 10.0.0.0/8"),
    "proxy-body-size": ("-1", "1t", "1 m", "99999999999999999m", "", "0x10"),
    "client-body-buffer-size": ("1g", "abc"),
    "from-to-www-redirect": ("yes", "1.0", "on"),
    "relative-redirects": ("yes", "on"),
    "fastcgi-index": ("a b", "a;b", "a\nb"),
    "proxy-read-timeout": ("60s; return 418", "-1", "1d", "", "9999999"),
    "proxy-buffering": ("On", "true"),
    "proxy-buffers-number": ("1", "0", "1025"),
    "proxy-next-upstream": ("", "http_999", "error;"),
    "proxy-redirect-from": ("~x", "a b", "a;b", "$host", "a.test/$host", '"', "", "a{b", "http://", "a\nb"),
    "proxy-cookie-domain": ("a", "a b c", "a $host"),
    "backend-protocol": ("HTTP://x", "TCP", ""),
    "connection-proxy-header": ("a;}", "x"),
    "upstream-hash-by": ("$nope", "x", "$request_uri consistent", "$http_cookie$", "$" + "http_" + "x" * 90),
    "upstream-vhost": (
        "a b",
        "$cookie_host",
        "a.test:0",
        "a.test:99999",
        "a/b",
        "a" * 254,
        "a" * 4050,
        f"{'a' * 254}:80",
    ),
    "cors-allow-origin": ("a.test", "*.a.test", "https://*", "https://a.test/", "https://a b", "https://*.*.x", "~.*"),
    "cors-allow-credentials": ("yes", ""),
    "cors-max-age": ("1h", ""),
    "cors-expose-headers": ("X-A;b", "*X", "* X-\u00e9"),
    "default-backend": ("A", "a b", "other/web", "../web"),
    "cors-allow-methods": ("GET;", "G\tET", "$host", "GET\nX", "GET{}", "'", "\\", "#", "é", ",", "A" * 41),
    "session-cookie-name": ("a b", "a;b", "a=b", ""),
    "session-cookie-domain": ("a b", "a;b", ""),
    "session-cookie-samesite": ("laxer", "None; Secure"),
    "x-forwarded-prefix": ("a", "//a", "/a\n"),
    "ssl-ciphers": ("", "a b", "a;b"),
    "mirror-target": (
        "notes.test",
        "ftp://a.test",
        "http://$host/x",
        "http://a.test/ b",
        "http://a.test/\n",
        'http://a.test/"',
        "http://a.test/\\",
        "http://a.test/\0",
        "http://a.test/é",
        "http://a.test/$http_cookie",
        "http://a.test/$1",
        "http://a.test/$namespace",
        "http://u:p@a.test/",
    ),
    "mirror-host": (
        "a b",
        "a;b",
        "a{b",
        "a#b",
        "a'b",
        "a\nb",
        "$cookie_a",
        "$1",
        "$namespace.test",
        "é",
        "a\\b",
        "",
        "a" * 254,
        "a" * 4050,
    ),
    "mirror-request-body": ("On", "true", ""),
    "limit-burst-multiplier": ("-1", "1001", "a"),
    "auth-tls-match-cn": ("x", "(CN=a", "CN=(", ""),
}


@pytest.mark.parametrize(("name", "text", "value"), TAKEN)
def test_what_is_taken(name, text, value):
    read = read_annotations(ABOUT, {f"{PREFIX}/{name}": text}, PREFIX)
    assert read.values == {ANNOTATIONS[name]: value}
    assert read.reasons == []


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_what_is_refused(name, text):
    annotation = ANNOTATIONS[name]
    read = read_annotations(ABOUT, {f"{PREFIX}/{name}": text}, PREFIX)
    assert read.values == {}
    assert read.failed == {annotation}
    assert read.outcome is annotation.invalid
    (reason,) = read.reasons
    assert name in reason.path
    assert str(reason).isprintable()


def test_an_origin_without_a_scheme_is_skipped_and_reported():
    """As in ingress-nginx: a browser sends no such origin, and another scheme would be another origin."""
    name = f"{PREFIX}/cors-allow-origin"
    read = read_annotations(ABOUT, {name: "a.test, https://b.test, *.c.test"}, PREFIX)
    assert read.values == {ANNOTATIONS["cors-allow-origin"]: ("https://b.test",)}
    assert read.failed == set()
    (reason,) = read.reasons
    assert reason.verdict is Verdict.IGNORED
    assert '"a.test" has no scheme' in reason.message
    assert read_annotations(ABOUT, {name: "a.test, *"}, PREFIX).reasons == []


def test_the_gravest_fault_decides():
    names = ["use-regex", "auth-type", "rewrite-target"]
    for number, outcome in ((1, IGNORE), (2, CLOSE), (3, REJECT)):
        texts = {f"{PREFIX}/{name}": "x" for name in names[:number]}
        assert read_annotations(ABOUT, texts, PREFIX).outcome is outcome


HARMLESS = [
    "denylist-source-range",
    "rewrite-target",
    "app-root",
    "temporal-redirect",
    "permanent-redirect",
    "limit-rps",
    "limit-connections",
]


@pytest.mark.parametrize("name", HARMLESS)
def test_an_empty_harmless_value_is_only_reported(name):
    for text in ("", " \t"):
        read = read_annotations(ABOUT, {f"{PREFIX}/{name}": text}, PREFIX)
        assert (read.values, read.failed, read.outcome) == ({}, set(), IGNORE)
        assert [reason.verdict for reason in read.reasons] == [Verdict.IGNORED]


@pytest.mark.parametrize("name", sorted(UNSUPPORTED.keys() - SNIPPETS.keys()))
def test_unsupported_annotations_are_reported(name):
    read = read_annotations(ABOUT, {f"{PREFIX}/{name}": "anything\n{"}, PREFIX)
    assert [reason.verdict for reason in read.reasons] == [UNSUPPORTED[name].verdict]


def test_an_unknown_name_is_reported_with_a_suggestion():
    texts = {f"{PREFIX}/proxy-read-timout": "5", "other.example.com/use-regex": "x"}
    (reason,) = read_annotations(ABOUT, texts, PREFIX).reasons
    assert "proxy-read-timeout" in reason.message


def test_a_prefix_of_ones_own():
    read = read_annotations(ABOUT, {"a.test/use-regex": "true", f"{PREFIX}/use-regex": "false"}, "a.test")
    assert read.values == {ANNOTATIONS["use-regex"]: True}


@pytest.mark.parametrize(
    ("annotations", "written"),
    [
        ({"affinity": "cookie"}, "INGRESSCOOKIE"),
        ({"affinity": "cookie", "session-cookie-name": "route"}, "route="),
        ({"affinity": "cookie", "session-cookie-max-age": "60"}, "Max-Age=60"),
        ({"affinity": "cookie", "session-cookie-expires": "70"}, "Max-Age=70"),
        ({"affinity": "cookie", "session-cookie-path": "/app"}, "Path=/app;"),
        ({"affinity": "cookie", "session-cookie-domain": "a.test"}, "Domain=a.test"),
        ({"affinity": "cookie", "session-cookie-max-age": "-1"}, "Max-Age=-1"),
        ({"affinity": "cookie", "session-cookie-max-age": "0", "session-cookie-expires": "70"}, "Max-Age=0"),
        ({"affinity": "cookie", "session-cookie-samesite": "Strict"}, "SameSite=Strict"),
        ({"affinity": "cookie", "session-cookie-samesite": "nONE"}, "SameSite=None"),
        ({"affinity": "cookie", "session-cookie-partitioned": "true"}, "Partitioned"),
        (
            {
                "affinity": "cookie",
                "session-cookie-samesite": "None",
                "session-cookie-conditional-samesite-none": "true",
            },
            "HttpOnly${site_none}",
        ),
        ({"affinity": "cookie", "session-cookie-secure": "true"}, "HttpOnly; Secure"),
        ({"affinity": "cookie", "session-cookie-secure": "false"}, "HttpOnly${sticky_secure}"),
        ({"proxy-next-upstream": "error http_502"}, "proxy_next_upstream error http_502;"),
        ({"proxy-next-upstream": "http_502", "backend-protocol": "FCGI"}, "fastcgi_next_upstream off;"),
        ({"proxy-next-upstream-tries": "2", "backend-protocol": "GRPC"}, "grpc_next_upstream_tries 2;"),
        ({"proxy-read-timeout": "5"}, "proxy_read_timeout 5s;"),
        ({"proxy-http-version": "1.0"}, "proxy_http_version 1.0;"),
    ],
)
def test_what_is_written_for_it(annotations, written):
    assert written in text_of(compiled(*WEB, ingress("site", rule("site.test"), annotations=annotations)))


@pytest.mark.parametrize(
    ("annotations", "written"),
    [
        ({"upstream-hash-by": "$request_uri$http_x_user"}, "consistent;"),
        ({"load-balance": "least_conn"}, "least_conn;"),
        ({"load-balance": "ewma"}, "random two least_conn;"),
        ({"load-balance": "ip_hash"}, "ip_hash;"),
        ({"service-upstream": "true"}, "server 10.96."),
        ({}, " backup"),
    ],
)
def test_how_a_server_is_picked(annotations, written):
    made = compiled(*WEB, ingress("site", rule("site.test"), annotations=annotations))
    (text,) = [text for path, text in made.configuration.files.items() if path.startswith("upstreams/")]
    assert written in text
    assert (" backup" in text) is (not annotations or annotations.get("load-balance") == "least_conn")
    assert ("10.244." in text) is ("service-upstream" not in annotations)


def test_a_headless_service_has_nobody_to_stand_in():
    made = compiled(service("web", cluster_ip="None"), endpoints("web"), *NAMED, site(service_upstream="true"))
    assert " backup" not in "".join(made.configuration.files.values())
    assert "10.244.1.5:8080" in "".join(made.configuration.files.values())


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("bind-address", "10.0.0.1, ::1,10.0.0.1", "10.0.0.300"),
        ("worker-processes", "auto", "many"),
        ("worker-cpu-affinity", "auto 0101", "auto;"),
        ("worker-cpu-affinity", "01 10", "0 2"),
        ("default-type", "application/octet-stream", "text/html; x"),
        ("gzip-disable", "Old[0-9]$", "("),
        ("grpc-buffer-size-kb", "16", "16k"),
        ("forwarded-host-header", "X-Host", "X Host"),
        ("max-worker-connections", "0", "1"),
        ("large-client-header-buffers", "4 8k", "4 0"),
        ("ssl-protocols", "TLSv1.3 SSLv3", "SSLv3"),
        ("ssl-session-cache-size", "10m", "1k"),
        ("ssl-session-timeout", "90", ""),
        ("ssl-session-timeout", "1w1d1h", "1h1d"),
        ("upstream-keepalive-time", "1h", "4w"),
        ("gzip-types", "*", "text"),
        ("log-format-upstream", '$remote_addr "$request"', "$http_authorization\n"),
        ("log-format-upstream", "$http_x_anything", "$ssl_client_raw_cert"),
        ("custom-http-errors", "404", "499"),
        ("block-user-agents", "~*bot.*, curl", "~("),
        ("proxy-real-ip-cidr", "10.0.0.0/8", "10.0.0.0/99"),
        ("http-redirect-code", "308", "303"),
        ("no-tls-redirect-locations", "/a,/b", "a"),
        ("proxy-next-upstream", "error http_502", "everything"),
        ("proxy-cookie-domain", "a.test b.test", "a.test b.test;"),
        ("proxy-cookie-path", "/a /b", "/a $host"),
        ("proxy-redirect-from", "http://a.test/", "http://a.test/\nx"),
        ("proxy-redirect-to", "/b", "/b{"),
    ],
)
def test_settings(key, good, bad):
    SETTINGS[key].read(good)
    with pytest.raises(ValueError, match=r"."):
        SETTINGS[key].read(bad)


def test_only_some_of_many_unknown_annotations_are_reported():
    texts = {f"{PREFIX}/made-up-{n}": "" for n in range(5000)} | {f"{PREFIX}/use-regex": "true"}
    read = read_annotations(ABOUT, texts, PREFIX)
    assert len(read.reasons) == 51
    assert "4949 more" in read.reasons[-1].message
    assert read.values == {ANNOTATIONS["use-regex"]: True}


@pytest.mark.parametrize(
    ("key", "prefix", "near"),
    [
        ("rulegen.io/proxy-read-timeout", "nginx.ingress.kubernetes.io", "proxy-read-timeout"),
        ("Rulegen.io/proxy-read-timout", "nginx.ingress.kubernetes.io", "proxy-read-timeout"),
        ("rulegen.io/proxy-read-timout", "rulegen.io", "proxy-read-timeout"),
        ("rulegen.io/zzzzzz", "nginx.ingress.kubernetes.io", ""),
    ],
)
def test_an_annotation_of_services_on_an_ingress_is_named(key, prefix, near):
    (reason,) = read_annotations(ABOUT, {key: "5"}, prefix).reasons
    assert reason.verdict is Verdict.UNSUPPORTED
    assert key in reason.path
    assert ("did you mean" in reason.message) is bool(near)
    assert near in reason.message


def test_an_annotation_of_ours_and_those_of_others_are_not_named():
    texts = {"rulegen.io/proxy-read-timeout": "5", "example.com/a": "b", "rulegen.io.example.com/a": "b"}
    assert read_annotations(ABOUT, texts, "rulegen.io").reasons == []


@pytest.mark.parametrize("beside", ["auth-type", "auth-url", "whitelist-source-range", "allowlist-source-range", ""])
def test_satisfy_is_reported_only_where_it_has_no_effect(beside):
    value = {"auth-type": "basic", "auth-url": "http://web.default.svc/"}.get(beside, "10.0.0.0/8")
    annotations = {"satisfy": "any", "auth-secret": "users"} | ({beside: value} if beside else {})
    reasons = compiled(*WEB, *NAMED, ingress("site", rule("site.test"), annotations=annotations)).model.reasons
    assert any("/satisfy" in reason.path for reason in reasons) is not bool(beside)


@pytest.mark.parametrize("data", [{}, {"ssl_redirect": "false", "force_ssl_redirect": "true"}])
def test_without_annotations_the_policy_is_that_of_the_defaults(data):
    """It is not put together from each annotation's default: both ways come to the same."""
    plain, annotated = (
        compiled(*WEB, settings_map(**data), ingress("site", rule("site.test"), annotations=annotations)).model
        for annotations in ({}, {"enable-access-log": "true"})
    )
    policies = [model.servers["site.test"].locations[0].policy for model in (plain, annotated)]
    assert policies[0] == policies[1]
    assert policies[0].ssl_redirect is not bool(data)
