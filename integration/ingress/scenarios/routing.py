"""Where requests are sent: rewritten paths, redirects, other names, answers of a default backend."""

from __future__ import annotations

from integration.ingress.cast import cluster_ip, site
from integration.ingress.clients import Ask
from integration.ingress.identities import pair, site_secret, tls_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain


def _to(path: str, **more: object) -> dict[str, object]:
    return {"status": 200, "backend_sees": {"path": path}, **more}


def _prefixed(host: str, annotations: dict[str, str], path: str = "/app") -> Document:
    return site(host, annotations, path=path)


_REWRITES = [
    plain(
        "rewrite-target",
        [
            site(
                "groups.test",
                {"rewrite-target": "/$1/x/$2", "use-regex": "true", "x-forwarded-prefix": "/api"},
                path="/api/(v[12])/(.*)",
                path_type="ImplementationSpecific",
            ),
            _prefixed("root.test", {"rewrite-target": "/"}),
            _prefixed("query.test", {"rewrite-target": "/$1?from=app", "use-regex": "true"}, "/app/(.*)"),
            _prefixed("encoded.test", {"rewrite-target": "/$2", "use-regex": "true"}, "/app(/|$)(.*)"),
        ],
        Ask(
            host="groups.test",
            path="/API/v1/a/b?c=d",
            want=_to(
                "/v1/x/a/b?c=d", backend_sees={"path": "/v1/x/a/b?c=d", "headers": {"X-Forwarded-Prefix": "/api"}}
            ),
        ),
        Ask(host="groups.test", path="/api/v3/a", want={"status": 404}),
        Ask(host="root.test", path="/app/deep/er", want=_to("/")),
        Ask(host="root.test", path="/app?a=b", want=_to("/?a=b")),
        Ask(host="query.test", path="/app/x?y=z", want=_to("/x?from=app&y=z")),
        Ask(host="encoded.test", path="/app/a%20b", want=_to("/a%20b")),
        Ask(host="encoded.test", path="/app", want=_to("/")),
        Ask(host="encoded.test", path="/app/a%3Fb%23c", want=_to("/a%3Fb%23c")),
    ),
    plain(
        "paths-reach-the-backend-as-sent",
        [site("raw.test")],
        Ask(host="raw.test", path="/a%2Fb//c/./d?e=%20&f", want=_to("/a%2Fb//c/./d?e=%20&f")),
        Ask(host="raw.test", path="/caf%C3%A9/%E2%82%AC", want=_to("/caf%C3%A9/%E2%82%AC")),
    ),
    plain(
        "app-root",
        [
            site("app-root.test", {"app-root": "/app1"}, secret="app-root.test"),
            site_secret("app-root.test"),
            site("app-root-plain.test", {"app-root": "/app1"}),
        ],
        Ask(host="app-root.test", tls=True, want={"status": 302, "location": "https://app-root.test/app1"}),
        Ask(host="app-root-plain.test", want={"status": 302, "location": "http://app-root-plain.test/app1"}),
        Ask(host="app-root-plain.test", path="/x", want=_to("/x")),
    ),
    plain(
        "server-alias",
        [
            site("alias.test", {"server-alias": "alias2.test, *.alias3.test, echo-owned.test"}),
            site("echo-owned.test", service="other"),
        ],
        Ask(host="alias2.test", want={"status": 200, "backend": "echo", "backend_sees": {"host": "alias2.test"}}),
        Ask(host="a.alias3.test", want={"status": 200, "backend": "echo"}),
        Ask(host="echo-owned.test", want={"status": 200, "backend": "other"}),
    ),
]

