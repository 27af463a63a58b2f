"""Canaries: which of the backends of a path gets a request."""

from __future__ import annotations

from collections.abc import Callable

from integration.ingress.cast import site
from integration.ingress.clients import Ask, Told
from integration.ingress.features import Scenario, Stage, World
from integration.ingress.identities import site_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain


def _canary(host: str, service: str, annotations: dict[str, str], number: int = 1) -> Document:
    given = {"canary": "true", **annotations}
    return site(host, given, service, name=f"{host}-canary-{number}", created=f"2025-02-0{number}T00:00:00Z")


def _with_default(host: str, service: str) -> Document:
    """Return an Ingress with a path `/app` and a default backend."""
    made = site(host, path="/app")
    backend = {"service": {"name": service, "port": {"number": 80}}}
    made["spec"]["defaultBackend"] = backend
    return made


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
        "canary-value-before-pattern",
        [
            site("valued.test"),
            _canary(
                "valued.test",
                "other",
                {
                    "canary-by-header": "X-Group",
                    "canary-by-header-value": "blue",
                    "canary-by-header-pattern": "red",
                },
            ),
        ],
        _gets("valued.test", "other", {"X-Group": "blue"}),
        _gets("valued.test", "echo", {"X-Group": "red"}),
        _gets("valued.test", "echo", {"X-Group": "always"}),
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


def _cookie(reply: Told) -> dict[str, str]:
    return {"Cookie": reply.all("Set-Cookie")[0].partition(";")[0]}


def _keeps(mode: str) -> Callable[[Stage], object]:
    """Look whether a client that a header led to the canary stays with its pod: without the header, at any weight."""

    def then(stage: Stage) -> object:
        for _ in range(4):
            first = stage.client.ask_one(Ask(host=f"keep-1.{mode}.test", headers={"X-Try": "always"}))
            pod = first.seen["address"]
            for weight, header in (("1", {}), ("1", {"X-Try": "never"}), ("0", {})):
                ask = Ask(host=f"keep-{weight}.{mode}.test", headers={**_cookie(first), **header}, times=8)
                again = stage.client.ask_all(ask)
                if {reply.seen["address"] for reply in again} != {pod} or not pod.startswith("10.244.1."):
                    return f"{pod}, then {[reply.seen['address'] for reply in again]} at weight {weight} {header}"
                if any(reply.all("Set-Cookie") for reply in again):
                    return "the cookie is set again"
        main = stage.client.ask_one(Ask(host=f"keep-0.{mode}.test"))
        again = stage.client.ask_all(
            Ask(host=f"keep-1.{mode}.test", headers={**_cookie(main), "X-Try": "always"}, times=8)
        )
        places = {reply.seen["address"] for reply in again}
        return places != {main.seen["address"]} and f"main {main.seen['address']}, then {places}"

    return then


def _forgets(stage: Stage) -> object:
    """Look whether the canary sets no cookie, and a cookie of the main Ingress keeps its client there."""
    canary = stage.client.ask_all(Ask(host="legacy.test", headers={"X-Try": "always"}, times=8))
    if any(reply.all("Set-Cookie") or not reply.seen["address"].startswith("10.244.1.") for reply in canary):
        return [(reply.all("Set-Cookie"), reply.seen) for reply in canary]
    main = stage.client.ask_one(Ask(host="legacy.test"))
    again = stage.client.ask_all(Ask(host="legacy.test", headers={**_cookie(main), "X-Try": "always"}, times=8))
    return {reply.seen["address"] for reply in again} != {main.seen["address"]} and "moved"


_AFFINITY = [
    plain(
        f"canary-keeps-clients-{mode}",
        [
            document
            for weight in ("0", "1")
            for document in (
                site(f"keep-{weight}.{mode}.test", {"affinity": "cookie", "affinity-mode": mode}, "crowd"),
                _canary(f"keep-{weight}.{mode}.test", "echo", {"canary-by-header": "X-Try", "canary-weight": weight}),
            )
        ],
        then=_keeps(mode),
    )
    for mode in ("balanced", "persistent")
]
_AFFINITY.append(
    plain(
        "canary-keeps-no-clients",
        [
            site("legacy.test", {"affinity": "cookie"}, "crowd"),
            _canary("legacy.test", "echo", {"canary-by-header": "X-Try", "affinity-canary-behavior": "legacy"}),
        ],
        then=_forgets,
    )
)


def _catching(name: str, service: str, annotations: dict[str, str]) -> Document:
    """Return an Ingress without rules."""
    made = site("", annotations, service, name=name)
    (entry,) = made["spec"].pop("rules")[0]["http"]["paths"]
    made["spec"]["defaultBackend"] = entry["backend"]
    return made


_OWN_WAYS = [
    plain(
        "canary-picks-its-own-way",
        [
            site("own-way.test", service="other"),
            _canary("own-way.test", "crowd", {"canary-weight": "100", "upstream-hash-by": "$request_uri"}),
        ],
        Ask(host="own-way.test", path="/x", times=10, want={"status": 200, "backend": "crowd", "same_endpoint": True}),
    ),
    plain(
        "canary-of-a-default-backend-of-a-host",
        [_with_default("rest.test", "other"), _canary("rest.test", "third", {"canary-by-header": "X-Try"})],
        Ask(host="rest.test", path="/any", want={"status": 200, "backend": "other"}),
        Ask(host="rest.test", path="/any", headers={"X-Try": "always"}, want={"status": 200, "backend": "third"}),
        Ask(host="rest.test", path="/app", headers={"X-Try": "always"}, want={"status": 200, "backend": "echo"}),
    ),
    Scenario(
        name="canary-of-the-default-backend",
        world=World(name="catching"),
        documents=(
            _catching("catch", "echo", {"permanent-redirect": "/gone", "force-ssl-redirect": "true"}),
            _catching("catch-canary", "other", {"canary": "true", "canary-by-header": "X-Try"}),
        ),
        asks=(
            Ask(host="nobody-knows.test", path="/a", want={"status": 200, "backend": "echo"}),
            Ask(
                host="nobody-knows.test",
                path="/a",
                headers={"X-Try": "always"},
                want={"status": 200, "backend": "other"},
            ),
        ),
    ),
]

SCENARIOS = (*_CANARIES, *_AFFINITY, *_OWN_WAYS)
