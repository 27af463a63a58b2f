"""Headers: cross-origin requests, what backends are told of the client, what clients get; sizes of what is sent."""

from __future__ import annotations

import json
from collections.abc import Callable

from integration.ingress import objects
from integration.ingress.features import Ask, Scenario, Stage, World, site, site_secret
from integration.ingress.scenarios.plain import plain


def _answering(headers: dict[str, str]) -> dict[str, str]:
    return {"X-Lab-Respond": json.dumps(headers)}


def _from(origin: str, want: dict[str, object], host: str = "cors.test", method: str = "GET") -> Ask:
    return Ask(host=host, method=method, headers={"Origin": origin}, want=want)


def _allowed(origin: str, host: str) -> Ask:
    return _from(origin, {"headers": {"Access-Control-Allow-Origin": origin}}, host)


def _refused(origin: str, host: str) -> Ask:
    names = ["Origin", "Methods", "Headers", "Credentials"]
    return _from(origin, {"status": 200, "headers_absent": [f"Access-Control-Allow-{name}" for name in names]}, host)


_CORS = [
    plain(
        "cors-defaults",
        [site("cors.test", {"enable-cors": "true"})],
        _from(
            "https://a.test",
            {
                "status": 204,
                "headers": {
                    "Access-Control-Allow-Origin": "*",
                    "Access-Control-Allow-Methods": "GET, PUT, POST, DELETE, PATCH, OPTIONS",
                    "Access-Control-Allow-Headers": "~Authorization",
                    "Access-Control-Allow-Credentials": "true",
                    "Access-Control-Max-Age": "1728000",
                },
            },
            method="OPTIONS",
        ),
        _from("https://a.test", {"status": 200, "headers": {"Access-Control-Allow-Origin": "*"}}),
    ),
    plain(
        "cors-options",
        [
            site(
                "cors-set.test",
                {
                    "enable-cors": "true",
                    "cors-allow-origin": "https://a.test, https://*.b.test, http://c.test:8080, null",
                    "cors-allow-methods": "GET, PURGE, POST",
                    "cors-allow-headers": "X-One, X-Two",
                    "cors-expose-headers": "X-Three",
                    "cors-allow-credentials": "false",
                    "cors-max-age": "600",
                },
            ),
            site("cors-methods.test", {"enable-cors": "true", "cors-allow-methods": "GET, POST"}),
        ],
        Ask(
            host="cors-set.test",
            method="OPTIONS",
            headers={"Origin": "https://a.test", "Access-Control-Request-Method": "POST"},
            want={
                "status": 204,
                "headers": {
                    "Access-Control-Allow-Origin": "https://a.test",
                    "Access-Control-Allow-Headers": "X-One, X-Two",
                    "Access-Control-Max-Age": "600",
                },
                "headers_absent": ["Access-Control-Allow-Credentials"],
            },
        ),
        _from("https://a.test", {"headers": {"Access-Control-Expose-Headers": "X-Three"}}, "cors-set.test"),
        _from("https://a.test", {"headers": {"Access-Control-Allow-Methods": "GET, POST"}}, "cors-methods.test"),
        *(
            _allowed(origin, "cors-set.test")
            for origin in ("https://x.b.test", "http://c.test:8080", "null", "https://A.test")
        ),
        *(
            _refused(origin, "cors-set.test")
            for origin in (
                "https://x.y.b.test",
                "https://b.test",
                "http://x.b.test",
                "https://a.test.evil.test",
                "https://evil-a.test",
                "https://x.b.test:8443",
                "http://c.test",
                "nullx",
            )
        ),
        _from("https://evil.test", {"status": 200, "backend": "echo"}, "cors-set.test", method="OPTIONS"),
    ),
    plain(
        "cors-of-the-backend-is-replaced",
        [site("cors-own.test", {"enable-cors": "true"}), site("cors-off.test")],
        Ask(
            host="cors-own.test",
            headers={"Origin": "https://a.test", **_answering({"Access-Control-Allow-Origin": "https://own.test"})},
            want={"headers": {"Access-Control-Allow-Origin": "*"}, "header_count": {"Access-Control-Allow-Origin": 1}},
        ),
        Ask(
            host="cors-off.test",
            headers=_answering({"Access-Control-Allow-Origin": "https://own.test"}),
            want={"headers": {"Access-Control-Allow-Origin": "https://own.test"}},
        ),
    ),
    plain(
        "cors-headers-stand-on-errors-too",
        [site("cors-errors.test", {"enable-cors": "true"}, "echo")],
        Ask(
            host="cors-errors.test",
            path="/status/500",
            headers={"Origin": "https://a.test"},
            want={"status": 500, "headers": {"Access-Control-Allow-Origin": "*"}},
        ),
    ),
]

