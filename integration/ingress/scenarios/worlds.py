"""Settings for all hosts, and flags: each world is served by itself."""

from __future__ import annotations

import json

from integration.ingress import objects, spaces
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import CLIENT_V6, NODE_V6, SECOND_CLIENT, Scenario, Stage, World
from integration.ingress.identities import pair, site_secret, tls_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import answering


def _in(world: World, name: str, documents: list[Document], *asks: Ask) -> Scenario:
    return Scenario(name=name, world=world, documents=tuple(documents), asks=asks)


_ASKING = World(
    name="asking",
    config={
        "global-auth-url": "http://auth.default.svc.cluster.local/status/401",
        "global-auth-signin": "https://login.test/start",
        "global-auth-response-headers": "X-Auth-User",
        "no-auth-locations": "/.well-known/acme-challenge,/public",
        "whitelist-source-range": "192.168.50.0/24",
        "block-cidrs": SECOND_CLIENT,
        "block-user-agents": "~*evil, Exactly This",
        "block-referers": "~spam\\.test",
        "custom-http-errors": "404,503",
        "ssl-protocols": "TLSv1.2",
        "ssl-reject-handshake": "true",
        "use-http2": "false",
        "disable-access-log": "true",
        "enable-real-ip": "true",
        "forwarded-for-header": "X-Client",
        "proxy-real-ip-cidr": "192.168.50.100",
    },
    flags={"default-backend-service": "default/errors"},
)

_GLOBAL = [
    _in(
        _ASKING,
        "global-auth",
        [
            site("asked.test"),
            site("asked.test", path="/public", name="asked-public"),
            site("unasked.test", {"enable-global-auth": "false"}),
            site(
                "asks-itself.test",
                {"auth-url": "http://auth.default.svc.cluster.local/", "auth-response-headers": "X-Auth-User"},
            ),
        ],
        Ask(
            host="asked.test",
            path="/x",
            want={"status": 302, "location": "https://login.test/start?rd=http://asked.test/x"},
        ),
        Ask(host="asked.test", path="/public/x", want={"status": 200, "backend": "echo"}),
        Ask(host="unasked.test", want={"status": 200, "backend": "echo"}),
        Ask(
            host="asks-itself.test",
            want={"status": 200, "backend_sees": {"headers": {"X-Auth-User": "jane"}}},
        ),
    ),
    _in(
        _ASKING,
        "blocked-everywhere",
        [
            site("open.test", {"enable-global-auth": "false"}),
            site("open-own.test", {"enable-global-auth": "false", "whitelist-source-range": "0.0.0.0/0"}),
            site("www.open-too.test", {"from-to-www-redirect": "true"}),
            site("open-any.test", {"satisfy": "any", "auth-url": "http://auth.default.svc.cluster.local/"}),
        ],
        # A password, or whatever lets in, lets nobody in whom all Ingresses keep out.
        Ask(host="open-any.test", want={"status": 200}),
        Ask(host="open-any.test", source=SECOND_CLIENT, want={"status": 403}),
        Ask(host="open-too.test", headers={"User-Agent": "An EVIL one"}, want={"status": 403}),
        Ask(host="open-too.test", want={"status": 308}),
        *(
            ask
            for host in ("open.test", "open-own.test")
            for ask in (
                Ask(host=host, want={"status": 200}),
                Ask(host=host, source=SECOND_CLIENT, want={"status": 403}),
                Ask(host=host, headers={"User-Agent": "An EVIL one"}, want={"status": 403}),
                Ask(host=host, headers={"User-Agent": "Exactly This"}, want={"status": 403}),
                Ask(host=host, headers={"User-Agent": "exactly THIS"}, want={"status": 403}),
                Ask(host=host, headers={"User-Agent": "Not Exactly This"}, want={"status": 200}),
                Ask(host=host, headers={"Referer": "https://spam.test/"}, want={"status": 403}),
            )
        ),
        # A load balancer tells who it speaks for.
        Ask(host="open.test", headers={"X-Client": SECOND_CLIENT}, want={"status": 403}),
        Ask(host="open.test", headers={"X-Client": "203.0.113.1"}, want={"status": 403}),
        Ask(host="open-own.test", headers={"X-Client": "203.0.113.1"}, want={"status": 200}),
        Ask(host="open.test", headers={"X-Forwarded-For": "203.0.113.1"}, want={"status": 200}),
        Ask(host="open.test", address=NODE_V6, source=CLIENT_V6, want={"status": 403}),
    ),
    _in(
        _ASKING,
        "default-backend-of-all",
        [
            site("errors.test", {"enable-global-auth": "false"}),
            site("errors-none.test", {"enable-global-auth": "false"}, path="/only"),
            site("errors-empty-all.test", {"enable-global-auth": "false"}, "empty"),
        ],
        Ask(host="nobody.test", path="/x", want={"status": 200, "backend": "errors", "backend_sees": {"path": "/x"}}),
        Ask(host="errors-none.test", path="/x", want={"status": 200, "backend": "errors"}),
        Ask(
            host="errors.test",
            path="/status/404",
            want={"backend": "errors", "backend_sees": {"headers": {"X-Code": "404", "X-Service-Name": "echo"}}},
        ),
        # Where nothing is behind a path, too; but nobody is let pass who was kept out.
        Ask(
            host="errors-empty-all.test",
            path="/x",
            want={"backend": "errors", "backend_sees": {"headers": {"X-Code": "503", "X-Original-URI": "/x"}}},
        ),
        Ask(host="errors.test", path="/status/403", want={"status": 403, "backend": "echo"}),
    ),
    _in(
        _ASKING,
        "tls-of-all",
        [
            site("tls-all.test", {"enable-global-auth": "false"}, secret="tls-all.test"),
            site_secret("tls-all.test"),
            site("tls-none.test", {"enable-global-auth": "false"}),
        ],
        Ask(
            host="tls-all.test",
            tls=True,
            alpn=("h2", "http/1.1"),
            want={"status": 200, "tls": ["TLSv1.2", "", "http/1.1"]},
        ),
        Ask(host="nobody.test", tls=True, want={"fails": True}),
        Ask(host="nobody.test", tls=True, name="", want={"fails": True}),
        Ask(host="tls-none.test", tls=True, want={"status": 200}),
    ),
]