_REDIRECTS = [
    plain(
        "from-to-www",
        [
            site("shop.test", {"from-to-www-redirect": "true"}),
            site("www.store.test", {"from-to-www-redirect": "true", "ssl-redirect": "false"}, secret="store"),
            tls_secret("store", pair("store", names=("store.test", "www.store.test"))),
        ],
        Ask(host="www.shop.test", path="/a?b=c", want={"status": 308, "location": "http://shop.test/a?b=c"}),
        Ask(host="www.shop.test", path="/a/", want={"status": 308, "location": "http://shop.test/a"}),
        Ask(host="shop.test", want=_to("/")),
        Ask(host="store.test", path="/a?b=c", want={"status": 308, "location": "http://www.store.test/a?b=c"}),
        Ask(
            host="store.test",
            path="/a",
            tls=True,
            want={
                "status": 308,
                "location": "https://www.store.test/a",
                "certificate": pair("store", names=("store.test", "www.store.test")),
            },
        ),
    ),
    plain(
        "redirects-with-variables",
        [
            site("moved.test", {"permanent-redirect": "https://new.test$request_uri"}),
            site("away.test", {"temporal-redirect": "https://$host/away?from=$request_uri"}),
            site("both.test", {"temporal-redirect": "https://t.test", "permanent-redirect": "https://p.test"}),
            site("relative.test", {"permanent-redirect": "/new?a=$args", "relative-redirects": "true"}),
            site("absolute.test", {"permanent-redirect": "/new"}),
            site("coded.test", {"temporal-redirect": "https://new.test", "temporal-redirect-code": "300"}),
        ],
        Ask(host="coded.test", want={"status": 300}),
        Ask(host="moved.test", path="/a?b=c", want={"status": 301, "location": "https://new.test/a?b=c"}),
        Ask(host="away.test", path="/a", want={"status": 302, "location": "https://away.test/away?from=/a"}),
        Ask(host="both.test", want={"status": 302, "location": "https://t.test"}),
        Ask(
            host="moved.test",
            path="/a%0d%0aX-Evil:1",
            want={"status": 301, "location": "https://new.test/a%0d%0aX-Evil:1", "headers_absent": ["X-Evil"]},
        ),
        Ask(host="relative.test", path="/?x", want={"status": 301, "location": "/new?a=x"}),
        Ask(host="absolute.test", want={"status": 301, "location": "http://absolute.test/new"}),
    ),
    plain(
        "ssl-redirect",
        [
            site("secure.test", secret="secure.test"),
            site_secret("secure.test"),
            site("solved.test", secret="solved.test"),
            site("solved.test", path="/.well-known/acme-challenge/x", path_type="Exact", name="solver"),
            site_secret("solved.test"),
            site("forced.test", {"force-ssl-redirect": "true"}),
            site("kept.test", {"force-ssl-redirect": "true", "preserve-trailing-slash": "true"}),
            site("both-ways.test", {"ssl-redirect": "false"}, secret="both-ways.test"),
            site_secret("both-ways.test"),
        ],
        Ask(host="secure.test", path="/a/b?c=d", want={"status": 308, "location": "https://secure.test/a/b?c=d"}),
        Ask(host="secure.test:80", path="/a/", want={"status": 308, "location": "https://secure.test/a"}),
        # Nobody's word is taken for it that TLS was spoken elsewhere.
        Ask(host="secure.test", headers={"X-Forwarded-Proto": "https"}, want={"status": 308}),
        # As with ingress-nginx the path of the Ingress counts, not that of the request.
        Ask(host="secure.test", path="/.well-known/acme-challenge/x", want={"status": 308}),
        Ask(host="solved.test", path="/.well-known/acme-challenge/x", want=_to("/.well-known/acme-challenge/x")),
        Ask(host="solved.test", path="/x", want={"status": 308}),
        Ask(host="forced.test", path="/a", want={"status": 308, "location": "https://forced.test/a"}),
        Ask(host="forced.test", path="/a", tls=True, want=_to("/a")),
        Ask(host="kept.test", path="/a/?b", want={"status": 308, "location": "https://kept.test/a/?b"}),
        Ask(host="both-ways.test", want=_to("/")),
        Ask(host="both-ways.test", tls=True, want=_to("/")),
    ),
]