_FORGED = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "1.2.3.4",
    "X-Scheme": "https",
    "Proxy": "http://evil.test",
}

_TOLD = [
    plain(
        "what-a-client-says-of-itself-is-replaced",
        [site("told.test")],
        Ask(
            host="told.test",
            headers=_FORGED,
            want={
                "backend_sees": {
                    "host": "told.test",
                    "headers": {
                        "X-Forwarded-For": "192.168.50.100",
                        "X-Forwarded-Proto": "http",
                        "X-Forwarded-Scheme": "http",
                        "X-Forwarded-Host": "told.test",
                        "X-Forwarded-Port": "80",
                        "X-Real-IP": "192.168.50.100",
                        "X-Scheme": "http",
                        "X-Original-Forwarded-For": "1.2.3.4",
                        "X-Request-ID": "~^[0-9a-f]{32}$",
                    },
                },
                "backend_headers_absent": ["Proxy", "X-Original-URI", "X-Forwarded-Prefix"],
            },
        ),
        Ask(
            host="told.test",
            tls=True,
            headers={"X-Request-ID": "mine"},
            want={
                "backend_sees": {
                    "headers": {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "443", "X-Request-ID": "mine"}
                }
            },
        ),
    ),
    plain(
        "headers-of-one-ingress",
        [
            site("vhost.test", {"upstream-vhost": "inside.test", "connection-proxy-header": "keep-alive"}),
            site("prefix.test", {"x-forwarded-prefix": "/p", "rewrite-target": "/"}, path="/app"),
        ],
        Ask(
            host="vhost.test",
            want={
                "backend_sees": {
                    "host": "inside.test",
                    "headers": {"Connection": "keep-alive", "X-Forwarded-Host": "vhost.test"},
                }
            },
        ),
        Ask(host="prefix.test", path="/app", want={"backend_sees": {"headers": {"X-Forwarded-Prefix": "/p"}}}),
    ),
    plain(
        "cookies-and-redirects-of-backends",
        [
            site(
                "cookies.test",
                {
                    "proxy-cookie-domain": "inside.test outside.test",
                    "proxy-cookie-path": "/inside /outside",
                    "proxy-redirect-from": "http://inside.test/",
                    "proxy-redirect-to": "https://outside.test/",
                },
            )
        ],
        Ask(
            host="cookies.test",
            headers=_answering(
                {"Set-Cookie": "a=b; Domain=inside.test; Path=/inside/x", "Location": "http://inside.test/y"}
            ),
            want={
                "headers": {
                    "Set-Cookie": "~(?i)a=b; domain=outside.test; path=/outside/x",
                    "Location": "https://outside.test/y",
                }
            },
        ),
    ),
]

