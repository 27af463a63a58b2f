"""Which server of a Service answers: cookies, hashes, ways to pick, and what becomes of requests where servers fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from integration.ingress.cast import cluster_ip, site
from integration.ingress.clients import Ask
from integration.ingress.features import SECOND_CLIENT, Scenario, Stage, World
from integration.ingress.scenarios.plain import plain

_COOKIE = r"~^INGRESSCOOKIE=[0-9a-f]{32}\|[0-9a-f]{32}; Path=/; HttpOnly$"

_WITHOUT_SITE = r"~^INGRESSCOOKIE=[0-9a-f]{32}\|[0-9a-f]{32}; Path=/; HttpOnly; Partitioned$"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605.1.15 (KHTML, like Gecko)"
_READ_NO_NONE = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0.3112.90 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 12_4 like Mac OS X) AppleWebKit/605.1.15 Version/12.1 Safari/604.1",
    "Mozilla/5.0 (iPad; CPU OS 12_2 like Mac OS X) AppleWebKit/605.1.15 Version/12.1 Safari/604.1",
    f"{_MAC} Version/12.1.2 Safari/605.1.15",
)
_READ_NONE = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    f"{_MAC} Chrome/80.0.3987.87 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 13_1 like Mac OS X) AppleWebKit/605.1.15 Version/13.0 Safari/604.1",
)


def _sticks(host: str, name: str = "INGRESSCOOKIE") -> Callable[[Stage], object]:
    def then(stage: Stage) -> object:
        """Each of ten clients stays where it came first, and not all came to the same."""
        places = set()
        for _ in range(10):
            first = stage.client.ask_one(Ask(host=host))
            cookie = first.all("Set-Cookie")[0].partition(";")[0]
            again = stage.client.ask_all(Ask(host=host, headers={"Cookie": f"a=b; {cookie}"}, times=3))
            places.add(first.seen["address"])
            if {reply.seen["address"] for reply in again} != {first.seen["address"]}:
                return f"{cookie} first {first.seen['address']} then {[reply.seen['address'] for reply in again]}"
            if any(reply.all("Set-Cookie") for reply in again):
                return "the cookie is set again"
            if not cookie.startswith(f"{name}="):
                return cookie
        return len(places) < 2 and f"all by {places}"

    return then


_AFFINITY = [
    plain(
        "affinity-cookie",
        [site("sticky.test", {"affinity": "cookie", "affinity-mode": "balanced"}, "crowd")],
        Ask(host="sticky.test", want={"status": 200, "cookie": _COOKIE}),
        Ask(host="sticky.test", tls=True, want={"status": 200, "cookie": f"{_COOKIE[:-1]}; Secure$"}),
        then=_sticks("sticky.test"),
    ),
    plain(
        "affinity-cookie-attributes",
        [
            site(
                "attributes.test",
                {
                    "affinity": "cookie",
                    "session-cookie-name": "route-id",
                    "session-cookie-path": "/app",
                    "session-cookie-domain": "attributes.test",
                    "session-cookie-max-age": "3600",
                    "session-cookie-samesite": "Strict",
                    "session-cookie-secure": "true",
                },
                "crowd",
            )
        ],
        Ask(
            host="attributes.test",
            want={
                "cookie": r"~^route-id=[0-9a-f]{32}\|[0-9a-f]{32}; Path=/app; Domain=attributes.test; Max-Age=3600;"
                " HttpOnly; SameSite=Strict; Secure$"
            },
        ),
        # What a backend sets itself stays.
        Ask(
            host="attributes.test",
            headers={"X-Lab-Respond": '{"Set-Cookie": "own=1"}'},
            want={"header_count": {"Set-Cookie": 2}},
        ),
        then=_sticks("attributes.test", "route-id"),
    ),
    plain(
        "affinity-same-site-none-by-browser",
        [
            site(
                "browsers.test",
                {
                    "affinity": "cookie",
                    "session-cookie-samesite": "None",
                    "session-cookie-conditional-samesite-none": "true",
                    "session-cookie-partitioned": "true",
                },
                "crowd",
            ),
            site("any-browser.test", {"affinity": "cookie", "session-cookie-samesite": "None"}, "crowd"),
        ],
        *(
            Ask(host="browsers.test", headers={"User-Agent": agent}, want={"cookie": _WITHOUT_SITE})
            for agent in _READ_NO_NONE
        ),
        *(
            Ask(host="browsers.test", headers={"User-Agent": agent}, want={"cookie": "~; SameSite=None"})
            for agent in _READ_NONE
        ),
        Ask(host="browsers.test", want={"cookie": "~; SameSite=None"}),
        Ask(host="any-browser.test", headers={"User-Agent": _READ_NO_NONE[0]}, want={"cookie": "~; SameSite=None"}),
        then=_sticks("browsers.test"),
    ),
    plain(
        "affinity-of-two-hosts",
        [
            site("sticky-one.test", {"affinity": "cookie", "session-cookie-name": "one"}, "crowd"),
            site("sticky-two.test", {"affinity": "cookie", "session-cookie-name": "two"}, "crowd"),
        ],
        Ask(host="sticky-one.test", want={"cookie": "~^one="}),
        Ask(host="sticky-two.test", want={"cookie": "~^two="}),
        then=_sticks("sticky-two.test", "two"),
    ),
    plain(
        "affinity-of-two-ingresses-of-a-host",
        [
            site("sticky-both.test", {"affinity": "cookie", "session-cookie-path": "/a"}, "crowd", path="/a"),
            site(
                "sticky-both.test",
                {
                    "affinity": "cookie",
                    "affinity-mode": "persistent",
                    "session-cookie-path": "/b",
                    "session-cookie-secure": "true",
                },
                "crowd",
                path="/b",
                name="sticky-both-2",
            ),
        ],
        Ask(host="sticky-both.test", path="/a", want={"cookie": r"~^INGRESSCOOKIE=[0-9a-f|]{65}; Path=/a; HttpOnly$"}),
        Ask(
            host="sticky-both.test",
            path="/b",
            want={"cookie": r"~^INGRESSCOOKIE=[0-9a-f]{16}\|[0-9a-f]{32}; Path=/b; HttpOnly; Secure$"},
        ),
    ),
    plain(
        "affinity-keeps-out-of-failures",
        [site("sticky-dead.test", {"affinity": "cookie"}, "half-dead")],
        Ask(host="sticky-dead.test", times=20, want={"status": 200, "backend": "half-dead"}),
    ),
]


def _stays_with_canary(stage: Stage) -> object:
    """Of twenty clients some come to the canary; each stays where it was, and no other cookie is needed for it."""
    first = set()
    for _ in range(20):
        reply = stage.client.ask_one(Ask(host="sticky-canary.test"))
        cookie = reply.all("Set-Cookie")[0].partition(";")[0]
        again = stage.client.ask_all(Ask(host="sticky-canary.test", headers={"Cookie": cookie}, times=4))
        first.add(reply.seen["address"] == "10.244.2.1")
        if {(later_reply.seen["address"] == "10.244.2.1") for later_reply in again} != {
            reply.seen["address"] == "10.244.2.1"
        }:
            return f"{reply.seen['address']}, then {[later_reply.seen['address'] for later_reply in again]}"
    return first != {True, False} and f"canary: {first}"


_AFFINITY += [
    plain(
        "affinity-keeps-to-the-canary",
        [
            site("sticky-canary.test", {"affinity": "cookie"}, "crowd"),
            site("sticky-canary.test", {"canary": "true", "canary-weight": "50"}, "other", name="sticky-canary-2"),
        ],
        then=_stays_with_canary,
    ),
    plain(
        "affinity-persistent",
        [
            site("persistent.test", {"affinity": "cookie", "affinity-mode": "persistent"}, "crowd"),
            site("persistent-dead.test", {"affinity": "cookie", "affinity-mode": "persistent"}, "half-dead"),
        ],
        Ask(host="persistent-dead.test", times=10, want={"status": 200, "backend": "half-dead"}),
        then=_sticks("persistent.test"),
    ),
]

_PICKING = [
    plain(
        "upstream-hash-by",
        [
            site("hash-uri.test", {"upstream-hash-by": "$request_uri"}, "crowd"),
            site("hash-two.test", {"upstream-hash-by": "$http_x_user$arg_tenant"}, "crowd"),
            site("hash-dead.test", {"upstream-hash-by": "$request_uri"}, "half-dead"),
            site("hash-client.test", {"upstream-hash-by": "$binary_remote_addr"}, "crowd"),
        ],
        *(Ask(host="hash-dead.test", path=f"/{number}", want={"status": 200}) for number in range(8)),
        Ask(host="hash-uri.test", path="/a", times=10, want={"same_endpoint": True}),
        Ask(host="hash-client.test", times=10, want={"same_endpoint": True}),
        Ask(host="hash-two.test", path="/x?tenant=1", headers={"X-User": "j"}, times=10, want={"same_endpoint": True}),
        then=lambda stage: (
            (
                len({stage.client.ask_one(Ask(host="hash-uri.test", path=f"/{n}")).seen["address"] for n in range(30)})
                < 3
            )
            and "few servers for 30 paths"
        ),
    ),
    *(
        plain(
            f"load-balance-{kind.replace('_', '-')}",
            [site(f"{kind.replace('_', '-')}.test", {"load-balance": kind}, "crowd")],
            Ask(host=f"{kind.replace('_', '-')}.test", times=30, want={"status": 200, "min_distinct_endpoints": 3}),
        )
        for kind in ("round_robin", "least_conn", "ewma")
    ),
    plain(
        "load-balance-ip-hash",
        [site("ip-hash.test", {"load-balance": "ip_hash"}, "crowd")],
        Ask(host="ip-hash.test", times=10, want={"status": 200, "same_endpoint": True}),
        Ask(host="ip-hash.test", times=10, source=SECOND_CLIENT, want={"status": 200, "same_endpoint": True}),
    ),
]

_FAILING = [
    plain(
        "servers-that-refuse-are-passed-over",
        [site("half-dead.test", service="half-dead")],
        Ask(host="half-dead.test", times=30, want={"status": 200, "endpoints_exactly": ["10.244.5.4"]}),
        Ask(host="half-dead.test", method="POST", body=b"x", times=10, want={"status": 200}),
    ),
    plain(
        "all-dead-asks-the-cluster-ip",
        [site("dead.test", service="dead"), site("dead-least.test", {"load-balance": "least_conn"}, "dead")],
        *(
            Ask(host=host, method=method, times=5, want={"status": 200, "endpoints_exactly": [cluster_ip("dead")]})
            for host in ("dead.test", "dead-least.test")
            for method in ("GET", "POST")
        ),
    ),
    plain(
        "nothing-is-sent-twice-that-may-count",
        [site("hangs-up.test", service="hangs-up"), site("hangs-up-get.test", service="hangs-up")],
        Ask(host="hangs-up.test", method="POST", body=b"pay", times=20, at_once=True, want={"statuses": [200, 502]}),
        Ask(host="hangs-up-get.test", times=20, want={"status": 200}),
    ),
    plain(
        "a-black-hole-is-passed-over",
        [site("lost.test", {"proxy-connect-timeout": "1"}, "lost")],
        Ask(host="lost.test", times=3, want={"status": 200, "max_seconds": 4}),
        Ask(host="lost.test", times=10, want={"status": 200, "max_seconds": 4}),
    ),
    plain(
        "next-upstream-on-502",
        [
            site("not-next.test", service="half-broken"),
            site("next.test", {"proxy-next-upstream": "error timeout http_502"}, "half-broken"),
            site("one-try.test", {"proxy-next-upstream": "http_502", "proxy-next-upstream-tries": "1"}, "broken"),
            site("next-off.test", {"proxy-next-upstream": "off"}, "half-off"),
        ],
        Ask(host="not-next.test", times=10, want={"statuses": [200, 502]}),
        Ask(host="next.test", times=10, want={"status": 200}),
        Ask(host="one-try.test", times=6, want={"statuses": [502]}),
        Ask(host="next-off.test", times=6, want={"statuses": [200, 502]}),
    ),
    plain(
        "a-poisonous-request-harms-nobody-else-without-a-backup",
        [
            site("poison-sticky.test", {"affinity": "cookie"}, "poisoned-too"),
            site("poison-hash.test", {"upstream-hash-by": "$request_uri"}, "poisoned-too"),
            site("poison-two.test", {"load-balance": "ewma"}, "poisoned-too"),
            site("poison-persistent.test", {"affinity": "cookie", "affinity-mode": "persistent"}, "poisoned-too"),
        ],
        *(
            ask
            for name in ("sticky", "hash", "two", "persistent")
            for ask in (
                Ask(host=f"poison-{name}.test", path="/status/hang-up", times=4, want={"status": 502}),
                Ask(host=f"poison-{name}.test", times=10, want={"status": 200}),
            )
        ),
    ),
    plain(
        "a-poisonous-request-harms-nobody-else",
        [site("poison.test", service="poisoned")],
        Ask(host="poison.test", path="/status/hang-up", times=4, want={"status": 502}),
        Ask(host="poison.test", times=20, want={"status": 200}),
    ),
    plain(
        "read-timeout",
        [
            site("slow.test", {"proxy-read-timeout": "1", "proxy-next-upstream": "error timeout"}, "other"),
            site("patient.test", {"proxy-read-timeout": "10"}, "other"),
        ],
        Ask(host="slow.test", path="/sleep/4", method="POST", body=b"x", want={"status": 504, "max_seconds": 3}),
        Ask(host="patient.test", path="/sleep/1.2", want={"status": 200}),
    ),
]


def _stays_on_both_paths(stage: Stage, host: str) -> object:
    """A client that goes from one Service to the other and back finds its servers again."""
    jar: dict[str, str] = {}
    seen: dict[str, set[str]] = {"/a": set(), "/b": set()}
    for _ in range(6):
        for path, addresses in seen.items():
            sent = [pair for entry, pair in jar.items() if path.startswith(entry.partition(" ")[2])]
            reply = stage.client.ask_one(Ask(host=host, path=path, headers={"Cookie": "; ".join(sent)}))
            addresses.add(reply.seen["address"])
            for element in reply.all("Set-Cookie"):
                pair, *attributes = element.split("; ")
                where = next(attribute[5:] for attribute in attributes if attribute.startswith("Path="))
                jar[f"{pair.partition('=')[0]} {where}"] = pair
    return any(len(addresses) != 1 for addresses in seen.values()) and str(seen)


_AFFINITY += [
    plain(
        f"affinity-of-two-paths-{mode}",
        [
            site(f"{mode}.two-paths.test", {"affinity": "cookie", "affinity-mode": mode}, "crowd", path="/a"),
            site(
                f"{mode}.two-paths.test",
                {"affinity": "cookie", "affinity-mode": mode},
                "echo",
                path="/b",
                name=f"{mode}-b",
            ),
        ],
        then=partial(_stays_on_both_paths, host=f"{mode}.two-paths.test"),
    )
    for mode in ("persistent", "balanced")
]

_AFFINITY += [
    plain(
        f"affinity-of-a-wildcard-host-{mode}",
        [site(f"*.{mode}.sticky.test", {"affinity": "cookie", "affinity-mode": mode}, "crowd", name=f"wild-{mode}")],
        then=_sticks(f"any.{mode}.sticky.test"),
    )
    for mode in ("persistent", "balanced")
]

_NAMELESS = [
    Scenario(
        name=f"affinity-of-all-other-names-{mode}",
        world=World(name=f"nameless-{mode}"),
        documents=(site("", {"affinity": "cookie", "affinity-mode": mode}, "crowd", name="nameless"),),
        then=_sticks("nobody-knows.test"),
    )
    for mode in ("persistent", "balanced")
]


_NOTES_URL = "http://notes.default.svc.cluster.local"


def _noted(stage: Stage, asks: str) -> dict[str, Any]:
    """Return what the mirror has got of a request, which may come a little after the answer."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        notes = stage.client.ask_one(Ask(host="notes.test", path="/noted")).json["notes"]
        if wanted := [note for note in notes if note["asks"] == asks]:
            return dict(wanted[0])
        time.sleep(0.02)
    return {"asks": f"no {asks}", "headers": {}, "body": ""}