_PROXIED = World(
    name="proxied",
    config={
        "use-proxy-protocol": "true",
        "use-port-in-redirects": "true",
        "proxy-real-ip-cidr": "192.168.50.100/32",
        "log-format-escape-json": "true",
        "log-format-upstream": '{"host": "$host", "agent": "$http_user_agent", "client": "$remote_addr"}',
        "bind-address": f"{spaces.NODE},{NODE_V6}",
        "disable-ipv6": "true",
    },
    flags={
        "http-port": "8081",
        "https-port": "8444",
        "controller-class": "k8s.io/ingress-nginx",
        "annotations-prefix": "ingress.example.test",
        "default-ssl-certificate": "default/own-default",
    },
    documents=(
        tls_secret("own-default", pair("own-default", names=("nobody.test",))),
        objects.ingress_class("nginx", "k8s.io/ingress-nginx"),
    ),
)


def _taken(host: str, annotations: dict[str, str] | None = None, **more: str) -> Document:
    """Return an Ingress of the class, and with the annotations, that are taken over."""
    made = site(host, annotations, prefix="ingress.example.test", **more)
    made["spec"]["ingressClassName"] = "nginx"
    return made


def _proxied(host: str, *, client: str = "203.0.113.7", tls: bool = False, to: int = 8081, **more: object) -> Ask:
    before = f"PROXY TCP4 {client} 192.168.50.10 5000 {to}\r\n".encode()
    return Ask(host=host, before=before, port=8444 if tls else 8081, tls=tls, **more)  # type: ignore[arg-type]


