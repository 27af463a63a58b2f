"""What the end-to-end tests of ingress-nginx check about settings and flags, and no other scenario does."""

from __future__ import annotations

import re
from collections.abc import Callable

from integration.ingress import certificates, objects
from integration.ingress.asking import basic_auth
from integration.ingress.cast import cluster_ip, site
from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, Stage, World
from integration.ingress.objects import Document

_SET = World(
    name="e2e-set",
    config={
        "disable-http-access-log": "true",
        "service-upstream": "true",
        "no-auth-locations": "/noauth",
        "proxy-next-upstream": "timeout http_502",
        "proxy-next-upstream-timeout": "999999",
        "proxy-next-upstream-tries": "888888",
        "worker-processes": "11",
        "server-tokens": "false",
        "use-forwarded-headers": "false",
        "annotation-value-word-blocklist": "something_forbidden,otherthing_forbidden",
    },
)
_PORTS = World(name="e2e-ports", flags={"http-port": "1080", "https-port": "1443"})
_PROXIED = World(name="e2e-proxied", config={"use-proxy-protocol": "true"})
_TOLD = World(
    name="e2e-told",
    config={"server-tokens": "true", "use-forwarded-headers": "true", "enable-access-log-for-default-backend": "true"},
)


def _in(
    world: World,
    name: str,
    documents: list[Document],
    *asks: Ask,
    then: Callable[[Stage], object] | None = None,
    not_yet: str = "",
) -> Scenario:
    return Scenario(name=name, world=world, documents=tuple(documents), asks=asks, then=then, not_yet=not_yet)


def _unlogged(stage: Stage) -> object:
    """No request has a line in the access log."""
    stage.client.ask_one(Ask(host="e2e-log.test", path="/unlogged"))
    path = stage.lab.node.outside() / "logs" / "access.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if "/unlogged" in line]


def _open_files(stage: Stage) -> object:
    """The limit of open files does not depend on the number of workers."""
    text = stage.lab.node.rendered()["nginx.conf"]
    got = dict(re.findall(r"worker_(rlimit_nofile|processes) ([0-9]+);", text))
    return got != {"processes": "11", "rlimit_nofile": "1048576"} and got


def _tries(stage: Stage) -> object:
    """The settings stand in the configuration as they were written."""
    text = "\n".join(stage.lab.node.rendered().values())
    lines = ("proxy_next_upstream timeout http_502;", "proxy_next_upstream_tries 888888;")
    return [line for line in lines if line not in text]


_AUTH = {"auth-type": "basic", "auth-secret": "e2e-users", "auth-realm": "test auth"}


def _with_second_path(host: str) -> list[Document]:
    made = site(host, _AUTH)
    paths = made["spec"]["rules"][0]["http"]["paths"]
    paths.append({**paths[0], "path": "/noauth"})
    return [made, objects.secret("e2e-users", "Opaque", {"auth": certificates.htpasswd({"foo": "bar"})})]


_SETTINGS = [
    _in(
        _SET,
        "e2e-disable-http-access-log",
        [site("e2e-log.test")],
        Ask(host="e2e-log.test", want={"status": 200}),
        then=_unlogged,
    ),
    _in(
        _SET,
        "e2e-service-upstream",
        [site("e2e-vip.test", None, "crowd")],
        Ask(host="e2e-vip.test", times=5, want={"status": 200, "endpoints_exactly": [cluster_ip("crowd")]}),
    ),
    _in(
        _SET,
        "e2e-service-upstream-not-for-one",
        [site("e2e-pods.test", {"service-upstream": "false"}, "errors")],
        Ask(host="e2e-pods.test", times=5, want={"status": 200, "endpoints_exactly": ["10.244.6.1"]}),
    ),
    _in(
        _SET,
        "e2e-no-auth-locations",
        _with_second_path("e2e-no-auth.test"),
        Ask(host="e2e-no-auth.test", want={"status": 401, "headers": {"WWW-Authenticate": "~test auth"}}),
        Ask(host="e2e-no-auth.test", headers=basic_auth("foo", "bar"), want={"status": 200, "backend": "echo"}),
        Ask(host="e2e-no-auth.test", path="/noauth", want={"status": 200, "backend": "echo"}),
    ),
    _in(
        _SET,
        "e2e-proxy-next-upstream",
        [site("e2e-next.test")],
        Ask(host="e2e-next.test", want={"status": 200}),
        then=_tries,
    ),
    _in(
        _SET,
        "e2e-global-options",
        [site("e2e-files.test")],
        Ask(host="e2e-files.test", want={"status": 200}),
        then=_open_files,
    ),
    _in(
        _SET,
        "e2e-server-tokens",
        [site("e2e-tokens.test")],
        Ask(host="e2e-tokens.test", want={"status": 200, "headers_absent": ["Server"]}),
        Ask(host="e2e-nobody.test", want={"status": 404, "headers_absent": ["Server"]}),
    ),
    _in(
        _SET,
        "e2e-bad-annotation-values",
        [
            site("e2e-bad.test", {"auth-realm": "something_forbidden"}),
            site("e2e-good.test", {"auth-realm": "nothing forbidden"}),
        ],
        Ask(host="e2e-bad.test", want={"status": 404}),
        Ask(host="e2e-good.test", want={"status": 200}),
    ),
    _in(
        _SET,
        "e2e-forwarded-headers-that-nobody-trusts",
        [site("e2e-forwarded.test")],
        Ask(
            host="e2e-forwarded.test",
            headers={
                "X-Forwarded-Port": "1234",
                "X-Forwarded-Proto": "myproto",
                "X-Forwarded-For": "1.2.3.4",
                "X-Forwarded-Host": "myhost",
            },
            want={
                "status": 200,
                "backend_sees": {
                    "host": "e2e-forwarded.test",
                    "headers": {
                        "X-Forwarded-Host": "e2e-forwarded.test",
                        "X-Forwarded-Port": "80",
                        "X-Forwarded-Proto": "http",
                        "X-Forwarded-For": "$client_ip",
                        "X-Original-Forwarded-For": "1.2.3.4",
                    },
                },
            },
        ),
    ),
    _in(
        _TOLD,
        "e2e-forwarded-headers-that-are-trusted",
        [site("e2e-trusted.test")],
        *(
            Ask(
                host="e2e-trusted.test",
                headers={
                    "X-Forwarded-Port": "1234",
                    "X-Forwarded-Proto": "myproto",
                    "X-Forwarded-For": "1.2.3.4",
                    "X-Forwarded-Host": given,
                },
                want={
                    "status": 200,
                    "backend_sees": {
                        "host": host,
                        "headers": {
                            "X-Forwarded-Host": host,
                            "X-Forwarded-Port": "1234",
                            "X-Forwarded-Proto": "myproto",
                            "X-Forwarded-For": "1.2.3.4",
                        },
                    },
                },
            )
            for given, host in (("myhost", "myhost"), ("myhost.com, another.host,example.net", "myhost.com"))
        ),
    ),
    _in(
        _TOLD,
        "e2e-server-tokens-on",
        [site("e2e-named.test")],
        Ask(host="e2e-named.test", want={"status": 200, "headers": {"Server": "~^nginx/[0-9]"}}),
    ),
]

