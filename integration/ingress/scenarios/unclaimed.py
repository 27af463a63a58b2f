"""Paths that no Ingress names, Services without endpoints, paths that are rewritten to themselves."""

from __future__ import annotations

from integration.ingress import objects
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.identities import site_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain

_NOBODY = "203.0.113.0/24"


def _external(name: str, target: str, port: int = 80, target_port: int = 80) -> Document:
    made = objects.service(name, "")
    made["spec"] = {
        "type": "ExternalName",
        "externalName": target,
        "ports": [{"name": "http", "port": port, "targetPort": target_port, "protocol": "TCP"}],
    }
    return made


def _two_paths(host: str, annotations: dict[str, str], *paths: str) -> Document:
    made = site(host, annotations)
    backend = made["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    made["spec"]["rules"][0]["http"]["paths"] = [
        {"path": path, "pathType": "Prefix", "backend": backend} for path in paths
    ]
    return made


def _sees(host: str, path: str, seen: str) -> Ask:
    return Ask(host=host, path=path, want={"status": 200, "backend_sees": {"path": seen}})


def _guarded(kind: str, path: str, service: str) -> tuple[list[Document], list[Ask]]:
    """Return Ingresses that guard `path`, and what is answered for `/none`, with the status that ends there."""
    status = 404 if path == "/app" else 503

    def of(name: str, annotations: dict[str, str], secret: str = "") -> Document:
        return site(f"{name}.{kind}.test", annotations, service, path=path, secret=secret)

    documents = [
        of("open", {}),
        of("https", {}, secret=f"https.{kind}.test"),
        site_secret(f"https.{kind}.test"),
        of("forced", {"force-ssl-redirect": "true"}),
        of("listed", {"whitelist-source-range": _NOBODY}),
        of("denied", {"denylist-source-range": "0.0.0.0/0"}),
        of("basic", {"auth-type": "basic", "auth-secret": f"users-{kind}"}),
        objects.described_secret({"name": f"users-{kind}", "kind": "htpasswd", "users": {"a": "b"}}),
        of("asked", {"auth-url": "http://auth.default.svc.cluster.local/status/401"}),
        of("cors", {"enable-cors": "true"}),
        of("closed", {"auth-type": "basic", "auth-secret": "not-there"}),
    ]
    asks = [
        *(Ask(host=f"open.{kind}.test", path="/none", method=method, want={"status": status}) for method in _METHODS),
        Ask(
            host=f"https.{kind}.test", path="/none", want={"status": 308, "location": f"https://https.{kind}.test/none"}
        ),
        Ask(host=f"https.{kind}.test", path="/none", tls=True, want={"status": status}),
        Ask(host=f"forced.{kind}.test", path="/none", want={"status": 308}),
        *(
            Ask(host=f"{name}.{kind}.test", path="/none", method=method, want={"status": 403})
            for name in ("listed", "denied")
            for method in ("GET", "POST")
        ),
        Ask(host=f"basic.{kind}.test", path="/none", want={"status": 401}),
        *(
            Ask(
                host=f"basic.{kind}.test",
                path="/none/",
                method=method,
                headers={"Authorization": "Basic YTpi"},
                want={"status": status},
            )
            for method in _METHODS
        ),
        Ask(host=f"asked.{kind}.test", path="/none", want={"status": 401}),
        Ask(
            host=f"cors.{kind}.test",
            path="/none",
            method="OPTIONS",
            headers={"Origin": "https://a.test", "Access-Control-Request-Method": "GET"},
            want={"status": 204},
        ),
        Ask(
            host=f"cors.{kind}.test",
            path="/none",
            headers={"Origin": "https://a.test"},
            want={"status": status, "headers": {"Access-Control-Allow-Origin": "*"}},
        ),
        Ask(host=f"closed.{kind}.test", path="/none", want={"status": 503}),
    ]
    return documents, asks


_METHODS = ("GET", "POST", "PUT", "DELETE")
_UNCLAIMED, _ASKS_UNCLAIMED = _guarded("unclaimed", "/app", "echo")
_UNSERVED, _ASKS_UNSERVED = _guarded("unserved", "/", "empty")

SCENARIOS = (
    plain(
        "unclaimed-path",
        [
            *_UNCLAIMED,
            site("moved.unclaimed.test", {"permanent-redirect": "https://new.test/"}, path="/app"),
            site("two.unclaimed.test", {"whitelist-source-range": _NOBODY}, path="/a", name="two-1"),
            site("two.unclaimed.test", path="/b", name="two-2", created="2025-02-01T00:00:00Z"),
        ],
        *_ASKS_UNCLAIMED,
        Ask(host="moved.unclaimed.test", path="/none", want={"status": 404}),
        Ask(host="two.unclaimed.test", path="/b", want={"status": 200}),
        Ask(host="two.unclaimed.test", path="/none", want={"status": 403}),
    ),
    plain("unserved-service", _UNSERVED, *_ASKS_UNSERVED),
    plain(
        "rewrite-to-the-path-itself",
        [
            site("itself.test", {"rewrite-target": "/", "x-forwarded-prefix": "/p"}),
            site("itself-app.test", {"rewrite-target": "/app"}, path="/app"),
            site("itself-regex.test", {"rewrite-target": "/", "use-regex": "true"}),
            _two_paths("itself-two.test", {"rewrite-target": "/"}, "/", "/api"),
        ],
        _sees("itself.test", "/deep/er?a=b", "/deep/er?a=b"),
        Ask(host="itself.test", want={"backend_headers_absent": ["X-Forwarded-Prefix"]}),
        _sees("itself-app.test", "/app/x", "/app/x"),
        Ask(host="itself-app.test", path="/APP/x", want={"status": 404}),
        Ask(host="itself-app.test", path="/application", want={"status": 404}),
        _sees("itself-regex.test", "/deep/er", "/deep/er"),
        _sees("itself-two.test", "/deep/er", "/deep/er"),
        _sees("itself-two.test", "/API/deep/er", "/"),
    ),
    plain(
        "external-name-of-one-label",
        [
            _external("short", "echo"),
            site("short.test", service="short"),
            _external("ported", "echo.default.svc.cluster.local", port=8000, target_port=80),
            site("ported.test", service="ported"),
        ],
        *(Ask(host=f"{name}.test", want={"status": 200, "backend": "echo"}) for name in ("short", "ported")),
    ),
)
