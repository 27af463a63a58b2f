"""Who may pass: certificates of clients, another server that is asked, networks, limits."""

from __future__ import annotations

from integration.ingress import objects
from integration.ingress.asking import basic_auth
from integration.ingress.features import SECOND_CLIENT, Ask, Stage, authority_secret, pair, site, site_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain

_CA = pair("ca")
_ALICE, _BOB = pair("alice", _CA), pair("bob", _CA)
_STRANGER = pair("alice", pair("ca-of-strangers"))
_BETWEEN = pair("ca-between", _CA)
_FAR = pair("carol", _BETWEEN)
_AUTH = "http://auth.default.svc.cluster.local"
_SEEN = {"auth-response-headers": "X-Auth-User, X-Seen"}


def _certified(host: str, annotations: dict[str, str] | None = None, *, secret: str = "ca") -> list[Document]:
    given = {"auth-tls-secret": f"default/{secret}-{host}", "ssl-redirect": "false", **(annotations or {})}
    made = [site(host, given, secret=host), site_secret(host)]
    return [*made, authority_secret(f"ca-{host}", _CA)] if secret == "ca" else made


def _asked(host: str, path: str = "/", annotations: dict[str, str] | None = None) -> Document:
    return site(host, {"auth-url": f"{_AUTH}{path}", **(annotations or {})})


def _headers(name: str, data: dict[str, str]) -> Document:
    return objects.config_map(name, data)


def _resumed(stage: Stage) -> object:
    """A session that was begun with another host lets nobody in, whatever was shown there."""
    wrong = []
    for newest in ("TLSv1_2", "TLSv1_3"):
        own = Ask(host="mtls.test", tls=True, identity=_ALICE, newest=newest)
        reported, reused = stage.client.resumed(own, own)
        if reported.status != 200 or not reused:
            wrong.append(f"{newest}: own session {reported.status}, resumed: {reused}")
        for host, identity in (
            ("mtls-off.test", None),
            ("mtls-any.test", _STRANGER),
            ("mtls-strangers.test", _STRANGER),
        ):
            begun = Ask(host=host, tls=True, identity=identity, newest=newest)
            reported, reused = stage.client.resumed(begun, Ask(host="mtls.test", tls=True))
            if reported.status not in {400, 421} and "access denied" not in reported.failure:
                wrong.append(f"{newest}: begun with {host}: {reported.status}, resumed: {reused}")
    return wrong