_DEFAULT_BACKEND = [
    _in(
        _TOLD,
        "e2e-default-backend-alone",
        [],
        *(
            Ask(host=host, path=path, method=method, tls=tls, want={"status": 404})
            for host in ("192.168.50.10", "foo.bar.com")
            for path in ("/", "/demo")
            for method in ("GET", "POST")
            for tls in (False, True)
        ),
    ),
    _in(
        _TOLD,
        "e2e-default-backend-is-logged-where-told",
        [],
        Ask(host="foo", path="/somethingOne", want={"status": 404}),
        then=lambda stage: not stage.log("/somethingOne"),
    ),
]


def _default_is_unlogged(stage: Stage) -> object:
    """A request that nobody asked for has no line in the access log; one behind it has."""
    stage.client.ask_one(Ask(host="bar", path="/somethingTwo", port=1080))
    stage.client.ask_one(Ask(host="e2e-port.test", path="/end", port=1080))
    return [line for line in stage.log("/end") if "/somethingTwo" in line]


def _sees(port: int, proto: str) -> dict[str, object]:
    return {
        "status": 200,
        "backend_sees": {"headers": {"X-Forwarded-Port": str(port), "X-Forwarded-Proto": proto}},
    }


_OUTSIDE = [
    _in(
        _PORTS,
        "e2e-default-backend-is-not-logged",
        [],
        Ask(host="bar", path="/x", port=1080, want={"status": 404}),
        then=_default_is_unlogged,
    ),
    _in(
        _PORTS,
        "e2e-listen-on-other-ports",
        [site("e2e-port.test")],
        Ask(host="e2e-port.test", port=1080, want=_sees(1080, "http")),
    ),
    _in(
        _PORTS,
        "e2e-listen-on-other-ports-with-tls",
        [site("e2e-port-tls.test")],
        Ask(host="e2e-port-tls.test", port=1443, tls=True, want=_sees(443, "https")),
    ),
    _in(
        _PORTS,
        "e2e-listen-on-other-ports-with-auth",
        [site("e2e-port-auth.test", {"auth-url": "http://auth.default.svc.cluster.local/"})],
        Ask(host="e2e-port-auth.test", port=1443, tls=True, want=_sees(443, "https")),
    ),
    *(
        _in(
            _PROXIED,
            f"e2e-proxy-protocol-{port}",
            [site(f"e2e-proxied-{port}.test")],
            Ask(
                host=f"e2e-proxied-{port}.test",
                before=f"PROXY TCP4 192.168.0.1 192.168.0.11 56324 {port}\r\n".encode(),
                want={
                    "status": 200,
                    "backend_sees": {
                        "headers": {
                            "X-Forwarded-Port": str(port),
                            "X-Forwarded-Proto": proto,
                            "X-Forwarded-For": "192.168.0.1",
                        }
                    },
                },
            ),
        )
        for port, proto in ((1234, "http"), (443, "https"))
    ),
]

SCENARIOS = (*_SETTINGS, *_DEFAULT_BACKEND, *_OUTSIDE)
