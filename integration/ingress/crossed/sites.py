"""What is crossed: ways to a backend, and annotations with what must be answered on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.ingress import certificates, objects
from integration.ingress.asking import basic_auth
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.crossed.pairs import Row
from integration.ingress.identities import pair, tls_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import answering
from integration.ingress.spaces import CLIENT

LATER = "2025-02-01T00:00:00Z"
SHARED_SECRET = "crossed"
BACKENDS = {"pods": "other", "name": "crossed-name", "nobody": "empty", "gone": "empty"}
_PASSES = basic_auth("jane", "x")
_AUTHS: Mapping[str, Mapping[str, str]] = {
    "nobody": {},
    "basic": {"auth-type": "basic", "auth-secret": "crossed-users"},
    "asked": {"auth-url": "http://crossed-guard.default.svc.cluster.local/cookie-auth"},
}


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Annotations, a request, and what must be answered on every way.

    Attributes:
        before_auth: Whether it is answered whoever asks.
        over_http: What is answered over HTTP, where that is something else.
    """

    annotations: Mapping[str, str]
    want: Mapping[str, Any]
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    before_auth: bool = False
    over_http: Mapping[str, Any] | None = None


_ORIGIN = {"Origin": "https://a.test"}
_ALLOWED = {"Access-Control-Allow-Origin": "https://a.test"}
_CORS = {"enable-cors": "true", "cors-allow-origin": "https://a.test"}
_MOVED = {"status": 302, "location": "https://new.test/"}
_ERRORS = {"custom-http-errors": "404", "default-backend": "errors"}

FEATURES: Mapping[str, Feature] = {
    "nothing": Feature(annotations={}, want={"status": 200}),
    "cors": Feature(annotations=_CORS, headers=_ORIGIN, want={"status": 200, "headers": _ALLOWED}),
    "preflight": Feature(
        annotations=_CORS,
        method="OPTIONS",
        headers=_ORIGIN,
        want={"status": 204, "headers": _ALLOWED},
        before_auth=True,
    ),
    "custom-headers": Feature(
        annotations={"custom-headers": "crossed-headers"},
        headers=answering({"X-All": "theirs"}),
        want={"status": 200, "headers": {"X-All": "ours"}, "header_count": {"X-All": 1}},
    ),
    "upstream-vhost": Feature(
        annotations={"upstream-vhost": "inner.test"}, want={"status": 200, "backend_sees": {"host": "inner.test"}}
    ),
    "denylist": Feature(annotations={"denylist-source-range": CLIENT}, want={"status": 403}),
    "allowlist": Feature(annotations={"whitelist-source-range": "203.0.113.0/24"}, want={"status": 403}),
    "temporal-redirect": Feature(annotations={"temporal-redirect": "https://new.test/"}, want=_MOVED, before_auth=True),
    "force-ssl-redirect": Feature(
        annotations={"force-ssl-redirect": "true"}, want={"status": 200}, over_http={"status": 308}
    ),
    "body-size": Feature(annotations={"proxy-body-size": "1k"}, method="POST", body=bytes(1025), want={"status": 413}),
    "errors": Feature(
        annotations=_ERRORS,
        headers={"X-Lab-Status": "404"},
        want={"backend": "errors", "backend_sees": {"headers": {"X-Code": "404", "X-Namespace": "default"}}},
    ),
    "cookie-path": Feature(
        annotations={"proxy-cookie-path": "/theirs /ours"},
        headers=answering({"Set-Cookie": "a=1; Path=/theirs"}),
        want={"status": 200, "headers": {"Set-Cookie": "a=1; Path=/ours"}},
    ),
    "redirect-rewrite": Feature(
        annotations={"proxy-redirect-from": "http://theirs.test/", "proxy-redirect-to": "http://ours.test/"},
        headers=answering({"Location": "http://theirs.test/x"}),
        want={"status": 200, "location": "http://ours.test/x"},
    ),
    "http-version": Feature(
        annotations={"proxy-http-version": "1.0", "connection-proxy-header": "close"},
        want={"status": 200, "backend_sees": {"headers": {"Connection": "close"}}},
    ),
}

FACTORS: Mapping[str, tuple[str, ...]] = {
    "scheme": ("http", "https"),
    "host": ("own", "wildcard", "alias", "none"),
    "path": ("prefix", "exact", "expressions", "rest"),
    "backend": tuple(BACKENDS),
    "role": ("main", "canary"),
    "auth": tuple(_AUTHS),
    "feature": tuple(FEATURES),
}