_FLAGS = [
    _in(
        _PROXIED,
        "proxy-protocol",
        [_taken("proxied.test"), _taken("proxied-list.test", {"whitelist-source-range": "203.0.113.7"})],
        _proxied(
            "proxied.test",
            want={
                "status": 200,
                "backend_sees": {"headers": {"X-Real-IP": "203.0.113.7", "X-Forwarded-For": "203.0.113.7"}},
            },
        ),
        _proxied("proxied-list.test", want={"status": 200}),
        _proxied("proxied-list.test", client="203.0.113.8", want={"status": 403}),
        # Whom we do not trust may say what it likes.
        _proxied("proxied-list.test", source=SECOND_CLIENT, want={"status": 403}),
        Ask(host="proxied.test", port=8081, want={"fails": True}),
    ),
    _in(
        _PROXIED,
        "proxy-protocol-of-who-has-ended-tls",
        [_taken("offloaded.test", {"force-ssl-redirect": "true"})],
        _proxied("offloaded.test", want={"status": 308}),
        _proxied("offloaded.test", to=443, source=SECOND_CLIENT, want={"status": 308}),
        _proxied(
            "offloaded.test",
            to=443,
            want={"status": 200, "backend_sees": {"headers": {"X-Forwarded-Proto": "https"}}},
        ),
    ),
    _in(
        _PROXIED,
        "ports-and-addresses",
        [
            _taken("ports.test", {"force-ssl-redirect": "true"}),
            _taken("ports-none.test", {"force-ssl-redirect": "true", "use-port-in-redirects": "false"}),
            _taken("ports-www.test", {"from-to-www-redirect": "true"}),
            _taken("ports-root.test", {"app-root": "/app"}),
        ],
        _proxied("ports.test:8081", path="/x", want={"status": 308, "location": "https://ports.test:8444/x"}),
        _proxied("ports-none.test:8081", path="/x", want={"status": 308, "location": "https://ports-none.test/x"}),
        _proxied(
            "www.ports-www.test:8081", path="/x", want={"status": 308, "location": "http://ports-www.test:8081/x"}
        ),
        _proxied(
            "www.ports-www.test:8444",
            path="/x",
            tls=True,
            want={"status": 308, "location": "https://ports-www.test:8444/x"},
        ),
        _proxied("ports-root.test:8081", want={"status": 302, "location": "http://ports-root.test:8081/app"}),
        Ask(host="ports-root.test", want={"fails": True}),
        Ask(host="ports-root.test", port=8081, address=NODE_V6, want={"fails": True}),
    ),
    _in(
        _PROXIED,
        "takeover",
        [
            _taken("taken.test", {"rewrite-target": "/new"}),
            {
                **site("not-taken.test"),
                "metadata": {
                    **site("not-taken.test")["metadata"],
                    "annotations": {},
                },
            },
            {
                **_taken("other-prefix.test"),
                "metadata": {
                    **_taken("other-prefix.test")["metadata"],
                    "annotations": {f"{objects.PREFIX}/rewrite-target": "/new"},
                },
            },
        ],
        _proxied("taken.test", path="/old", want={"status": 200, "backend_sees": {"path": "/new"}}),
        _proxied("other-prefix.test", path="/old", want={"status": 200, "backend_sees": {"path": "/old"}}),
        _proxied("not-taken.test", want={"status": 404}),
    ),
    _in(
        _PROXIED,
        "default-certificate",
        [_taken("no-tls.test"), _taken("no-secret.test", secret="nothing")],
        *(
            _proxied(
                host,
                tls=True,
                want={"status": status, "certificate": pair("own-default", names=("nobody.test",))},
            )
            for host, status in (("no-tls.test", 200), ("no-secret.test", 200), ("nobody.test", 404))
        ),
    ),
]


