"""What the end-to-end tests of ingress-nginx check about annotations and Services, and no other scenario does."""

from __future__ import annotations

from functools import partial

from integration.ingress import objects
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, Stage
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import PLAIN, answering, plain

_SERVER_ID = {"affinity": "cookie", "session-cookie-name": "SERVERID"}


def _scenario(name: str, documents: list[Document], *asks: Ask, not_yet: str = "", **more: object) -> Scenario:
    return Scenario(name=name, world=PLAIN, documents=tuple(documents), asks=asks, not_yet=not_yet, **more)  # type: ignore[arg-type]


def _two_paths(host: str) -> Document:
    made = site(host, _SERVER_ID, "crowd", path="/something")
    paths = made["spec"]["rules"][0]["http"]["paths"]
    paths.append({**paths[0], "path": "/somewhereelse"})
    return made


def _says(stage: Stage, host: str, text: str) -> object:
    """What rulegen prints of an Ingress holds a text."""
    lines = [line for line in stage.output.splitlines() if host in line]
    return not any(text in line for line in lines) and lines


_AFFINITY = [
    _scenario(
        "e2e-affinity-of-paths",
        [
            site("e2e-path.test", _SERVER_ID, "crowd", path="/something"),
            _two_paths("e2e-two-paths.test"),
            site("e2e-apart.test", _SERVER_ID, "crowd", path="/foo/bar", name="e2e-apart-1"),
            site("e2e-apart.test", None, "crowd", path="/foo", name="e2e-apart-2"),
        ],
        Ask(host="e2e-path.test", path="/something", want={"status": 200, "cookie": "~^SERVERID=.*; Path=/something;"}),
        *(
            Ask(host="e2e-two-paths.test", path=path, want={"status": 200, "cookie": f"~; Path={path};"})
            for path in ("/something", "/somewhereelse")
        ),
        Ask(host="e2e-apart.test", path="/foo", want={"status": 200, "headers_absent": ["Set-Cookie"]}),
        Ask(host="e2e-apart.test", path="/foo/bar", want={"status": 200, "cookie": "~; Path=/foo/bar;"}),
    ),
    _scenario(
        "e2e-affinity-expires",
        [
            site(
                "e2e-expires.test",
                {**_SERVER_ID, "session-cookie-expires": "172800", "session-cookie-max-age": "259200"},
                "crowd",
            )
        ],
        Ask(host="e2e-expires.test", want={"status": 200, "cookie": "~^SERVERID=.*; Max-Age=259200;"}),
    ),
    _scenario(
        "e2e-affinity-of-expressions",
        [
            site(
                "e2e-regex.test",
                {**_SERVER_ID, "use-regex": "true", "session-cookie-path": "/foo/bar"},
                "crowd",
                path="/foo/.*",
                path_type="ImplementationSpecific",
            )
        ],
        Ask(host="e2e-regex.test", path="/foo/bar", want={"status": 200, "cookie": "~^SERVERID=.*; Path=/foo/bar;"}),
    ),
    _scenario(
        "e2e-affinity-of-expressions-without-a-path",
        [
            site(
                "e2e-regex-warn.test",
                {**_SERVER_ID, "use-regex": "true"},
                "crowd",
                path="/foo/.*",
                path_type="ImplementationSpecific",
            )
        ],
        Ask(host="e2e-regex-warn.test", path="/foo/bar", want={"status": 200}),
        then=partial(_says, host="e2e-regex-warn.test", text="session-cookie-path"),
    ),
    _scenario(
        "e2e-affinity-of-aliases",
        [site("e2e-named.test", {**_SERVER_ID, "server-alias": "a1.e2e.test,a2.e2e.test"}, "crowd", path="/bar")],
        *(
            Ask(host=host, path="/bar", want={"status": 200, "cookie": "~^SERVERID="})
            for host in ("e2e-named.test", "a1.e2e.test", "a2.e2e.test")
        ),
    ),
    _scenario(
        "e2e-affinity-secure",
        [
            site("e2e-secure.test", {**_SERVER_ID, "session-cookie-secure": "true"}, "crowd"),
            site("e2e-insecure.test", {**_SERVER_ID, "session-cookie-secure": "false"}, "crowd"),
        ],
        Ask(host="e2e-secure.test", want={"status": 200, "cookie": "~; Secure"}),
        Ask(host="e2e-insecure.test", want={"status": 200, "cookie": "~^(?!.*; Secure)SERVERID="}),
    ),
    _scenario(
        "e2e-affinity-secure-over-https",
        [site("e2e-insecure-tls.test", {**_SERVER_ID, "session-cookie-secure": "false"}, "crowd")],
        Ask(host="e2e-insecure-tls.test", tls=True, want={"status": 200, "cookie": "~; Secure"}),
    ),
]

