"""Who may pass: certificates of clients, passwords, networks, limits."""

from __future__ import annotations

from integration.ingress import objects
from integration.ingress.asking import basic_auth
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import SECOND_CLIENT, Stage
from integration.ingress.identities import authority_secret, pair, revocations, site_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain

_CA = pair("ca")
_ALICE, _BOB = pair("alice", _CA), pair("bob", _CA)
_STRANGER = pair("alice", pair("ca-of-strangers"))
_BETWEEN = pair("ca-between", _CA)
_FAR = pair("carol", _BETWEEN)
_FARTHER = pair("dave", pair("ca-below", _BETWEEN))


def _certified(host: str, annotations: dict[str, str] | None = None, *, secret: str = "ca") -> list[Document]:
    given = {"auth-tls-secret": f"default/{secret}-{host}", "ssl-redirect": "false", **(annotations or {})}
    made = [site(host, given, secret=host), site_secret(host)]
    return [*made, authority_secret(f"ca-{host}", _CA)] if secret == "ca" else made


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
        # As in ingress-nginx, HTTP is not verified; it proves nothing either.
        Ask(
            host="mtls.test",
            headers={"ssl-client-verify": "SUCCESS", "ssl-client-subject-dn": "CN=alice"},
            want={"status": 200, "backend_headers_absent": ["ssl-client-verify", "ssl-client-subject-dn"]},
        ),
        # A name that asks for no certificate, or takes any, opens no door to one that does.
        *(
            Ask(host=host, tls=True, name=name, identity=_ALICE, want={"status_one_of": [400, 421]})
            for host in ("mtls.test", "MTLS.test:443", "mtls.test.")
            for name in ("", "unknown.test", "mtls-any.test", "mtls-off.test", "mtls-cn.test")
        ),
    ),
    plain(
        "client-certificate-revoked",
        [
            *_certified("mtls-revoked.test", secret="listed"),
            objects.secret("listed-mtls-revoked.test", "Opaque", {"ca.crt": _CA.pem, "ca.crl": revocations(_CA, _BOB)}),
            *_certified("mtls-listed-by-others.test", secret="listed"),
            objects.secret(
                "listed-mtls-listed-by-others.test",
                "Opaque",
                {"ca.crt": _CA.pem, "ca.crl": revocations(pair("ca-of-strangers"), _BOB)},
            ),
        ],
        Ask(host="mtls-revoked.test", tls=True, identity=_ALICE, want={"status": 200}),
        Ask(host="mtls-revoked.test", tls=True, identity=_BOB, want={"status": 400}),
        Ask(host="mtls-listed-by-others.test", tls=True, identity=_ALICE, want={"status": 403}),
    ),
    plain(
        "mtls-and-redirect-to-https",
        [
            *_certified("mtls-secure.test", {"ssl-redirect": "true"}),
            site("mtls-secure.test", path="/.well-known/acme-challenge/x", path_type="Exact", name="mtls-solver"),
        ],
        Ask(host="mtls-secure.test", path="/.well-known/acme-challenge/x", want={"status": 200, "backend": "echo"}),
        Ask(host="mtls-secure.test", path="/x", want={"status": 308, "location": "https://mtls-secure.test/x"}),
        Ask(host="mtls-secure.test", path="/.well-known/acme-challenge/x", tls=True, want={"status": 400}),
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
            *_certified("mtls-depth2.test", {"auth-tls-verify-depth": "2"}),
        ],
        # As in ingress-nginx, 0 stands for the default, which is 1.
        Ask(host="mtls-depth.test", tls=True, identity=_FAR, want={"status": 200}),
        Ask(host="mtls-depth1.test", tls=True, identity=_FAR, want={"status": 200}),
        Ask(host="mtls-depth1.test", tls=True, identity=_FARTHER, want={"status": 400}),
        Ask(host="mtls-depth2.test", tls=True, identity=_FARTHER, want={"status": 200}),
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
        "mtls-and-auth-url",
        _certified(
            "mtls-asked.test",
            {
                "auth-url": "http://auth.default.svc.cluster.local/",
                "auth-response-headers": "X-Seen",
                "auth-tls-pass-certificate-to-upstream": "true",
            },
        ),
        Ask(
            host="mtls-asked.test",
            tls=True,
            identity=_ALICE,
            headers={"ssl-client-issuer-dn": "FORGED"},
            want={
                "status": 200,
                "judge_sees": {
                    "headers": {
                        "ssl-client-verify": "SUCCESS",
                        "ssl-client-subject-dn": "CN=alice",
                        "ssl-client-issuer-dn": "CN=ca",
                        "ssl-client-cert": "~^-----BEGIN%20CERTIFICATE-----%0A",
                    }
                },
            },
        ),
        Ask(
            host="mtls-asked.test",
            headers={"ssl-client-verify": "SUCCESS", "ssl-client-issuer-dn": "CN=ca", "ssl-client-cert": "FORGED"},
            want={
                "status": 200,
                "judge_sees": {"absent": ["ssl-client-verify", "ssl-client-issuer-dn", "ssl-client-cert"]},
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

_CHALLENGE = "/.well-known/acme-challenge"
_BY_PASSWORD = {"auth-type": "basic", "auth-secret": "users-of-free"}
_BY_SERVER = {
    "auth-url": "http://auth.default.svc.cluster.local/status/401",
    "auth-response-headers": "X-Auth-User",
}
_CLOSED = {
    "password": _BY_PASSWORD,
    "asked": _BY_SERVER,
    "two-ways": {**_BY_PASSWORD, **_BY_SERVER},
}

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
        "no-auth-locations",
        [
            *(
                site(f"{name}.free.test", given, path=path, path_type=kind, name=f"{name}-{number}")
                for name, given in _CLOSED.items()
                for number, (path, kind) in enumerate(
                    (("/", "Prefix"), (_CHALLENGE, "Prefix"), (f"{_CHALLENGE}/exact", "Exact"), ("/x", "Prefix"))
                )
            ),
            objects.secret("users-of-free", "Opaque", {"auth": b"jane:{PLAIN}pass\n"}),
        ],
        *(
            Ask(
                host=f"{name}.free.test",
                path=path,
                headers={"X-Auth-User": "forged", "Authorization": "Bearer x"},
                want={
                    "status": 200,
                    "backend_sees": {"headers": {"Authorization": "Bearer x"}},
                    **({"backend_headers_absent": ["X-Auth-User"]} if name != "password" else {}),
                },
            )
            for name in _CLOSED
            for path in (f"{_CHALLENGE}/token", f"{_CHALLENGE}/exact")
        ),
        *(
            Ask(host=f"{name}.free.test", path=path, want={"status": 401})
            for name in _CLOSED
            # The path of the Ingress counts, not that of the request.
            for path in ("/", "/x", f"/x{_CHALLENGE}/token", "/.well-known/acme", f"{_CHALLENGE}-not")
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
        [
            site("rps.test", {"limit-rps": "1", "limit-allowlist": SECOND_CLIENT}),
            site("rps-older-name.test", {"limit-rps": "1", "limit-whitelist": SECOND_CLIENT}),
        ],
        Ask(host="rps.test", times=12, at_once=True, want={"statuses": [200, 503]}),
        Ask(host="rps.test", times=12, at_once=True, source=SECOND_CLIENT, want={"status": 200}),
        Ask(host="rps-older-name.test", times=12, at_once=True, want={"statuses": [200, 503]}),
        Ask(host="rps-older-name.test", times=12, at_once=True, source=SECOND_CLIENT, want={"status": 200}),
    ),
    plain(
        "limit-rate",
        [site("rate.test", {"limit-rate": "10", "proxy-buffering": "on"}, "mirror")],
        Ask(host="rate.test", method="POST", body=bytes(40000), want={"size": 40000, "seconds": [0.8, 8]}),
    ),
]

_PREFLIGHT = {"Origin": "https://app.test", "Access-Control-Request-Method": "PUT"}
_WHO_MAY = [
    plain(
        "who-may-by-password-and-address",
        [
            objects.secret("who-may", "Opaque", {"auth": b"anna:{PLAIN}open\n"}),
            site("password.test", {"auth-type": "basic", "auth-secret": "who-may", "enable-cors": "true"}),
            site(
                "both-names.test",
                {"whitelist-source-range": "192.168.50.0/24", "allowlist-source-range": SECOND_CLIENT},
            ),
            site("no-burst.test", {"limit-rpm": "1", "limit-burst-multiplier": "0"}),
        ],
        Ask(host="password.test", want={"status": 401}),
        Ask(host="password.test", headers=basic_auth("anna", "shut"), want={"status": 401}),
        Ask(host="password.test", headers=basic_auth("bob", "open"), want={"status": 401}),
        Ask(
            host="password.test",
            headers=basic_auth("anna", "open"),
            want={"status": 200, "backend_headers_absent": ["Authorization"]},
        ),
        Ask(host="password.test", method="OPTIONS", headers=_PREFLIGHT, want={"status": 204}),
        Ask(host="both-names.test", want={"status": 403}),
        Ask(host="both-names.test", source=SECOND_CLIENT, want={"status": 200}),
        Ask(host="no-burst.test", times=4, want={"status_counts": {"200": [1, 1], "503": [3, 3]}}),
    ),
    plain(
        "what-backends-are-told-of-clients",
        [site("facts.test")],
        Ask(
            host="facts.test",
            headers={"X-Real-IP": "203.0.113.1", "X-Scheme": "ftp", "Proxy": "http://203.0.113.1"},
            want={
                "backend_sees": {"headers": {"X-Real-IP": "$client_ip", "X-Scheme": "http", "X-Request-ID": "~."}},
                "backend_headers_absent": ["Proxy"],
            },
        ),
    ),
]

SCENARIOS = (*_TLS, *_BASIC, *_LIMITS, *_WHO_MAY)