_SIZES = [
    plain(
        "ways-to-send",
        [site("old-http.test", {"proxy-http-version": "1.0"}), site("chunks.test")],
        Ask(host="old-http.test", want={"status": 200}),
        Ask(
            host="chunks.test",
            method="POST",
            headers={"Transfer-Encoding": "chunked", "Content-Length": ""},
            want={"status_one_of": [400]},
        ),
        Ask(host="chunks.test", method="HEAD", want={"status": 200}),
    ),
    plain(
        "body-size",
        [
            site("body-small.test", {"proxy-body-size": "1k"}, "mirror"),
            site("body-any.test", {"proxy-body-size": "0"}, "mirror"),
            site("body-usual.test", service="mirror"),
            site("body-buffer.test", {"client-body-buffer-size": "64k", "proxy-request-buffering": "off"}, "mirror"),
        ],
        Ask(host="body-small.test", method="POST", body=bytes(1024), want={"status": 200}),
        Ask(host="body-small.test", method="POST", body=bytes(1025), want={"status": 413}),
        Ask(host="body-usual.test", method="POST", body=bytes((1 << 20) + 1), want={"status": 413}),
        Ask(
            host="body-any.test",
            method="POST",
            body=bytes(2 << 20),
            want={"status": 200, "headers": {"X-Size": str(2 << 20)}},
        ),
        Ask(host="body-buffer.test", method="PUT", body=bytes(50000), want={"status": 200, "size": 50000}),
    ),
    plain(
        "buffers",
        [
            site("buffers.test"),
            site("buffers-big.test", {"proxy-buffer-size": "16k"}),
            site(
                "buffers-on.test",
                {
                    "proxy-buffering": "on",
                    "proxy-buffer-size": "16k",
                    "proxy-buffers-number": "2",
                    "proxy-max-temp-file-size": "0",
                },
                "mirror",
            ),
            site("buffers-odd.test", {"proxy-buffer-size": "64k", "proxy-busy-buffers-size": "1k"}),
        ],
        Ask(host="buffers.test", headers=_answering({"X-Big": "b" * 6000}), want={"status": 502}),
        Ask(
            host="buffers-big.test",
            headers=_answering({"X-Big": "b" * 6000}),
            want={"status": 200, "headers": {"X-Big": "b" * 6000}},
        ),
        Ask(host="buffers-on.test", method="POST", body=bytes(500_000), want={"status": 200, "size": 500_000}),
        Ask(host="buffers-odd.test", headers=_answering({"X-Big": "b" * 6000}), want={"status": 200}),
    ),
    plain(
        "hsts-only-where-it-means-something",
        [
            site("hsts.test", {"ssl-redirect": "false"}, secret="hsts.test"),
            site_secret("hsts.test"),
            site("nohsts.test"),
        ],
        Ask(
            host="hsts.test",
            tls=True,
            want={"headers": {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}},
        ),
        Ask(host="hsts.test", want={"status": 200, "headers_absent": ["Strict-Transport-Security"]}),
        Ask(
            host="hsts.test",
            tls=True,
            path="/status/404",
            want={"status": 404, "header_count": {"Strict-Transport-Security": 1}},
        ),
        # The certificate that was made up for it proves nothing to a browser.
        Ask(host="nohsts.test", tls=True, want={"status": 200, "headers_absent": ["Strict-Transport-Security"]}),
    ),
]

_TRUSTING = World(
    name="trusting",
    config={
        "use-forwarded-headers": "true",
        "proxy-real-ip-cidr": "192.168.50.100/32, 10.9.0.0/16",
        "compute-full-forwarded-for": "true",
        "proxy-add-original-uri-header": "true",
        "generate-request-id": "false",
        "add-headers": "default/more-answers",
        "proxy-set-headers": "default/more-requests",
        "hide-headers": "X-Secret, X-Version",
        "global-allowed-response-headers": "X-Custom,X-Own",
        "http-redirect-code": "301",
        "no-tls-redirect-locations": "/plain,/.well-known/acme-challenge",
        "use-gzip": "true",
        "gzip-min-length": "100",
        "limit-req-status-code": "429",
        "limit-conn-status-code": "430",
        "load-balance": "least_conn",
        "retry-non-idempotent": "true",
        "allow-backend-server-header": "true",
        "enable-underscores-in-headers": "true",
        "hsts": "false",
        "skip-access-log-urls": "/quiet,/status/",
        "log-format-upstream": (
            "$host|$request_method|$request_uri|$status|$namespace|$ingress_name|$service_name|$service_port"
            "|$proxy_upstream_name|$remote_addr|$upstream_addr|$upstream_status|$req_id"
        ),
        "proxy-body-size": "2k",
    },
    documents=(
        objects.config_map("more-answers", {"X-Frame-Options": "DENY", "X-Team": "blue; v=1"}),
        objects.config_map("more-requests", {"X-Through": "rulegen", "X-Scheme": "gopher"}),
        objects.config_map("own-answers", {"X-Custom": "mine", "X-Own": 'say "hi" for $5'}),
        objects.config_map("forbidden-answers", {"X-Forbidden": "mine"}),
    ),
)