_TLS = [
    plain(
        "mtls-is-not-resumed-from-elsewhere",
        [
            site("mtls-strangers.test", {"auth-tls-secret": "default/strangers-ca"}, secret="mtls-strangers.test"),
            site_secret("mtls-strangers.test"),
            authority_secret("strangers-ca", pair("ca-of-strangers")),
        ],
        Ask(host="mtls-strangers.test", tls=True, identity=_STRANGER, want={"status": 200}),
        then=_resumed,
    ),
    plain(
        "mtls-on",
        _certified("mtls.test"),
        Ask(
            host="mtls.test",
            tls=True,
            identity=_ALICE,
            headers={"ssl-client-verify": "FORGED", "ssl-client-cert": "FORGED"},
            want={
                "status": 200,
                "backend_sees": {"headers": {"ssl-client-verify": "SUCCESS", "ssl-client-subject-dn": "CN=alice"}},
                "backend_headers_absent": ["ssl-client-cert"],
            },
        ),
        Ask(host="mtls.test", tls=True, want={"status": 400}),
        Ask(host="mtls.test", tls=True, identity=_STRANGER, want={"status": 400}),
        Ask(host="mtls.test", want={"status": 403}),
        # A name that asks for no certificate, or takes any, opens no door to one that does.
        *(
            Ask(host=host, tls=True, name=name, identity=_ALICE, want={"status_one_of": [400, 421]})
            for host in ("mtls.test", "MTLS.test:443", "mtls.test.")
            for name in ("", "unknown.test", "mtls-any.test", "mtls-off.test", "mtls-cn.test")
        ),
    ),
    plain(
        "mtls-optional",
        _certified("mtls-optional.test", {"auth-tls-verify-client": "optional"}),
        Ask(
            host="mtls-optional.test",
            tls=True,
            want={"status": 200, "backend_sees": {"headers": {"ssl-client-verify": "NONE"}}},
        ),
        Ask(host="mtls-optional.test", tls=True, identity=_STRANGER, want={"status": 400}),
        Ask(
            host="mtls-optional.test",
            headers={"ssl-client-verify": "SUCCESS", "ssl-client-subject-dn": "CN=alice"},
            want={"status": 200, "backend_headers_absent": ["ssl-client-verify", "ssl-client-subject-dn"]},
        ),
    ),
    plain(
        "mtls-optional-no-ca",
        _certified("mtls-any.test", {"auth-tls-verify-client": "optional_no_ca"}),
        Ask(
            host="mtls-any.test",
            tls=True,
            identity=_STRANGER,
            want={"status": 200, "backend_sees": {"headers": {"ssl-client-verify": "~^FAILED"}}},
        ),
    ),
    plain(
        "mtls-off",
        _certified("mtls-off.test", {"auth-tls-verify-client": "off"}),
        Ask(host="mtls-off.test", tls=True, want={"status": 200}),
    ),
    plain(
        "mtls-depth",
        [
            *_certified("mtls-depth.test", {"auth-tls-verify-depth": "0"}),
            *_certified("mtls-depth1.test", {"auth-tls-verify-depth": "1"}),
        ],
        Ask(host="mtls-depth.test", tls=True, identity=_FAR, want={"status": 400}),
        Ask(host="mtls-depth1.test", tls=True, identity=_FAR, want={"status": 200}),
    ),
    plain(
        "mtls-match-cn",
        _certified("mtls-cn.test", {"auth-tls-match-cn": "CN=alice"}),
        Ask(host="mtls-cn.test", tls=True, identity=_ALICE, want={"status": 200}),
        Ask(host="mtls-cn.test", tls=True, identity=_BOB, want={"status": 403}),
    ),
    plain(
        "mtls-error-page",
        _certified("mtls-page.test", {"auth-tls-error-page": "https://help.test/no-certificate"}),
        Ask(
            host="mtls-page.test",
            tls=True,
            want={"status": 302, "location": "https://help.test/no-certificate"},
        ),
        Ask(host="mtls-page.test", tls=True, identity=_ALICE, want={"status": 200}),
    ),
    plain(
        "mtls-pass-certificate",
        _certified("mtls-pass.test", {"auth-tls-pass-certificate-to-upstream": "true"}),
        Ask(
            host="mtls-pass.test",
            tls=True,
            identity=_ALICE,
            want={
                "status": 200,
                "backend_sees": {
                    "headers": {
                        "ssl-client-cert": "~^-----BEGIN%20CERTIFICATE-----%0A",
                        "ssl-client-issuer-dn": "CN=ca",
                    }
                },
            },
        ),
    ),
    plain(
        "mtls-without-ca",
        _certified("mtls-broken.test", secret="nothing"),
        Ask(host="mtls-broken.test", tls=True, identity=_ALICE, want={"status": 403}),
        Ask(host="mtls-broken.test", want={"status": 403}),
    ),
]

