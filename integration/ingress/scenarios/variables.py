"""Values with variables: what a text of an Ingress, or of a ConfigMap of headers, becomes for each request."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from integration.ingress import objects
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, Stage, World
from integration.ingress.scenarios.plain import plain

_REFUSES: Final = "http://auth.default.svc.cluster.local/status/401"
_ASKED: Final = (
    "/",
    "/x?y=1&z=2",
    "/a?left=%7B%22q%22%3A%22a%26b%22%7D&x=1",
    "/a?" + "&".join(f"p{number}={number}" for number in range(30)),
    "/a+b%2Bc?a+b%2Bc",
    "/a%23b?c=%23",
    "/a?1&2&3&4&5&6&7&8&9&rd=https://evil.test/",
    "/a;b?c;d=e",
    "/a%2526?b=%2526",
    "/caf%C3%A9?x=%E2%82%AC&\"='",
    "/a?" + "&=%" * 300,
    "//evil.test/?&",
)


def _ways_back(stage: Stage) -> str:
    """Return which URL does not come back whole, or what the client could add."""
    for host, more in (("back.test", {}), ("back-own.test", {}), ("back-raw.test", {}), ("back-more.test", {"a": "b"})):
        for path in _ASKED:
            reply = stage.client.ask_one(Ask(host=host, path=path))
            (location,) = reply.all("Location") or [""]
            parameters = parse_qsl(urlsplit(location).query, keep_blank_values=True)
            name = "back" if host == "back-more.test" else "rd"
            wanted = [*more.items(), (name, f"http://{host}{path}")]
            if reply.status != 302 or parameters != wanted or urlsplit(location).fragment != ("top" if more else ""):
                return f"{host}{path}: {reply.status} {location}"
    return ""


def _refused(stage: Stage) -> str:
    """Return what is missing in the messages."""
    return "" if "$http_cookie" in stage.output and "$request_body" in stage.output else stage.output[-500:]


_SIGNIN = [
    plain(
        "signin-comes-back-whole",
        [
            site("back.test", {"auth-url": _REFUSES, "auth-signin": "https://login.test/start"}),
            site(
                "back-own.test",
                {
                    "auth-url": _REFUSES,
                    "auth-signin": "https://login.test/start?rd=$scheme://$http_host$escaped_request_uri",
                },
            ),
            site(
                "back-raw.test",
                {"auth-url": _REFUSES, "auth-signin": "https://$host/start?rd=http://$host$request_uri"},
            ),
            site(
                "back-more.test",
                {
                    "auth-url": _REFUSES,
                    "auth-signin": "https://login.test/start?a=b#top",
                    "auth-signin-redirect-param": "back",
                },
            ),
        ],
        Ask(host="back.test", method="POST", body=b"x" * 5000, want={"status": 302, "cookie": "verdict=401; Path=/"}),
        Ask(host="back.test", method="HEAD", want={"status": 302}),
        then=_ways_back,
    ),
]

_TEXTS = [
    plain(
        "upstream-vhost-with-variables",
        [
            site("vhost-name.test", {"upstream-vhost": "${service_name}.${namespace}.svc.cluster.local"}),
            site("vhost-host.test", {"upstream-vhost": "in-$host:8080"}),
            site("vhost-header.test", {"upstream-vhost": "$http_x_tenant"}),
        ],
        Ask(host="vhost-name.test", want={"backend_sees": {"host": "echo.default.svc.cluster.local"}}),
        Ask(host="vhost-host.test", want={"backend_sees": {"host": "in-vhost-host.test:8080"}}),
        Ask(host="vhost-header.test", headers={"X-Tenant": "blue.test"}, want={"backend_sees": {"host": "blue.test"}}),
    ),
    plain(
        "what-a-client-asks-for-chooses-no-other-host-of-a-redirect",
        [
            site(
                "sent-rest.test",
                {"permanent-redirect": "/$1", "relative-redirects": "true", "use-regex": "true"},
                path="/old(.*)",
                path_type="ImplementationSpecific",
            ),
            site("sent-uri.test", {"temporal-redirect": "/$request_uri", "relative-redirects": "true"}),
            site("sent-next.test", {"temporal-redirect": "/$location_path$arg_next", "relative-redirects": "true"}),
            site("sent-path.test", {"temporal-redirect": "/$location_path", "relative-redirects": "true"}),
            site("sent-new.test", {"permanent-redirect": "https://new.test$request_uri"}),
        ],
        *(
            Ask(host=host, path=path, want={"status": status, "location": to})
            for host, path, status, to in (
                ("sent-rest.test", "/old/evil.test", 301, "/evil.test"),
                ("sent-rest.test", "/old/%5Cevil.test", 301, "/%5Cevil.test"),
                ("sent-rest.test", "/oldx", 301, "/x"),
                ("sent-uri.test", "/evil.test", 302, "/evil.test"),
                ("sent-uri.test", "//evil.test", 302, "/evil.test"),
                ("sent-next.test", "/?next=evil.test", 302, "/evil.test"),
                ("sent-next.test", "/?next=//evil.test", 302, "/evil.test"),
                ("sent-path.test", "/evil.test", 302, "/"),
                ("sent-new.test", "//evil.test", 301, "https://new.test//evil.test"),
            )
        ),
    ),
    plain(
        "x-forwarded-prefix-with-captures",
        [
            site(
                "prefix-capture.test",
                {
                    "use-regex": "true",
                    "rewrite-target": "/$2",
                    "x-forwarded-prefix": "/$1",
                    "enable-cors": "true",
                    "cors-allow-origin": "https://a.test",
                    "affinity": "cookie",
                },
                path="/(a[^/]*)/(.*)",
                path_type="ImplementationSpecific",
            ),
            site(
                "prefix-slashes.test",
                {"rewrite-target": "/x", "x-forwarded-prefix": "/$1"},
                path="/old(.*)",
                path_type="ImplementationSpecific",
            ),
        ],
        Ask(
            host="prefix-capture.test",
            path="/abc/d",
            headers={"Origin": "https://a.test", "Cookie": "INGRESSCOOKIE=x"},
            want={"backend_sees": {"path": "/d", "headers": {"X-Forwarded-Prefix": "/abc"}}},
        ),
        Ask(
            host="prefix-slashes.test",
            path="/old/evil.test",
            want={"backend_sees": {"headers": {"X-Forwarded-Prefix": "/evil.test"}}},
        ),
        # A decoded line break would end the header.
        Ask(host="prefix-capture.test", path="/ab%0D%0AX-Evil:%201/d", want={"status": 400}),
    ),
    plain(
        "redirects-with-variables-of-the-url",
        [
            site("to-host.test", {"temporal-redirect": "https://$host$uri/x"}),
            site("to-same.test", {"permanent-redirect": "$scheme://new.test$request_uri"}),
            site(
                "to-capture.test",
                {"permanent-redirect": "https://new.test/$1?from=$host", "use-regex": "true"},
                path="/old/(.*)",
                path_type="ImplementationSpecific",
            ),
            site("to-cookie.test", {"permanent-redirect": "https://new.test/?c=$http_cookie"}),
        ],
        Ask(host="to-host.test", path="/a?b", want={"status": 302, "location": "https://to-host.test/a/x"}),
        Ask(
            host="to-host.test",
            path="/a%0D%0AX-Evil:%201?b",
            want={"location": "https://to-host.test/a%0D%0AX-Evil:%201/x", "headers_absent": ["X-Evil"]},
        ),
        Ask(host="to-same.test", path="/a?b=c", want={"status": 301, "location": "http://new.test/a?b=c"}),
        Ask(host="to-capture.test", path="/old/a/b", want={"location": "https://new.test/a/b?from=to-capture.test"}),
        Ask(host="to-capture.test", path="/old/a%0D%0AX-Evil:%201", want={"status": 400, "headers_absent": ["X-Evil"]}),
        # The Ingress is rejected. Without a server of its host, the Ingress without a host would get these requests.
        Ask(host="to-cookie.test", want={"status": 503}),
        then=_refused,
    ),
    plain(
        "upstream-hash-by-the-neighbour",
        [site("hash-neighbour.test", {"upstream-hash-by": "$realip_remote_addr"}, "crowd")],
        Ask(host="hash-neighbour.test", times=10, want={"status": 200, "same_endpoint": True}),
    ),
    plain(
        "auth-proxy-set-headers-with-variables",
        [
            site(
                "auth-text.test",
                {
                    "auth-url": "http://auth.default.svc.cluster.local/",
                    "auth-proxy-set-headers": "default/judge-text",
                    "auth-response-headers": "X-Seen",
                },
            ),
            objects.config_map("judge-text", {"X-Asked": "$request_uri", "X-By": "$remote_addr at $host"}),
            site(
                "auth-text-closed.test",
                {"auth-url": "http://auth.default.svc.cluster.local/", "auth-proxy-set-headers": "default/judge-body"},
            ),
            objects.config_map("judge-body", {"X-Asked": "$request_body"}),
        ],
        Ask(
            host="auth-text.test",
            path="/x?y&z",
            want={
                "status": 200,
                "judge_sees": {"headers": {"X-Asked": "/x?y&z", "X-By": "192.168.50.100 at auth-text.test"}},
            },
        ),
        Ask(host="auth-text-closed.test", want={"status": 503}),
    ),
]

_HEADERS_OF_ALL = World(
    name="variables",
    config={"proxy-set-headers": "default/requests-text", "add-headers": "default/answers-text"},
    documents=(
        objects.config_map(
            "requests-text",
            {
                "X-Request-Start": "t=${msec}",
                "X-Client": "$remote_addr",
                "X-Path": "$uri",
                "X-User": "$remote_user",
                "X-Name": "$ssl_server_name",
                "X-Of": "$namespace/$ingress_name",
                "X-Body": "$request_body",
            },
        ),
        objects.config_map("answers-text", {"X-Request-Id": "$req_id", "X-Price": "5 EUR"}),
    ),
)

_OF_ALL = [
    Scenario(
        name="headers-of-all-with-variables",
        world=_HEADERS_OF_ALL,
        documents=(site("text-all.test"),),
        asks=(
            Ask(
                host="text-all.test",
                path="/a%20b",
                headers={"X-Request-ID": "mine"},
                want={
                    "backend_sees": {
                        "headers": {
                            "X-Request-Start": "~^t=[0-9]+\\.[0-9]{3}$",
                            "X-Client": "192.168.50.100",
                            "X-Path": "/a b",
                            "X-Of": "default/text-all.test",
                        }
                    },
                    "backend_headers_absent": ["X-Body"],
                    "headers": {"X-Request-Id": "mine", "X-Price": "5 EUR"},
                },
            ),
            # What a client can put a line break into becomes no header.
            Ask(
                host="text-all.test",
                path="/a%0D%0AX-Evil:%201",
                headers={"Authorization": "Basic " + base64.b64encode(b"a\r\nX-Evil: 1:b").decode()},
                want={"backend_headers_absent": ["X-Evil", "X-Path", "X-User"]},
            ),
            Ask(host="text-all.test", tls=True, want={"backend_sees": {"headers": {"X-Name": "text-all.test"}}}),
            Ask(
                host="text-all.test",
                tls=True,
                name="a\r\nX-Evil: 1\r\nX-B: c",
                want={"status": 200, "backend_headers_absent": ["X-Evil", "X-Name"]},
            ),
        ),
        then=lambda stage: "" if "$request_body" in stage.output else stage.output[-500:],
    ),
]

SCENARIOS = (*_SIGNIN, *_TEXTS, *_OF_ALL)
