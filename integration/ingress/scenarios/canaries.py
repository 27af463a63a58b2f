"""Canaries: which of the backends of a path gets a request."""

from __future__ import annotations

from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.identities import site_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain


def _canary(host: str, service: str, annotations: dict[str, str], number: int = 1) -> Document:
    given = {"canary": "true", **annotations}
    return site(host, given, service, name=f"{host}-canary-{number}", created=f"2025-02-0{number}T00:00:00Z")


def _gets(host: str, backend: str, headers: dict[str, str] | None = None, *, times: int = 1, tls: bool = False) -> Ask:
    return Ask(host=host, headers=headers or {}, times=times, tls=tls, want={"status": 200, "backend": backend})


_CANARIES = [
    plain(
        "canaries-several",
        [
            site("many.test"),
            _canary("many.test", "other", {"canary-by-header": "X-Group", "canary-by-header-value": "blue"}),
            _canary("many.test", "third", {"canary-by-header": "X-Group", "canary-by-header-value": "red"}, 2),
        ],
        _gets("many.test", "echo", times=5),
        _gets("many.test", "other", {"X-Group": "blue"}),
        _gets("many.test", "third", {"X-Group": "red"}),
        _gets("many.test", "echo", {"X-Group": "green"}),
    ),
    plain(
        "canary-weight-total",
        [
            site("tenth.test"),
            _canary("tenth.test", "other", {"canary-weight": "500", "canary-weight-total": "1000"}),
            site("whole.test"),
            _canary("whole.test", "other", {"canary-weight": "1000", "canary-weight-total": "1000"}),
        ],
        Ask(host="tenth.test", times=100, want={"split": {"echo": [0.3, 0.7], "other": [0.3, 0.7]}}),
        _gets("whole.test", "other", times=10),
    ),
    plain(
        "canary-by-header-pattern",
        [
            site("pattern.test"),
            _canary("pattern.test", "other", {"canary-by-header": "X-Group", "canary-by-header-pattern": "^b[lu]+e$"}),
            site("unread.test"),
            _canary(
                "unread.test",
                "other",
                {"canary-by-header": "X-Group", "canary-by-header-pattern": "(", "canary-weight": "100"},
            ),
        ],
        _gets("unread.test", "other"),
        _gets("unread.test", "echo", {"X-Group": "always", "Cookie": "a=b"}),
        _gets("pattern.test", "other", {"X-Group": "blue"}),
        _gets("pattern.test", "echo", {"X-Group": "bluer"}),
        _gets("pattern.test", "echo"),
    ),
    plain(
        "canary-order",
        [
            site("order.test"),
            _canary(
                "order.test",
                "other",
                {"canary-by-header": "X-Try", "canary-by-cookie": "try-it", "canary-weight": "100"},
            ),
        ],
        _gets("order.test", "other"),
        _gets("order.test", "echo", {"Cookie": "a=b; try-it=never"}),
        _gets("order.test", "other", {"X-Try": "always", "Cookie": "try-it=never"}),
        _gets("order.test", "echo", {"X-Try": "never", "Cookie": "try-it=always"}),
        _gets("order.test", "echo", {"X-Try": "whatever", "Cookie": "try-it=never"}),
    ),
    plain(
        "canary-over-tls",
        [
            site("canary-tls.test", secret="canary-tls.test"),
            site_secret("canary-tls.test"),
            _canary("canary-tls.test", "safe", {"canary-by-header": "X-Try", "backend-protocol": "HTTPS"}),
        ],
        _gets("canary-tls.test", "echo", tls=True),
        _gets("canary-tls.test", "safe", {"X-Try": "always"}, tls=True),
        Ask(host="canary-tls.test", want={"status": 308}),
        Ask(host="canary-tls.test", headers={"X-Try": "always"}, want={"status": 308}),
    ),
    plain(
        "canary-of-a-dead-service",
        [
            site("canary-dead.test"),
            _canary("canary-dead.test", "empty", {"canary-weight": "100"}),
            site("canary-refused.test"),
            _canary("canary-refused.test", "half-dead", {"canary-weight": "100"}),
        ],
        _gets("canary-dead.test", "echo", times=5),
        _gets("canary-refused.test", "half-dead", times=5),
    ),
]

SCENARIOS = tuple(_CANARIES)