_EXTERNAL = [
    plain(
        "auth-url-passes",
        [_asked("auth.test", "/check?a=b", _SEEN)],
        Ask(
            host="auth.test",
            path="/x?y=1&z=2",
            method="POST",
            body=b"b" * 100,
            headers={"X-Auth-User": "forged", "Cookie": "session=1"},
            want={
                "status": 200,
                "backend": "echo",
                "backend_sees": {"path": "/x?y=1&z=2", "method": "POST", "headers": {"X-Auth-User": "jane"}},
                "cookie": "verdict=200; Path=/",
                "judge_sees": {
                    "method": "GET",
                    "path": "/check?a=b",
                    "headers": {
                        "Host": "auth.default.svc.cluster.local",
                        "Cookie": "session=1",
                        "X-Original-URL": "http://auth.test/x?y=1&z=2",
                        "X-Original-Method": "POST",
                        "X-Auth-Request-Redirect": "/x?y=1&z=2",
                        "X-Real-IP": "192.168.50.100",
                        "X-Request-ID": "~^[0-9a-f]{32}$",
                    },
                    "absent": ["Content-Length", "Transfer-Encoding"],
                },
            },
        ),
    ),
    plain(
        "auth-url-refuses",
        [_asked("auth-401.test", "/status/401"), _asked("auth-403.test", "/status/403")],
        Ask(host="auth-401.test", want={"status": 401, "headers": {"WWW-Authenticate": "Bearer"}}),
        Ask(host="auth-403.test", want={"status": 403}),
    ),
    plain(
        "auth-signin",
        [
            _asked("signin.test", "/status/401", {"auth-signin": "https://login.test/start"}),
            _asked(
                "signin-rd.test",
                "/status/401",
                {"auth-signin": "https://login.test/start?a=b", "auth-signin-redirect-param": "back"},
            ),
            _asked(
                "signin-own.test",
                "/status/401",
                {"auth-signin": "https://$host/oauth2/start?rd=$escaped_request_uri"},
            ),
            _asked("signin-403.test", "/status/403", {"auth-signin": "https://login.test/start"}),
        ],
        Ask(
            host="signin.test",
            path="/x?y=1&z=2",
            want={
                "status": 302,
                "location_one_of": [
                    "https://login.test/start?rd=http://signin.test/x?y=1%26z=2",
                    "https://login.test/start?rd=http://signin.test%2Fx%3Fy%3D1%26z%3D2",
                ],
                "cookie": "verdict=401; Path=/",
            },
        ),
        Ask(
            host="signin-rd.test",
            path="/x",
            want={"status": 302, "location": "https://login.test/start?a=b&back=http://signin-rd.test/x"},
        ),
        Ask(host="signin-own.test", path="/x", want={"location": "https://signin-own.test/oauth2/start?rd=/x"}),
        Ask(host="signin-403.test", want={"status": 403}),
    ),
    plain(
        "auth-server-down",
        [
            site("auth-down.test", {"auth-url": "http://dead.default.svc.cluster.local:81/"}),
            site("auth-broken.test", {"auth-url": f"{_AUTH}/status/500"}),
            site("auth-empty.test", {"auth-url": "http://empty.default.svc.cluster.local/"}),
            site("auth-nowhere.test", {"auth-url": "http://nowhere.example.test/"}),
            site("auth-hung.test", {"auth-url": "http://broken.default.svc.cluster.local/"}),
        ],
        *(
            Ask(host=f"auth-{name}.test", want={"status_one_of": [500, 503]})
            for name in ("down", "broken", "empty", "nowhere", "hung")
        ),
    ),
    plain(
        "auth-options",
        [
            _asked("auth-method.test", "/", {**_SEEN, "auth-method": "POST"}),
            _asked(
                "auth-more.test",
                "/",
                {
                    **_SEEN,
                    "auth-proxy-set-headers": "default/for-the-judge",
                    "auth-request-redirect": "https://$host/back",
                },
            ),
            _headers("for-the-judge", {"X-Team": "blue", "X-Forwarded-Proto": "https"}),
        ],
        Ask(host="auth-method.test", want={"status": 200, "judge_sees": {"method": "POST"}}),
        Ask(
            host="auth-more.test",
            want={
                "status": 200,
                "judge_sees": {
                    "headers": {
                        "X-Team": "blue",
                        "X-Forwarded-Proto": "https",
                        "X-Auth-Request-Redirect": "https://auth-more.test/back",
                    }
                },
                "backend_headers_absent": ["X-Team"],
            },
        ),
    ),
    plain(
        "auth-always-set-cookie",
        [_asked("auth-cookie.test", "/", {"auth-always-set-cookie": "true"}), _asked("auth-no-cookie.test")],
        Ask(host="auth-cookie.test", path="/status/500", want={"status": 500, "cookie": "verdict=200; Path=/"}),
        Ask(host="auth-no-cookie.test", path="/status/500", want={"status": 500, "headers_absent": ["Set-Cookie"]}),
    ),
    plain(
        "auth-and-cors",
        [_asked("auth-cors.test", "/status/401", {"enable-cors": "true"})],
        Ask(host="auth-cors.test", method="OPTIONS", headers={"Origin": "http://a.test"}, want={"status": 204}),
        Ask(
            host="auth-cors.test",
            headers={"Origin": "http://a.test"},
            want={"status": 401, "headers": {"Access-Control-Allow-Origin": "*"}},
        ),
    ),
    plain(
        "auth-is-no-error-to-replace",
        [
            _asked(
                "auth-errors.test",
                "/status/401",
                {"custom-http-errors": "401,403,500,503", "default-backend": "errors"},
            ),
            site(
                "auth-errors-down.test",
                {
                    "auth-url": f"{_AUTH}/status/503",
                    "custom-http-errors": "401,403,500,503",
                    "default-backend": "errors",
                },
            ),
        ],
        Ask(
            host="auth-errors.test",
            want={"backend": "errors", "backend_sees": {"path": "/", "headers": {"X-Code": "401"}}},
        ),
        Ask(
            host="auth-errors-down.test",
            want={"backend": "errors", "backend_sees": {"path": "/", "headers": {"X-Code": "500"}}},
        ),
    ),
    plain(
        "satisfy-any-with-auth-url",
        [
            _asked("any.test", "/status/401", {"satisfy": "any", "allowlist-source-range": "192.168.50.100/32"}),
            _asked("any-ok.test", "/", {"satisfy": "any", "allowlist-source-range": "203.0.113.0/24"}),
        ],
        Ask(host="any.test", want={"status": 200}),
        Ask(host="any.test", source=SECOND_CLIENT, want={"status": 401}),
        Ask(host="any-ok.test", want={"status": 200}),
    ),
]