def _of_every_name() -> Document:
    """Return an Ingress whose rule has no host, with TLS that is not everybody's."""
    given = {"ssl-redirect": "false", "affinity": "cookie", "ssl-ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}
    made = site("", given, "crowd", name="every-name")
    made["spec"]["tls"] = [{"secretName": "of-every-name"}]
    return made


_EVERY_NAME = World(
    name="every-name",
    flags={"http-port": "8081", "https-port": "8444", "default-ssl-certificate": "default/own-default"},
    documents=(
        tls_secret("own-default", pair("own-default", names=("nobody.test",))),
        tls_secret("of-every-name", pair("of-every-name", names=("every.test",))),
        _of_every_name(),
    ),
)
_FLAGS += [
    _in(
        _EVERY_NAME,
        "a-rule-without-host-has-its-tls-for-itself",
        [site("has-none.test"), site("www.has-none-too.test", {"from-to-www-redirect": "true"})],
        *(
            Ask(
                host=host,
                tls=True,
                port=8444,
                newest="TLSv1_2",
                want={"status": status, "certificate": certificate, "tls": ["TLSv1.2", cipher, ""]},
            )
            for host, status, certificate, cipher in (
                ("else.test", 200, pair("of-every-name", names=("every.test",)), "ECDHE-ECDSA-AES256-GCM-SHA384"),
                ("has-none.test", 200, pair("own-default", names=("nobody.test",)), "ECDHE-ECDSA-AES128-GCM-SHA256"),
                (
                    "has-none-too.test",
                    308,
                    pair("own-default", names=("nobody.test",)),
                    "ECDHE-ECDSA-AES128-GCM-SHA256",
                ),
            )
        ),
    ),
    _in(
        _EVERY_NAME,
        "a-rule-without-host-keeps-clients-with-their-servers",
        [],
        Ask(host="else.test", port=8081, want={"status": 200, "backend": "crowd", "cookie": "~^INGRESSCOOKIE="}),
        Ask(
            host="else.test",
            port=8081,
            headers={"Cookie": "INGRESSCOOKIE=a"},
            times=10,
            want={"same_endpoint": True, "cookie": ""},
        ),
    ),
    _in(
        _EVERY_NAME,
        "redirects-name-no-port-of-ours",
        [site("moved-path.test", {"permanent-redirect": "/new"})],
        Ask(host="moved-path.test", port=8081, want={"status": 301, "location": "http://moved-path.test/new"}),
    ),
]


def _json_log(stage: Stage) -> object:
    """A line of the log is JSON, whatever a client says."""
    agent = 'x", "host": "evil\\'
    stage.client.ask_one(_proxied("json-log.test", headers={"User-Agent": agent}))
    lines = [json.loads(line) for line in stage.log("json-log.test") if "json-log.test" in line]
    return lines != [{"host": "json-log.test", "agent": agent, "client": "203.0.113.7"}] and lines


_LOGS = [
    Scenario(name="access-log-as-json", world=_PROXIED, documents=(_taken("json-log.test"),), then=_json_log),
]

_REPLACING = World(
    name="replacing",
    config={
        "proxy-cookie-domain": "inside.test outside.test",
        "proxy-cookie-path": "/inside /outside",
        "proxy-redirect-from": "http://inside.test/",
        "proxy-redirect-to": "https://outside.test/",
    },
)
_BEFORE = {"Set-Cookie": "a=b; Domain=inside.test; Path=/inside/x", "Location": "http://inside.test/y"}


def _answered(host: str, cookie: str, location: str) -> Ask:
    """Expect what becomes of a backend's cookie and redirect."""
    want = {"headers": {"Set-Cookie": f"~(?i)^{cookie}$", "Location": location}}
    return Ask(host=host, headers=answering(_BEFORE), want=want)


_ANSWERS = [
    _in(
        _REPLACING,
        "cookies-and-redirects-of-all-backends",
        [
            site("replaced.test"),
            site("replaced-beside.test", {"enable-cors": "true"}),
            site("replaced-otherwise.test", {"proxy-cookie-path": "/inside /own", "proxy-redirect-to": "/own/"}),
            site(
                "replaced-never.test",
                {"proxy-cookie-domain": "off", "proxy-cookie-path": "off", "proxy-redirect-from": "off"},
            ),
        ],
        _answered("replaced.test", "a=b; domain=outside.test; path=/outside/x", "https://outside.test/y"),
        _answered("replaced-beside.test", "a=b; domain=outside.test; path=/outside/x", "https://outside.test/y"),
        _answered("replaced-otherwise.test", "a=b; domain=outside.test; path=/own/x", "~/own/y$"),
        _answered("replaced-never.test", "a=b; domain=inside.test; path=/inside/x", "http://inside.test/y"),
    ),
]

_KEEPING = World(
    name="keeping",
    config={
        "global-auth-url": "http://echo.default.svc.cluster.local/cookie-auth",
        "global-auth-response-headers": "X-Stamp",
        "global-auth-cache-key": "$cookie_auth",
        "global-auth-cache-duration": "200 1h",
    },
)


def _stamped(host: str, stamp: str, seen: str, cookie: str = "auth=ok") -> Ask:
    """Have the auth server answer with a stamp, and expect that of the answer that holds."""
    headers = {"Cookie": cookie, **answering({"X-Stamp": stamp})}
    return Ask(host=host, headers=headers, want={"status": 200, "backend_sees": {"headers": {"X-Stamp": seen}}})


_KEPT = [
    _in(
        _KEEPING,
        "global-auth-answers-are-kept",
        [site("kept-one.test"), site("kept-two.test")],
        _stamped("kept-one.test", "first", "first"),
        _stamped("kept-one.test", "second", "first"),
        _stamped("kept-two.test", "third", "third"),
        _stamped("kept-one.test", "fourth", "fourth", "auth=200"),
        Ask(host="kept-one.test", want={"status": 401}),
        Ask(host="kept-one.test", headers={"Cookie": "auth=403"}, want={"status": 403}),
    ),
]

SCENARIOS = (*_LOGS, *_GLOBAL, *_FLAGS, *_ANSWERS, *_KEPT)