def _mirrored(stage: Stage) -> object:
    """The mirror gets method, URL, body and headers of requests that pass, and no header that a client forges."""
    whole, bare = _noted(stage, "POST /whole?a=%20b"), _noted(stage, "POST /bare")
    # As in ingress-nginx, the query of the request follows a URL without variables.
    fixed = [_noted(stage, f"GET {asks}")["asks"] for asks in ("/fixed", "/fixed?b=2", "/own?a=1?b=2")]
    closed = stage.client.ask_one(Ask(host="notes.test", path="/noted")).json["notes"]
    headers = whole["headers"]
    return [
        wrong
        for wrong, is_wrong in {
            "whole body": whole["body"] != "all of it",
            "host of the URL": headers.get("host") != "notes.default.svc.cluster.local",
            "who the client is": headers.get("x-real-ip") != headers.get("x-forwarded-for") != "203.0.113.1",
            f"path of its own: {fixed}": any(asks.startswith("no ") for asks in fixed),
            "host of its own": bare["headers"].get("host") != "seen.mirror-bare.test",
            "no body": bare["body"] != "" or "transfer-encoding" in bare["headers"],
            "nobody else's": any(note["asks"].endswith("/refused") for note in closed),
        }.items()
        if is_wrong
    ]


_MIRRORING = [
    plain(
        "mirrors",
        [
            site("notes.test", service="notes"),
            site("mirror-whole.test", {"mirror-target": f"{_NOTES_URL}$request_uri"}),
            site(
                "mirror-bare.test",
                {"mirror-target": _NOTES_URL, "mirror-host": "seen.$host", "mirror-request-body": "off"},
            ),
            site("mirror-path.test", {"mirror-target": f"{_NOTES_URL}/fixed"}),
            site("mirror-query.test", {"mirror-target": f"{_NOTES_URL}/own?a=1"}),
            site(
                "mirror-refused.test",
                {"mirror-target": f"{_NOTES_URL}$request_uri", "denylist-source-range": "0.0.0.0/0"},
            ),
        ],
        Ask(
            host="mirror-whole.test",
            path="/whole?a=%20b",
            method="POST",
            body=b"all of it",
            headers={"X-Real-IP": "203.0.113.1"},
            want={"status": 200, "backend": "echo"},
        ),
        Ask(host="mirror-bare.test", path="/bare", method="POST", body=b"kept", want={"status": 200}),
        Ask(host="mirror-path.test", path="/any", want={"status": 200}),
        Ask(host="mirror-path.test", path="/any?b=2", want={"status": 200}),
        Ask(host="mirror-query.test", path="/any?b=2", want={"status": 200}),
        Ask(host="mirror-refused.test", path="/refused", want={"status": 403}),
        then=_mirrored,
    )
]

SCENARIOS = (*_AFFINITY, *_PICKING, *_FAILING, *_NAMELESS, *_MIRRORING)