_EXTERNAL += [
    plain(
        "auth-server-outside-of-the-cluster",
        [
            site("by-variable.test", {**_SEEN, "auth-url": "http://backend.dns.test:9100/check?u=$request_uri"}),
            site("by-address.test", {**_SEEN, "auth-url": "http://10.244.255.1:9100/check"}),
            site("by-loopback.test", {**_SEEN, "auth-url": "http://127.0.0.1:9100/check"}),
            site("by-user.test", {**_SEEN, "auth-url": "http://user@backend.dns.test:9100/"}),
        ],
        Ask(host="by-variable.test", path="/a", want={"status": 200, "judge_sees": {"path": "/check?u=/a"}}),
        Ask(
            host="by-address.test",
            want={"status": 200, "judge_sees": {"path": "/check", "headers": {"Host": "10.244.255.1:9100"}}},
        ),
        Ask(host="by-loopback.test", want={"status": 503}),
        Ask(host="by-user.test", want={"status": 503}),
    ),
    plain(
        "auth-of-the-host-itself",
        [site("backend.dns.test", {**_SEEN, "auth-url": "http://$host:9100/check"}, name="by-host")],
        Ask(host="backend.dns.test", want={"status": 200, "judge_sees": {"path": "/check"}}),
    ),
    plain(
        "auth-beside-large-bodies-and-headers",
        [
            _asked("auth-body.test", "/", {"proxy-body-size": "4m"}),
            site(
                "auth-headers.test",
                {
                    **_SEEN,
                    "auth-url": f"{_AUTH}/large/9000".replace("auth", "auth-large", 1),
                    "proxy-buffer-size": "16k",
                },
            ),
            site("auth-headers-none.test", {"auth-url": f"{_AUTH}/large/9000".replace("auth", "auth-too-large", 1)}),
        ],
        Ask(host="auth-body.test", method="POST", body=bytes(2 << 20), want={"status": 200}),
        Ask(host="auth-body.test", method="POST", body=bytes(5 << 20), want={"status": 413}),
        Ask(host="auth-headers.test", want={"status": 200, "backend_sees": {"headers": {"X-Auth-User": "jane"}}}),
        Ask(host="auth-headers-none.test", want={"status": 500}),
        Ask(host="auth-body.test", path="/x", method="POST", body=bytes(4 << 20), want={"status": 200}),
    ),
    plain(
        "auth-of-every-method",
        [_asked("auth-methods.test", "/", _SEEN)],
        *(
            Ask(host="auth-methods.test", method=method, body=body, want={"status": 200, "backend": "echo"})
            for method, body in (("PUT", b"x"), ("DELETE", b""), ("PATCH", b"x"), ("OPTIONS", b""))
        ),
        Ask(host="auth-methods.test", method="HEAD", want={"status": 200}),
    ),
]