def trusting(
    name: str, documents: list[objects.Document], *asks: Ask, then: Callable[[Stage], object] | None = None
) -> Scenario:
    """Return a scenario of the world where a load balancer's word is taken."""
    return Scenario(name=name, world=_TRUSTING, documents=tuple(documents), asks=asks, then=then)


_FORWARDED = [
    trusting(
        "forwarded-headers-of-who-is-trusted",
        [site("lb.test"), site("lb-forced.test", {"force-ssl-redirect": "true"})],
        Ask(
            host="lb.test",
            path="/a?b",
            headers={
                "X-Forwarded-For": "203.0.113.9, 10.9.1.1",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "front.test",
                "X-Forwarded-Port": "8443",
            },
            want={
                "backend_sees": {
                    "host": "front.test",
                    "headers": {
                        "X-Real-IP": "203.0.113.9",
                        "X-Forwarded-For": "203.0.113.9, 10.9.1.1, 192.168.50.100",
                        "X-Forwarded-Proto": "https",
                        "X-Forwarded-Host": "front.test",
                        "X-Forwarded-Port": "8443",
                        "X-Original-URI": "/a?b",
                        "X-Through": "rulegen",
                        "X-Scheme": "gopher",
                    },
                },
                "backend_headers_absent": ["X-Request-ID"],
            },
        ),
        Ask(
            host="lb.test",
            source="192.168.50.101",
            headers={"X-Forwarded-For": "203.0.113.9"},
            want={"backend_sees": {"headers": {"X-Real-IP": "192.168.50.101"}}},
        ),
        Ask(host="lb-forced.test", headers={"X-Forwarded-Proto": "https"}, want={"status": 200}),
        Ask(host="lb-forced.test", headers={"X-Forwarded-Proto": "http"}, want={"status": 301}),
        Ask(
            host="lb-forced.test",
            path="/x",
            headers={"X-Forwarded-Host": "front.test"},
            want={"status": 301, "location": "https://front.test/x"},
        ),
        # What several have written is a list, whose first is what the client asked for.
        Ask(
            host="lb-forced.test",
            path="/x",
            headers={"X-Forwarded-Host": "front.test:8080, middle.test"},
            want={"status": 301, "location": "https://front.test/x"},
        ),
        Ask(
            host="lb.test",
            headers={"X-Forwarded-Host": "front.test:8080, middle.test", "X-Forwarded-Proto": "https"},
            want={"backend_sees": {"host": "front.test:8080", "headers": {"X-Forwarded-Host": "front.test:8080"}}},
        ),
        Ask(host="lb.test", headers={"x_under_score": "1"}, want={"backend_sees": {"headers": {"x_under_score": "1"}}}),
    ),
    trusting(
        "headers-of-answers",
        [
            site("answers.test"),
            site("own-answers.test", {"custom-headers": "default/own-answers"}),
            site("forbidden-answers.test", {"custom-headers": "default/forbidden-answers"}),
        ],
        Ask(
            host="answers.test",
            headers=_answering({"X-Secret": "1", "X-Version": "2", "X-Frame-Options": "ALLOW", "Server": "own"}),
            want={
                "headers": {"X-Frame-Options": "DENY", "X-Team": "blue; v=1", "Server": "own"},
                "header_count": {"X-Frame-Options": 1},
                "headers_absent": ["X-Secret", "X-Version"],
            },
        ),
        Ask(
            host="own-answers.test",
            path="/status/500",
            headers=_answering({"X-Custom": "theirs"}),
            want={
                "headers": {"X-Custom": "mine", "X-Own": 'say "hi" for $5', "X-Team": "blue; v=1"},
                "header_count": {"X-Custom": 1, "X-Team": 1},
            },
        ),
        Ask(host="own-answers.test", headers=_answering({"X-Secret": "1"}), want={"headers_absent": ["X-Secret"]}),
        Ask(host="forbidden-answers.test", want={"status": 200, "headers_absent": ["X-Forbidden"]}),
    ),
    trusting(
        "redirects-as-set",
        [
            site("set-redirect.test", secret="set-redirect.test"),
            site("set-redirect.test", path="/plain", name="set-redirect-plain"),
            site_secret("set-redirect.test"),
        ],
        Ask(host="set-redirect.test", want={"status": 301}),
        Ask(host="set-redirect.test", path="/plain", want={"status": 200}),
        Ask(host="set-redirect.test", tls=True, want={"headers_absent": ["Strict-Transport-Security"]}),
    ),
    trusting(
        "gzip",
        [site("gzip.test"), site("gzip-text.test", service="mirror")],
        Ask(
            host="gzip.test",
            headers={"Accept-Encoding": "gzip"},
            want={"status": 200, "headers": {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}},
        ),
        Ask(host="gzip.test", want={"status": 200, "headers_absent": ["Content-Encoding"]}),
    ),
    trusting(
        "limits-as-set",
        [
            site("set-limit.test", {"limit-rps": "1", "limit-burst-multiplier": "1"}),
            site("set-body.test"),
            site("set-connections.test", {"limit-connections": "1"}),
        ],
        Ask(host="set-limit.test", times=8, at_once=True, want={"statuses": [200, 429]}),
        Ask(host="set-connections.test", path="/sleep/0.5", times=4, at_once=True, want={"statuses": [200, 430]}),
        Ask(host="set-body.test", method="POST", body=bytes(2049), want={"status": 413}),
    ),
    trusting(
        "sent-again-as-set",
        [site("again.test", service="hangs-up")],
        Ask(host="again.test", method="POST", body=b"x", times=10, want={"status": 200}),
    ),
]


