"""Answers of a default backend: in place of errors, and of a Service without endpoints."""

from __future__ import annotations

from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import Stage
from integration.ingress.scenarios.plain import plain


def _status(stage: Stage) -> object:
    """What a default backend answers is what the client gets, its status too."""
    reported = stage.client.ask_one(
        Ask(host="replaced.test", path="/status/503/?a=b", headers={"Accept": "text/plain"})
    )
    seen = {key.lower(): value for key, value in reported.seen.get("headers", ())}
    wanted = {
        "x-code": "503",
        "x-format": "text/plain",
        "x-original-uri": "/status/503/?a=b",
        "x-namespace": "default",
        "x-ingress-name": "replaced.test",
        "x-service-name": "echo",
        "x-service-port": "80",
    }
    wrong = {key: seen.get(key) for key, value in wanted.items() if seen.get(key) != value}
    request_id = seen.get("x-request-id", "")
    return (wrong or len(request_id) != 32) and (reported.status, wrong, request_id, reported.body)


_DEFAULTS = [
    plain(
        "custom-http-errors",
        [
            site("replaced.test", {"custom-http-errors": "404,503", "default-backend": "errors"}),
            site("unreplaced.test", {"custom-http-errors": "404"}),
        ],
        Ask(host="replaced.test", path="/status/404", want={"backend": "errors", "status": 200}),
        Ask(host="replaced.test", path="/status/403", want={"backend": "echo", "status": 403}),
        Ask(
            host="replaced.test",
            path="/status/503",
            method="POST",
            body=b"body",
            want={
                "backend": "errors",
                "backend_sees": {"method": "POST", "headers": {"X-Code": "503", "Content-Length": "4"}},
            },
        ),
        Ask(host="unreplaced.test", path="/status/404", want={"backend": "echo", "status": 404}),
        then=_status,
    ),
    plain(
        "disable-proxy-intercept-errors",
        [
            site(
                "untouched.test",
                {
                    "custom-http-errors": "404",
                    "default-backend": "errors",
                    "disable-proxy-intercept-errors": "true",
                },
            ),
            site(
                "own-errors.test",
                {
                    "custom-http-errors": "502",
                    "default-backend": "errors",
                    "disable-proxy-intercept-errors": "true",
                    "proxy-next-upstream-tries": "1",
                },
                "dead",
            ),
        ],
        Ask(host="untouched.test", path="/status/404", want={"backend": "echo", "status": 404}),
        # It is nginx that cannot reach the backend, and its own errors are replaced.
        Ask(host="own-errors.test", want={"backend": "errors", "backend_sees": {"headers": {"X-Code": "502"}}}),
    ),
    plain(
        "default-backend-of-a-service-without-endpoints",
        [
            site("stand-in.test", {"default-backend": "errors"}, "empty"),
            site("stood-by.test", {"default-backend": "errors"}),
            site("unavailable.test", service="empty"),
        ],
        Ask(
            host="stand-in.test",
            path="/x?y",
            method="POST",
            body=b"body",
            headers={"Accept": "text/plain", "X-Code": "200", "X-Namespace": "forged"},
            want={
                "backend": "errors",
                "status": 200,
                "backend_sees": {
                    "path": "/x?y",
                    "method": "POST",
                    "headers": {
                        "X-Code": "503",
                        "X-Format": "text/plain",
                        "X-Namespace": "default",
                        "X-Original-URI": "/x?y",
                        "X-Ingress-Name": "stand-in.test",
                        "X-Service-Name": "empty",
                        "X-Service-Port": "80",
                        "X-Request-ID": "~^[0-9a-f]{32}$",
                        "Content-Length": "4",
                    },
                },
            },
        ),
        Ask(host="stood-by.test", want={"backend": "echo", "backend_headers_absent": ["X-Code", "X-Service-Name"]}),
        Ask(host="unavailable.test", want={"status": 503}),
    ),
]

_DEFAULTS += [
    plain(
        "errors-that-come-before-the-body",
        [
            site(
                "too-large.test",
                {"custom-http-errors": "413", "default-backend": "errors", "proxy-body-size": "1k"},
            ),
            site(
                "unbuffered.test",
                {"custom-http-errors": "503", "default-backend": "errors", "proxy-request-buffering": "off"},
            ),
        ],
        *(
            Ask(
                host=host,
                path="/status/503",
                method="POST",
                body=bytes(size),
                want={
                    "backend": "errors",
                    "backend_sees": {"method": "POST", "headers": {"X-Code": code}},
                    "backend_headers_absent": ["Content-Length", "Transfer-Encoding"],
                },
            )
            for host, size, code in (("too-large.test", 4096, "413"), ("unbuffered.test", 4, "503"))
        ),
    ),
]

SCENARIOS = tuple(_DEFAULTS)