_BASIC = [
    plain(
        "basic-auth-strips-authorization",
        [
            site("basic.test", {"auth-type": "basic", "auth-secret": "users", "auth-realm": 'Who is "it"'}),
            site("map.test", {"auth-type": "basic", "auth-secret": "user-map", "auth-secret-type": "auth-map"}),
            objects.secret("users", "Opaque", {"auth": b"jane:{PLAIN}pass\n"}),
            objects.secret("user-map", "Opaque", {"jane": b"{PLAIN}pass"}),
            site("bearer.test"),
        ],
        Ask(
            host="basic.test",
            headers=basic_auth("jane", "pass"),
            want={"status": 200, "backend_headers_absent": ["Authorization"]},
        ),
        Ask(host="basic.test", want={"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="Who is \\"it\\""'}}),
        Ask(host="basic.test", headers=basic_auth("jane", "other"), want={"status": 401}),
        Ask(host="map.test", headers=basic_auth("jane", "pass"), want={"status": 200}),
        Ask(
            host="bearer.test",
            headers={"Authorization": "Bearer x"},
            want={"status": 200, "backend_sees": {"headers": {"Authorization": "Bearer x"}}},
        ),
    ),
    plain(
        "denylist-comes-first",
        [
            site("deny.test", {"denylist-source-range": "192.168.50.101"}),
            site(
                "deny-allow.test",
                {"denylist-source-range": "192.168.50.101", "whitelist-source-range": "192.168.50.0/24"},
            ),
        ],
        *(Ask(host=host, want={"status": 200}) for host in ("deny.test", "deny-allow.test")),
        *(Ask(host=host, source=SECOND_CLIENT, want={"status": 403}) for host in ("deny.test", "deny-allow.test")),
    ),
]


def _connections(stage: Stage) -> object:
    """Of six long requests at once, a client with room for two gets two answers."""
    replies = stage.client.ask_all(Ask(host="connections.test", path="/sleep/0.7", times=6, at_once=True))
    statuses = sorted(reply.status for reply in replies)
    return statuses != [200, 200, 503, 503, 503, 503] and statuses


_LIMITS = [
    plain("limit-connections", [site("connections.test", {"limit-connections": "2"})], then=_connections),
    plain(
        "limit-rpm",
        [site("rpm.test", {"limit-rpm": "2", "limit-burst-multiplier": "2"})],
        Ask(host="rpm.test", times=10, want={"status_counts": {"200": [5, 5], "503": [5, 5]}}),
        Ask(host="rpm.test", source=SECOND_CLIENT, want={"status": 200}),
    ),
    plain(
        "limit-allowlist",
        [site("rps.test", {"limit-rps": "1", "limit-allowlist": SECOND_CLIENT})],
        Ask(host="rps.test", times=12, at_once=True, want={"statuses": [200, 503]}),
        Ask(host="rps.test", times=12, at_once=True, source=SECOND_CLIENT, want={"status": 200}),
    ),
    plain(
        "limit-rate",
        [site("rate.test", {"limit-rate": "10", "proxy-buffering": "on"}, "mirror")],
        Ask(host="rate.test", method="POST", body=bytes(40000), want={"size": 40000, "seconds": [0.8, 8]}),
    ),
]

SCENARIOS = (*_TLS, *_EXTERNAL, *_BASIC, *_LIMITS)