_ASKED = {
    "auth-url": "http://auth.default.svc.cluster.local/status/401",
    "auth-signin": "http://$host/auth/start",
}
_AUTH = [
    _scenario(
        "e2e-auth-signin",
        [
            site("e2e-signin.test", _ASKED),
            site("e2e-signin-param.test", {**_ASKED, "auth-signin-redirect-param": "orig"}),
        ],
        *(
            Ask(
                host=host,
                path="/?a=b&c=d",
                want={
                    "status": 302,
                    "headers": {
                        "Location": rf"~^http://{host}/auth/start\?{name}=http://{host}(/|%2F)%3Fa(=|%3D)b%26c(=|%3D)d$"
                    },
                },
            )
            for host, name in (("e2e-signin.test", "rd"), ("e2e-signin-param.test", "orig"))
        ),
    ),
]

_CORS = {"enable-cors": "true"}
_HEADERS = [
    plain(
        "e2e-cors",
        [
            site("e2e-cors.test", _CORS),
            site("e2e-cors-methods.test", {**_CORS, "cors-allow-methods": "POST, GET"}),
            site("e2e-cors-age.test", {**_CORS, "cors-max-age": "200"}),
            site("e2e-cors-bare.test", {**_CORS, "cors-allow-credentials": "false"}),
            site("e2e-cors-origin.test", {**_CORS, "cors-allow-origin": "https://origin.cors.com:8080"}),
            site("e2e-cors-headers.test", {**_CORS, "cors-allow-headers": "DNT, User-Agent"}),
        ],
        Ask(host="e2e-cors.test", method="OPTIONS", want={"status": 204}),
        *(
            Ask(
                host=f"e2e-cors{host}.test",
                method="OPTIONS",
                headers={"Origin": "https://origin.cors.com:8080"},
                want={"status": 204, "headers": {f"Access-Control-{name}": value}},
            )
            for host, name, value in (
                ("", "Allow-Methods", "GET, PUT, POST, DELETE, PATCH, OPTIONS"),
                ("", "Allow-Credentials", "true"),
                ("", "Max-Age", "1728000"),
                ("-methods", "Allow-Methods", "POST, GET"),
                ("-age", "Max-Age", "200"),
                ("-origin", "Allow-Origin", "https://origin.cors.com:8080"),
                ("-headers", "Allow-Headers", "DNT, User-Agent"),
            )
        ),
        Ask(
            host="e2e-cors-bare.test",
            headers={"Origin": "https://origin.cors.com:8080"},
            want={"status": 200, "headers_absent": ["Access-Control-Allow-Credentials"]},
        ),
    ),
    _scenario(
        "e2e-cors-any-method-and-a-blank-origin",
        [
            site("e2e-cors-dav.test", {**_CORS, "cors-allow-methods": "GET, PROPFIND, REPORT, MKCOL"}),
            site("e2e-cors-blank.test", {**_CORS, "cors-allow-origin": ""}),
        ],
        Ask(
            host="e2e-cors-dav.test",
            method="OPTIONS",
            headers={"Origin": "https://a.test"},
            want={"headers": {"Access-Control-Allow-Methods": "GET, PROPFIND, REPORT, MKCOL"}},
        ),
        Ask(
            host="e2e-cors-blank.test",
            headers={"Origin": "https://a.test"},
            want={"headers": {"Access-Control-Allow-Origin": "*"}},
        ),
    ),
    plain(
        "e2e-custom-headers",
        [
            site("e2e-headers.test", {"custom-headers": "default/e2e-headers"}),
            site("e2e-no-headers.test"),
            site("e2e-headers-missing.test", {"custom-headers": "default/e2e-none"}),
            objects.config_map("e2e-headers", {"X-All": "$remote_addr"}),
        ],
        Ask(host="e2e-headers.test", want={"status": 200, "headers": {"X-All": "$remote_addr"}}),
        Ask(host="e2e-no-headers.test", want={"status": 200, "headers_absent": ["X-All"]}),
        Ask(host="e2e-headers-missing.test", want={"status": 503}),
    ),
]