def _logged(stage: Stage) -> object:
    """Each request has a line with what it was part of, but for those that are not to have one."""
    for path in ("/quiet/x", "/loud/x", "/status/404"):
        stage.client.ask_one(Ask(host="log.test", path=path))
    stage.client.ask_one(Ask(host="log-off.test", path="/off"))
    stage.client.ask_one(Ask(host="log-none.test", path="/none"))
    stage.client.ask_one(Ask(host="log.test", path="/end"))
    lines = [line.split("|") for line in stage.log("|/end|") if "log" in line.split("|")[0]]
    paths = [line[2] for line in lines]
    if paths[-3:] != ["/loud/x", "/none", "/end"]:
        return f"logged: {lines}"
    loud, none = lines[-3], lines[-2]
    wanted = ["log.test", "GET", "/loud/x", "200", "default", "log-ingress", "echo", "80", "default.echo.80"]
    if [*loud[:8], loud[8][: len("default.echo.80")]] != wanted or loud[9] != "192.168.50.100":
        return f"logged: {loud}"
    return (none[3:6] != ["503", "default", "log-none.test"]) and f"logged: {none}"


_LOGS = [
    trusting(
        "access-log",
        [
            site("log.test", name="log-ingress"),
            site("log-off.test", {"enable-access-log": "false"}),
            site("log-none.test", service="empty"),
        ],
        then=_logged,
    ),
]

SCENARIOS = (*_CORS, *_TOLD, *_SIZES, *_FORWARDED, *_LOGS)