_TOGETHER = [
    plain(
        "redirects-before-https",
        [
            site("moved-tls.test", {"permanent-redirect": "https://new.test"}, secret="moved-tls.test"),
            site_secret("moved-tls.test"),
            site("moved-briefly.test", {"temporal-redirect": "https://new.test"}, secret="moved-briefly.test"),
            site_secret("moved-briefly.test"),
        ],
        Ask(host="moved-tls.test", want={"status": 301, "location": "https://new.test"}),
        Ask(host="moved-briefly.test", want={"status": 302, "location": "https://new.test"}),
    ),
    plain(
        "rewritten-canary",
        [
            site(
                "both.rewrite.test",
                {"rewrite-target": "/$1", "use-regex": "true"},
                path="/app/(.*)",
                path_type="ImplementationSpecific",
            ),
            site(
                "both.rewrite.test",
                {"canary": "true", "canary-by-header": "X-Try", "rewrite-target": "/ignored"},
                "other",
                path="/app/(.*)",
                path_type="ImplementationSpecific",
                name="both-rewrite-canary",
            ),
        ],
        Ask(host="both.rewrite.test", path="/app/x", want=_to("/x", backend="echo")),
        Ask(host="both.rewrite.test", path="/app/x", headers={"X-Try": "always"}, want=_to("/x", backend="other")),
    ),
    plain(
        "errors-where-nothing-answers",
        [
            site("errors-empty.test", {"custom-http-errors": "503", "default-backend": "errors"}, "empty"),
            site("errors-refused.test", {"custom-http-errors": "502", "default-backend": "errors"}, "broken"),
        ],
        Ask(host="errors-empty.test", want={"status": 200, "backend": "errors"}),
        Ask(
            host="errors-refused.test",
            want={"status": 200, "backend": "errors", "backend_sees": {"headers": {"X-Code": "502"}}},
        ),
        Ask(host="errors-refused.test", method="HEAD", want={"status": 200}),
    ),
    plain(
        "rewrite-and-auth",
        [
            site(
                "asked.rewrite.test",
                {
                    "rewrite-target": "/new",
                    "auth-url": "http://auth.default.svc.cluster.local/check",
                    "auth-response-headers": "X-Seen",
                },
                path="/old",
            )
        ],
        Ask(
            host="asked.rewrite.test",
            path="/old/x?a=b",
            want=_to(
                "/new?a=b",
                judge_sees={"path": "/check", "headers": {"X-Original-URL": "http://asked.rewrite.test/old/x?a=b"}},
            ),
        ),
    ),
    plain(
        "two-ingresses-of-one-host",
        [
            site(
                "shared.test",
                {"enable-cors": "true", "cors-allow-origin": "https://a.test"},
                path="/a",
                name="shared-a",
            ),
            site(
                "shared.test",
                {"enable-cors": "true", "cors-allow-origin": "https://b.test"},
                path="/b",
                name="shared-b",
            ),
            site(
                "shared.test",
                {"auth-url": "http://auth.default.svc.cluster.local/status/401"},
                path="/c",
                name="shared-c",
            ),
            site(
                "shared.test",
                {"auth-url": "http://auth.default.svc.cluster.local/status/403"},
                path="/d",
                name="shared-d",
            ),
            site("shared.test", {"whitelist-source-range": "203.0.113.0/24"}, path="/e", name="shared-e"),
        ],
        *(
            Ask(
                host="shared.test",
                path=f"/{own}",
                headers={"Origin": f"https://{own}.test"},
                want={"status": 200, "headers": {"Access-Control-Allow-Origin": f"https://{own}.test"}},
            )
            for own in "ab"
        ),
        *(
            Ask(
                host="shared.test",
                path=f"/{own}",
                headers={"Origin": f"https://{other}.test"},
                want={"status": 200, "headers_absent": ["Access-Control-Allow-Origin"]},
            )
            for own, other in ("ab", "ba")
        ),
        *(
            Ask(host="shared.test", path=f"/{path}", want={"status": status})
            for path, status in (("c", 401), ("d", 403), ("e", 403), ("f", 404))
        ),
    ),
]

