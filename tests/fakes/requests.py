"""What a request to an API server asks for, by its path and query; and an answer to it."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COLLECTIONS = {
    "services": ("/api/v1/services", "v1", "Service"),
    "nodes": ("/api/v1/nodes", "v1", "Node"),
    "pods": ("/api/v1/pods", "v1", "Pod"),
    "endpointslices": ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    "ingresses": ("/apis/networking.k8s.io/v1/ingresses", "networking.k8s.io/v1", "Ingress"),
    "ingressclasses": ("/apis/networking.k8s.io/v1/ingressclasses", "networking.k8s.io/v1", "IngressClass"),
    "servicecidrs": ("/apis/networking.k8s.io/v1/servicecidrs", "networking.k8s.io/v1", "ServiceCIDR"),
    "secrets": ("/api/v1/secrets", "v1", "Secret"),
    "configmaps": ("/api/v1/configmaps", "v1", "ConfigMap"),
    "events": ("/apis/events.k8s.io/v1/events", "events.k8s.io/v1", "Event"),
    "leases": ("/apis/coordination.k8s.io/v1/leases", "coordination.k8s.io/v1", "Lease"),
    # Last: what is in a namespace has its path below these.
    "namespaces": ("/api/v1/namespaces", "v1", "Namespace"),
}


def anything(_path: str, _query: Mapping[str, str]) -> bool:
    return True


def selector(path: str) -> Callable[[dict[str, Any]], bool]:
    """Return what a request selects of its collection: a namespace, and by `labelSelector` and `fieldSelector`."""
    url = urlsplit(path)
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    terms = query.get("labelSelector", "").split(",")
    absent = [term[1:] for term in terms if term.startswith("!")]
    unequal = [term.partition("!=")[::2] for term in terms if "!=" in term]
    equal = [term.partition("=")[::2] for term in terms if "=" in term and "!=" not in term]
    fields = query.get("fieldSelector", "")
    phases = re.findall(r"status\.phase!=(\w+)", fields)
    inside = re.search(r"/namespaces/([^/]+)/[^/]+$", url.path)

    def selects(each: dict[str, Any]) -> bool:
        metadata = each["metadata"]
        return (
            not any(label in metadata.get("labels", {}) for label in absent)
            and all(metadata.get("labels", {}).get(label) == value for label, value in equal)
            and not any(metadata.get("labels", {}).get(label) == value for label, value in unequal)
            and not (phases and each.get("status", {}).get("phase") in phases)
            and not ("spec.clusterIP!=None" in fields and each["spec"].get("clusterIP") == "None")
            and (not fields.startswith("metadata.name=") or metadata["name"] == fields.partition("=")[2])
            and (not inside or metadata.get("namespace") == inside[1])
        )

    return selects


def asked_for(path: str) -> tuple[str, tuple[str, str] | None]:
    """Return the collection that a path asks for, and the namespace and name of the one object of it, if it is one.

    >>> asked_for("/api/v1/namespaces/shop/secrets/tls"), asked_for("/api/v1/nodes/a"), asked_for("/api/v1/services")
    (('secrets', ('shop', 'tls')), ('nodes', ('', 'a')), ('services', None))
    """
    for collection, (root, *_) in COLLECTIONS.items():
        if path == root:
            return collection, None
        if path.startswith(f"{root}/"):
            return collection, ("", unquote(path.removeprefix(f"{root}/")))
        group, _, noun = root.rpartition("/")
        if re.fullmatch(rf"{re.escape(group)}/namespaces/[^/]+/{noun}", path):
            return collection, None
        inside = re.fullmatch(rf"{re.escape(group)}/namespaces/([^/]+)/{noun}/([^/]+)", path)
        if inside:
            return collection, (unquote(inside[1]), unquote(inside[2]))
    return "", None


def verb_of(handler: BaseHTTPRequestHandler) -> tuple[str, str, str]:
    """Return what a request does, as a role names it: verb, API group, resource with its subresource."""
    url = urlsplit(handler.path)
    is_status = url.path.endswith("/status")
    collection, name = asked_for(url.path.removesuffix("/status"))
    if not collection:
        return handler.command, "", url.path
    is_watch = parse_qs(url.query).get("watch", [""])[0] in {"1", "true"}
    reading = "get" if name else "watch" if is_watch else "list"
    verb = {"GET": reading, "POST": "create", "PUT": "update", "PATCH": "patch"}[handler.command]
    version = COLLECTIONS[collection][1]
    return verb, version.rpartition("/")[0], f"{collection}/status" if is_status else collection


def reply(handler: BaseHTTPRequestHandler, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Answer with JSON."""
    content = json.dumps(body).encode()
    handler.send_response(code)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