_ERRORS = {"custom-http-errors": "404,500", "default-backend": "errors"}
_DEFAULTS = [
    plain(
        "e2e-custom-http-errors",
        [
            site("e2e-errors.test", _ERRORS),
            site(
                "e2e-errors.test", {**_ERRORS, "custom-http-errors": "404, 503"}, path="/else", name="e2e-errors-else"
            ),
            site("e2e-errors-off.test", {**_ERRORS, "disable-proxy-intercept-errors": "true"}),
        ],
        *(
            Ask(host="e2e-errors.test", path=path, want={"backend": "errors"})
            for path in ("/status/404", "/status/500")
        ),
        Ask(host="e2e-errors.test", path="/status/503", want={"status": 503, "backend": "echo"}),
        Ask(host="e2e-errors-off.test", path="/status/404", want={"status": 404, "backend": "echo"}),
    ),
    _scenario(
        "e2e-custom-http-errors-keep-the-method",
        [site("e2e-errors-post.test", _ERRORS)],
        Ask(
            host="e2e-errors-post.test",
            path="/status/404",
            method="POST",
            body=b"x",
            want={"backend": "errors", "backend_sees": {"method": "POST"}},
        ),
    ),
    _scenario(
        "e2e-default-backend",
        [site("e2e-stand-in.test", {"default-backend": "errors"}, "invalid")],
        Ask(
            host="e2e-stand-in.test",
            path="/alma/armud",
            want={
                "status": 200,
                "backend": "errors",
                "backend_sees": {
                    "headers": {
                        "X-Code": "503",
                        "X-Ingress-Name": "e2e-stand-in.test",
                        "X-Service-Name": "invalid",
                        "X-Namespace": "default",
                    }
                },
            },
        ),
    ),
    plain(
        "e2e-default-backend-with-hosts",
        [
            {
                **site("e2e-with-hosts.test", {"proxy-body-size": "1k"}),
                "spec": {
                    "ingressClassName": "rulegen",
                    "defaultBackend": {"service": {"name": "echo", "port": {"number": 80}}},
                    "rules": [{"host": "e2e-with-hosts.test"}],
                },
            }
        ],
        Ask(host="e2e-with-hosts.test", want={"status": 200, "backend": "echo"}),
        Ask(host="e2e-with-hosts.test", method="POST", body=bytes(1025), want={"status": 413}),
        Ask(host="e2e-without-hosts.test", want={"status": 404}),
    ),
]

_REDIRECTS = {"Location": "hello.test/x"}
_PROXY = [
    _scenario(
        "e2e-proxy-redirect",
        [
            site("e2e-redirect.test", {"proxy-redirect-from": "hello.test", "proxy-redirect-to": "goodbye.test"}),
            site("e2e-redirect-off.test", {"proxy-redirect-from": "off", "proxy-redirect-to": "goodbye.test"}),
        ],
        Ask(
            host="e2e-redirect.test",
            path="/status/302",
            headers=answering(_REDIRECTS),
            want={"location": "goodbye.test/x"},
        ),
        Ask(
            host="e2e-redirect-off.test",
            path="/status/302",
            headers=answering(_REDIRECTS),
            want={"location": "hello.test/x"},
        ),
    ),
    plain(
        "e2e-proxy-sizes",
        [
            site("e2e-size.test", {"proxy-body-size": "8m"}),
            site("e2e-size-wrong.test", {"proxy-body-size": "15r"}),
            site("e2e-version.test", {"proxy-http-version": "1.0"}),
        ],
        Ask(host="e2e-size.test", method="POST", body=bytes(2 << 20), want={"status": 200}),
        Ask(host="e2e-size-wrong.test", method="POST", body=bytes(2 << 20), want={"status": 413}),
        Ask(host="e2e-size-wrong.test", method="POST", body=bytes(1 << 19), want={"status": 200}),
        Ask(host="e2e-version.test", want={"status": 200}),
    ),
]


