"""Headers: cross-origin requests, what backends are told of the client, and the sizes of what is sent."""

from __future__ import annotations

from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.identities import site_secret
from integration.ingress.scenarios.plain import answering, plain


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
                    "cors-allow-methods": "GET, PROPFIND, MKCOL",
                    "cors-allow-headers": "X-One, X-Two",
                    "cors-expose-headers": "*, X-Three",
                    "cors-allow-credentials": "false",
                    "cors-max-age": "600",
                },
            ),
            site("cors-methods.test", {"enable-cors": "true", "cors-allow-methods": "GET, POST"}),
            site("cors-blank.test", {"enable-cors": "true", "cors-allow-origin": " ", "cors-allow-headers": "*"}),
        ],
        Ask(
            host="cors-set.test",
            method="OPTIONS",
            headers={"Origin": "https://a.test", "Access-Control-Request-Method": "POST"},
            want={
                "status": 204,
                "headers": {
                    "Access-Control-Allow-Origin": "https://a.test",
                    "Access-Control-Allow-Methods": "GET, PROPFIND, MKCOL",
                    "Access-Control-Allow-Headers": "X-One, X-Two",
                    "Access-Control-Max-Age": "600",
                },
                "headers_absent": ["Access-Control-Allow-Credentials"],
            },
        ),
        _from("https://a.test", {"headers": {"Access-Control-Expose-Headers": "*, X-Three"}}, "cors-set.test"),
        _from("https://a.test", {"headers": {"Access-Control-Allow-Methods": "GET, POST"}}, "cors-methods.test"),
        _from(
            "https://any.test",
            {"headers": {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "~Authorization"}},
            "cors-blank.test",
        ),
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
        "cors-any-origin-beside-others",
        [site("cors-any.test", {"enable-cors": "true", "cors-allow-origin": "https://a.test, *"})],
        _from("https://b.test", {"headers": {"Access-Control-Allow-Origin": "*"}}, "cors-any.test"),
    ),
    plain(
        "cors-of-the-backend-is-replaced",
        [site("cors-own.test", {"enable-cors": "true"}), site("cors-off.test")],
        Ask(
            host="cors-own.test",
            headers={"Origin": "https://a.test", **answering({"Access-Control-Allow-Origin": "https://own.test"})},
            want={"headers": {"Access-Control-Allow-Origin": "*"}, "header_count": {"Access-Control-Allow-Origin": 1}},
        ),
        Ask(
            host="cors-off.test",
            headers=answering({"Access-Control-Allow-Origin": "https://own.test"}),
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
            headers=answering(
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
        Ask(host="buffers.test", headers=answering({"X-Big": "b" * 6000}), want={"status": 502}),
        Ask(
            host="buffers-big.test",
            headers=answering({"X-Big": "b" * 6000}),
            want={"status": 200, "headers": {"X-Big": "b" * 6000}},
        ),
        Ask(host="buffers-on.test", method="POST", body=bytes(500_000), want={"status": 200, "size": 500_000}),
        Ask(host="buffers-odd.test", headers=answering({"X-Big": "b" * 6000}), want={"status": 200}),
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
        Ask(host="nohsts.test", tls=True, want={"status": 200, "header_count": {"Strict-Transport-Security": 1}}),
        Ask(host="unknown.test", tls=True, want={"status": 404, "headers_absent": ["Strict-Transport-Security"]}),
    ),
]

SCENARIOS = (*_CORS, *_TOLD, *_SIZES)