_OTHERS = [
    plain(
        "resource-backends-and-names",
        [
            {
                **site("resource.test"),
                "spec": {
                    "ingressClassName": "rulegen",
                    "rules": [
                        {
                            "host": "resource.test",
                            "http": {
                                "paths": [
                                    {
                                        "path": "/",
                                        "pathType": "Prefix",
                                        "backend": {"resource": {"kind": "Bucket", "name": "b", "apiGroup": "x.test"}},
                                    }
                                ]
                            },
                        }
                    ],
                },
            }
        ],
        Ask(host="resource.test", want={"status": 404}),
    ),
    plain(
        "healthz",
        [],
        Ask(host="anything.test", path="/healthz", want={"status": 200}),
        Ask(host="anything.test", path="/", want={"status": 404}),
    ),
    plain(
        "service-upstream",
        [site("vip.test", {"service-upstream": "true"}, "crowd")],
        Ask(
            host="vip.test",
            times=5,
            want={"status": 200, "backend": "crowd", "endpoints_exactly": [cluster_ip("crowd")]},
        ),
    ),
]

_BY_PATH = {
    "/": "other",
    "/third": "third",
    "/third/": "third",
    "/third/x": "third",
    "/thirdly": "other",
    "/Third": "other",
    "/third/exact": "crowd",
    "/third/exact/": "third",
    "/third/both": "echo",
    "/third/both/x": "crowd",
}

_NAMES_AND_PATHS = [
    plain(
        "hosts-and-paths-as-the-api-has-them",
        [
            site("spelled.test", service="other"),
            site("spelled.test", service="third", path="/third", name="spelled-third"),
            site("spelled.test", service="crowd", path="/third/exact", path_type="Exact", name="spelled-exact"),
            site("spelled.test", path="/third/both", path_type="Exact", name="spelled-both"),
            site("spelled.test", service="crowd", path="/third/both", name="spelled-both-prefix"),
            site("*.wildly.test", service="third", name="wildly"),
            site("exact.wildly.test", service="crowd"),
        ],
        *(Ask(host="spelled.test", path=path, want={"status": 200, "backend": to}) for path, to in _BY_PATH.items()),
        *(
            Ask(host=host, path="/third", want={"status": 200, "backend": "third"})
            for host in ("SPELLED.test", "spelled.test:8080", "spelled.test.")
        ),
        *(
            Ask(host=host, want={"status": 200, "backend": to})
            for host, to in {
                "any.wildly.test": "third",
                "exact.wildly.test": "crowd",
                "EXACT.wildly.test": "crowd",
            }.items()
        ),
        *(Ask(host=host, want={"status": 404}) for host in ("wildly.test", "spelled.test.x", "x")),
    ),
    plain(
        "www-that-is-a-host-itself",
        [site("pair-of-hosts.test", {"from-to-www-redirect": "true"}), site("www.pair-of-hosts.test", service="other")],
        Ask(host="pair-of-hosts.test", want={"status": 200, "backend": "echo"}),
        Ask(host="www.pair-of-hosts.test", path="/a", want={"status": 200, "backend": "other"}),
    ),
    plain(
        "paths-of-an-own-type-are-prefixes",
        [site("untyped.test", path="/a", path_type="ImplementationSpecific")],
        Ask(host="untyped.test", path="/a", want={"status": 200}),
        Ask(host="untyped.test", path="/a/b", want={"status": 200}),
        Ask(host="untyped.test", path="/ab", want={"status": 404}),
    ),
    plain(
        "app-root-of-the-longest-path",
        [
            site("roots.test", {"app-root": "/of-the-oldest"}, path="/a"),
            site(
                "roots.test",
                {"app-root": "/of-the-longest"},
                path="/a/b",
                name="roots-b",
                created="2025-02-01T00:00:00Z",
            ),
        ],
        Ask(host="roots.test", want={"status": 302, "location": "http://roots.test/of-the-longest"}),
    ),
]

SCENARIOS = (*_REWRITES, *_REDIRECTS, *_TOGETHER, *_OTHERS, *_NAMES_AND_PATHS)