def _named(name: str, external: str, *ports: dict[str, object]) -> Document:
    spec: Document = {"type": "ExternalName", "externalName": external}
    if ports:
        spec["ports"] = list(ports)
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _by_port_name(host: str, service: str, port: str) -> Document:
    made = site(host, None, service)
    made["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = {"name": port}
    return made


_WEB = {"name": "web", "port": 80, "targetPort": 80, "protocol": "TCP"}
_DNS = "backend.dns.test"
_NAMES = [
    plain(
        "e2e-externalname",
        [
            _named("e2e-portless", _DNS),
            _named("e2e-with-port", _DNS, _WEB),
            _named("e2e-dot", f"{_DNS}."),
            _named("e2e-invalid", "invalid.hostname"),
            site("e2e-portless.test", {"upstream-vhost": "inner.test"}, "e2e-portless"),
            site("e2e-with-port.test", None, "e2e-with-port"),
            site("e2e-dot.test", None, "e2e-dot"),
            site("e2e-invalid.test", None, "e2e-invalid"),
            _by_port_name("e2e-port-name.test", "e2e-with-port", "web"),
        ],
        Ask(
            host="e2e-portless.test",
            path="/get",
            want={"status": 200, "upstream_name": _DNS, "backend_sees": {"host": "inner.test"}},
        ),
        *(
            Ask(host=f"e2e-{name}.test", path="/get", want={"status": 200, "upstream_name": _DNS})
            for name in ("with-port", "dot", "port-name")
        ),
        Ask(host="e2e-invalid.test", path="/get", want={"status_one_of": [502, 503, 504]}),
    ),
    _scenario(
        "e2e-externalname-with-another-target-port",
        [
            _named("e2e-target", _DNS, {**_WEB, "targetPort": 8080}),
            site("e2e-target.test", None, "e2e-target"),
        ],
        Ask(host="e2e-target.test", want={"status": 200, "backend_port": 8080}),
    ),
]


def _canaried(host: str, canary: dict[str, str], main: dict[str, str] | None = None) -> list[Document]:
    share = site(host, {"canary": "true", **canary}, "crowd", name=f"{host}-canary", created="2025-02-01T00:00:00Z")
    return [site(host, {"affinity": "cookie", **(main or {})}, "echo"), share]


def _stays(stage: Stage) -> object:
    """A client that came to the canary once stays with one pod of it, whatever else decides about new clients."""
    host = "e2e-canary-sticky.test"
    first = stage.client.ask_one(Ask(host=host, headers={"X-Canary": "always"}))
    cookies = [line.partition(";")[0] for line in first.all("Set-Cookie")]
    again = stage.client.ask_all(Ask(host=host, headers={"Cookie": "; ".join(cookies)}, times=30))
    places = {reply.seen.get("address") for reply in again}
    return places != {first.seen.get("address")} and f"{cookies}: first {first.seen.get('address')}, then {places}"


_CANARIES = [
    _scenario(
        "e2e-canary-affinity",
        _canaried("e2e-canary-sticky.test", {"canary-by-header": "X-Canary", "canary-weight": "1"}),
        then=_stays,
    ),
]

SCENARIOS = (*_AFFINITY, *_AUTH, *_HEADERS, *_DEFAULTS, *_PROXY, *_NAMES, *_CANARIES)
