"""Who may pass, by the answer of another server that is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from integration.ingress import objects
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import SECOND_CLIENT, Stage
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import answering, plain

_AUTH = "http://auth.default.svc.cluster.local"
_SEEN = {"auth-response-headers": "X-Auth-User, X-Seen"}


def _asked(host: str, path: str = "/", annotations: dict[str, str] | None = None) -> Document:
    return site(host, {"auth-url": f"{_AUTH}{path}", **(annotations or {})})


def _headers(name: str, data: dict[str, str]) -> Document:
    return objects.config_map(name, data)


_KEPT = {
    "auth-url": "http://echo.default.svc.cluster.local/cookie-auth",
    "auth-response-headers": "X-Stamp",
    "auth-cache-key": "$cookie_auth",
}
_BY_HEADER = {**_KEPT, "auth-cache-key": "$http_x_a$http_x_b"}


def _stamped(host: str, stamp: str, seen: str, headers: Mapping[str, str], **more: Any) -> Ask:
    """Have the auth server answer with a stamp, and expect that of the answer that holds."""
    sent = {**answering({"X-Stamp": stamp}), **headers}
    return Ask(host=host, headers=sent, want={"status": 200, "backend_sees": {"headers": {"X-Stamp": seen}}}, **more)


def _expire(stage: Stage) -> object:
    """An answer holds for as long as it says, and no longer."""
    ask = partial(_stamped, "kept-briefly.test", seen="", headers=_OK)
    first = stage.client.ask_one(ask(stamp="first")).seen_headers("X-Stamp")
    again = stage.client.ask_one(ask(stamp="second")).seen_headers("X-Stamp")
    time.sleep(2.1)
    later = stage.client.ask_one(ask(stamp="third")).seen_headers("X-Stamp")
    return (first, again, later) != (["first"], ["first"], ["third"]) and (first, again, later)


def _peers(host: str) -> Callable[[Stage], int]:
    """Return how many connections the auth server of a host has had for twelve requests."""

    def count(stage: Stage) -> int:
        replies = stage.client.ask_all(Ask(host=host, headers=_OK, times=12))
        return len({peer for reply in replies for peer in reply.seen_headers("X-Peer")})

    return count


def _kept_open(stage: Stage) -> object:
    """Connections to the auth server are kept as told: one for each worker, none, or one for two requests."""
    kept, none, by_two, none_by_time = (_peers(f"open-{name}.test")(stage) for name in ("kept", "not", "two", "time"))
    workers = len(stage.lab.node.workers())
    is_right = kept <= workers < 6 and none == none_by_time == 12 and 6 <= by_two < 12
    return not is_right and (kept, none, by_two, none_by_time, workers)


_OK = {"Cookie": "auth=ok"}
_OPEN = {
    "auth-url": "http://third.default.svc.cluster.local/cookie-auth",
    "auth-response-headers": "X-Peer",
    # nginx keeps no connection over which an answer with a body came: it does not read that.
    "auth-method": "HEAD",
}
_ANSWERS = [
    plain(
        "auth-answers-are-kept-for-a-client-and-a-path",
        [
            site("remembered.test", _KEPT),
            site("remembered.test", _KEPT, path="/other", name="remembered-other"),
            site("kept-too.test", _KEPT),
        ],
        _stamped("remembered.test", "first", "first", _OK),
        _stamped("remembered.test", "second", "first", _OK, path="/x?y", method="POST", body=b"b"),
        # Nobody else gets it: no other client, no other path, no other host.
        _stamped("remembered.test", "third", "third", {"Cookie": "auth=200"}),
        _stamped("remembered.test", "fourth", "fourth", _OK, path="/other"),
        _stamped("kept-too.test", "fifth", "fifth", _OK),
        Ask(host="remembered.test", want={"status": 401}),
        Ask(host="remembered.test", headers={"Cookie": "auth=403"}, want={"status": 403}),
    ),
    plain(
        "auth-answers-of-clients-that-look-alike",
        [site("alike.test", _BY_HEADER)],
        _stamped("alike.test", "first", "first", {**_OK, "X-A": "pq", "X-B": ""}),
        _stamped("alike.test", "second", "second", {**_OK, "X-A": "p", "X-B": "q"}),
        _stamped("alike.test", "third", "third", {**_OK, "X-A": "p|q", "X-B": "r"}),
        _stamped("alike.test", "fourth", "fourth", {**_OK, "X-A": "p", "X-B": "q|r"}),
        _stamped("alike.test", "fifth", "second", {**_OK, "X-A": "p", "X-B": "q"}),
    ),
    plain(
        "auth-refusals-are-kept-as-told",
        [
            site("refused-again.test", {**_KEPT, "auth-cache-key": "$http_x_key"}),
            site("asked-again.test", {**_KEPT, "auth-cache-key": "$http_x_key", "auth-cache-duration": "200 5m"}),
        ],
        Ask(host="refused-again.test", headers={"X-Key": "k", "Cookie": "auth=401"}, want={"status": 401}),
        Ask(host="refused-again.test", headers={"X-Key": "k", **_OK}, want={"status": 401}),
        Ask(host="asked-again.test", headers={"X-Key": "k", "Cookie": "auth=401"}, want={"status": 401}),
        Ask(host="asked-again.test", headers={"X-Key": "k", **_OK}, want={"status": 200}),
        Ask(host="asked-again.test", headers={"X-Key": "k", "Cookie": "auth=401"}, want={"status": 200}),
    ),
    plain(
        "auth-connections-are-kept-as-told",
        [
            site("open-kept.test", {**_OPEN, "auth-keepalive": "5"}),
            site("open-not.test", {**_OPEN, "auth-keepalive": "0"}),
            site("open-two.test", {**_OPEN, "auth-keepalive": "5", "auth-keepalive-requests": "2"}),
            site("open-time.test", {**_OPEN, "auth-keepalive": "5", "auth-keepalive-timeout": "-1"}),
        ],
        then=_kept_open,
    ),
    plain(
        "auth-answers-end",
        [site("kept-briefly.test", {**_KEPT, "auth-cache-duration": "200 1s"})],
        then=_expire,
    ),
    plain(
        "auth-answers-with-cookies-are-not-kept",
        [site("kept-cookies.test", _KEPT)],
        _stamped(
            "kept-cookies.test", "first", "first", {**_OK, **answering({"X-Stamp": "first", "Set-Cookie": "a=b"})}
        ),
        _stamped("kept-cookies.test", "second", "second", _OK),
    ),
    plain(
        "auth-answers-that-are-long-are-not-kept",
        [site("kept-long.test", _KEPT)],
        _stamped("kept-long.test", "first", "first", {**_OK, "X-Lab-Size": "100000"}),
        _stamped("kept-long.test", "second", "second", {**_OK, "X-Lab-Size": "99999"}),
        _stamped("kept-long.test", "third", "second", _OK),
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
            headers={"X-Auth-User": "forged", "Cookie": "session=1", "X-Forwarded-For": "203.0.113.9"},
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
                        "X-Forwarded-For": "192.168.50.100",
                        "X-Request-ID": "~^[0-9a-f]{32}$",
                    },
                    "absent": ["Content-Length", "Transfer-Encoding"],
                },
            },
        ),
    ),
    plain(
        "the-auth-server-is-asked-about-the-host-that-is-served",
        [
            _asked("served.test", "/", _SEEN),
            _asked("served-in.test", "/status/401", {"auth-signin": "https://$http_host/in?rd=$escaped_request_uri"}),
            site("named.test", {"enable-global-auth": "false"}),
        ],
        Ask(
            host="named.test",
            path="http://served.test/x",
            want={
                "status": 200,
                "backend_sees": {"host": "served.test", "headers": {"X-Forwarded-Host": "served.test"}},
                "judge_sees": {"headers": {"X-Original-URL": "http://served.test/x"}},
            },
        ),
        Ask(
            host="Served.test:80",
            want={
                "backend_sees": {"host": "Served.test:80"},
                "judge_sees": {"headers": {"X-Original-URL": "http://Served.test:80/"}},
            },
        ),
        Ask(host="named.test", path="http://served-in.test/x", want={"location": "https://served-in.test/in?rd=/x"}),
        Ask(host="served.test", path="http://named.test/x", want={"backend_sees": {"host": "named.test"}}),
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
            _asked("signin-path.test", "/status/401", {"auth-signin": "/oauth2/start?a=b"}),
            _asked("signin-403.test", "/status/403", {"auth-signin": "https://login.test/start"}),
        ],
        Ask(
            host="signin.test",
            path="/x?y=1&z=2",
            want={
                "status": 302,
                "location_one_of": [
                    "https://login.test/start?rd=http://signin.test/x%3Fy=1%26z=2",
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
        Ask(
            host="signin-path.test",
            path="/x",
            want={"location": "http://signin-path.test/oauth2/start?a=b&rd=http://signin-path.test/x"},
        ),
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
        Ask(
            host="auth-method.test",
            path="/x?y",
            want={
                "status": 200,
                "judge_sees": {"method": "POST", "headers": {"X-Original-URI": "/x?y", "X-Scheme": "http"}},
            },
        ),
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
            want={"status": 200, "judge_sees": {"path": "/check", "headers": {"Host": "10.244.255.1"}}},
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

SCENARIOS = (*_EXTERNAL, *_ANSWERS)