def is_possible(row: Row) -> bool:
    """Tell whether a row is a way at all, and one on which its feature must show."""
    if row["role"] == "canary" and (row["backend"] != "pods" or row["path"] == "rest"):
        return False
    if row["host"] == "none" and row["path"] in {"rest", "expressions"}:
        return False  # they would be those of all sites without host
    # Where nobody is, who stands in answers as it likes, and else nginx itself does.
    answered = {"nothing", "cors", "preflight", "custom-headers", "denylist", "allowlist", "temporal-redirect"}
    return row["backend"] not in {"nobody", "gone"} or row["feature"] in {*answered, "force-ssl-redirect", "body-size"}


def world() -> list[Document]:
    """Return what all rows refer to."""
    name: Document = {"type": "ExternalName", "externalName": "backend.dns.test"}
    name["ports"] = [{"name": "web", "port": 80, "targetPort": 80, "protocol": "TCP"}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "crossed-name", "namespace": "default"},
            "spec": name,
        },
        objects.service("crossed-guard", "10.96.8.1"),
        objects.endpoint_slice("crossed-guard", ["10.244.8.1"]),
        objects.secret("crossed-users", "Opaque", {"auth": certificates.htpasswd({"jane": "x"})}),
        objects.config_map("crossed-headers", {"X-All": "ours"}),
        tls_secret(SHARED_SECRET, pair(SHARED_SECRET, names=("*.crossed.test", "*.wild.crossed.test"))),
    ]


def documents(number: int, row: Row) -> list[Document]:
    """Return the Ingresses of a row."""
    mark = f"r{number}"
    host = {"wildcard": f"*.{mark}.crossed.test", "none": ""}.get(row["host"], f"{mark}.crossed.test")
    given = {**_AUTHS[row["auth"]], **FEATURES[row["feature"]].annotations}
    if row["host"] == "alias":
        given["server-alias"] = f"{mark}.alias.crossed.test"
    if row["backend"] == "nobody":
        given["default-backend"] = "third"
    given.setdefault("ssl-redirect", "false")
    kind = "Exact" if row["path"] == "exact" else "Prefix"
    made = site(host, given, BACKENDS[row["backend"]], path=f"/{mark}", path_type=kind, name=f"crossed-{mark}")
    if row["path"] == "rest":
        made["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/not-this"
        made["spec"]["defaultBackend"] = made["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    if host:
        made["spec"]["tls"] = [{"hosts": [host], "secretName": SHARED_SECRET}]
    results = [made]
    if row["path"] == "expressions":
        also = {"use-regex": "true", "ssl-redirect": "false"}
        results.append(site(host, also, path="/else[0-9]+", name=f"crossed-{mark}-x", created=LATER))
    if row["role"] == "canary":
        share = {"canary": "true", "canary-by-header": "X-Canary"}
        results.append(
            site(host, share, "third", path=f"/{mark}", path_type=kind, name=f"crossed-{mark}-c", created=LATER)
        )
    for document in results:
        if not host:
            del document["spec"]["rules"][0]["host"]
    return results


def host_of(number: int, row: Row) -> str:
    """Return the host that requests of a row name."""
    mark = f"r{number}"
    return {
        "own": f"{mark}.crossed.test",
        "wildcard": f"a.{mark}.crossed.test",
        "alias": f"{mark}.alias.crossed.test",
        "none": f"{mark}.nobody.test",
    }[row["host"]]


def proofs(row: Row) -> Mapping[str, str]:
    """Return the headers of a client that may pass."""
    return {"nobody": {}, "basic": _PASSES, "asked": {"Cookie": "auth=ok"}}[row["auth"]]


def asks(number: int, row: Row) -> list[Ask]:
    """Return the request of a row by somebody who may pass, and one by somebody who may not."""
    feature, mark = FEATURES[row["feature"]], f"r{number}"
    is_tls = row["scheme"] == "https"
    want = dict(feature.want if is_tls or feature.over_http is None else feature.over_http)
    if want.get("status") == 200 and row["backend"] == "gone":
        want["status"] = 503
    elif want.get("status") == 200 and "backend" not in want and row["backend"] != "name":
        want["backend"] = "third" if row["role"] == "canary" or row["backend"] == "nobody" else "other"
    canary = {"X-Canary": "always"} if row["role"] == "canary" else {}
    common: dict[str, Any] = {
        "host": host_of(number, row),
        "path": f"/{mark}",
        "method": feature.method,
        "body": feature.body,
        "tls": is_tls,
    }
    headers = {**feature.headers, **canary}
    results = [Ask(**common, headers={**headers, **proofs(row)}, want=want)]
    if row["auth"] != "nobody":
        is_early = feature.before_auth or (feature.over_http is not None and not is_tls)
        refused = {403} if want.get("status") == 403 else {413} if want.get("status") == 413 else {401}
        results.append(Ask(**common, headers=headers, want=want if is_early else {"statuses": refused}))
    return results
