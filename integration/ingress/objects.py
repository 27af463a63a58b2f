"""Documents of cases, turned into the objects that a cluster would hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from integration.ingress import certificates

Document = dict[str, Any]

CONTROLLER_CONFIG = "ingress-nginx/ingress-nginx-controller"
"""The ConfigMap that a case's `config` becomes."""

PREFIX = "nginx.ingress.kubernetes.io"

_TLS_KEYS = ("tls.crt", "tls.key", "ca.crt")
_KNOWN = {"apiVersion", "kind", "metadata", "spec"}


class UnknownForm(Exception):  # noqa: N818 - it says what the harness does not know, not what failed
    """A case asks for something that the harness does not know: nothing of a case is passed over in silence."""


def ingress_class(name: str = "rulegen", controller: str = "rulegen.io/ingress") -> Document:
    """Return an IngressClass."""
    spec = {"controller": controller}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name}, "spec": spec}


def ingress(
    name: str,
    host: str,
    service: str = "echo",
    *,
    paths: Iterable[str] = ("/",),
    annotations: Mapping[str, str] | None = None,
    namespace: str = "default",
    created: str = "2025-01-01T00:00:00Z",
    secret: str = "",
) -> Document:
    """Return an Ingress of one host, with Prefix paths to port 80 of one Service."""
    backend = {"service": {"name": service, "port": {"number": 80}}}
    http = {"paths": [{"path": path, "pathType": "Prefix", "backend": backend} for path in paths]}
    spec: Document = {"ingressClassName": "rulegen", "rules": [{"host": host, "http": http}]}
    if secret:
        spec["tls"] = [{"hosts": [host], "secretName": secret}]
    metadata: Document = {"name": name, "namespace": namespace, "creationTimestamp": created}
    if annotations:
        metadata["annotations"] = {f"{PREFIX}/{key}": value for key, value in annotations.items()}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def service(name: str, cluster_ip: str, namespace: str = "default") -> Document:
    """Return a Service with port 80 for 8080."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "clusterIP": cluster_ip, "selector": {"app": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def endpoint_slice(name: str, addresses: Iterable[str], namespace: str = "default") -> Document:
    """Return the EndpointSlice of a Service, all ready."""
    ready = {"ready": True, "serving": True, "terminating": False}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-x",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": ready} for address in addresses],
    }


def config_map(name: str, data: Mapping[str, str], namespace: str = "default") -> Document:
    """Return a ConfigMap."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def is_controller_config(document: Document) -> bool:
    """Tell whether a document is the ConfigMap with the settings."""
    metadata = document["metadata"]
    named = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
    return bool(document["kind"] == "ConfigMap" and named == CONTROLLER_CONFIG)


def secret(name: str, kind: str, data: Mapping[str, bytes], namespace: str = "default") -> Document:
    """Return a Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": kind,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def described_secret(description: Mapping[str, Any]) -> Document:
    """Return the Secret that a case describes."""
    given = dict(description)
    name, namespace, kind = given.pop("name"), given.pop("namespace", "default"), given.pop("kind")
    match kind:
        case "tls" | "tls-mismatched":
            common_name = given.pop("cn", name)
            made = certificates.certificate(common_name, given.pop("sans", ()))
            key = certificates.key_pem(1 if kind == "tls-mismatched" else 0)
            document = secret(name, "kubernetes.io/tls", {"tls.crt": made, "tls.key": key}, namespace)
        case "tls-raw":
            keys = {key: given.pop(key) for key in _TLS_KEYS if key in given}
            data = {key: _bytes(value) for key, value in (given.pop("data", {}) | keys).items()}
            document = secret(name, "kubernetes.io/tls", data, namespace)
        case "htpasswd":
            content = certificates.htpasswd(given.pop("users"))
            document = secret(name, "Opaque", {given.pop("key", "auth"): content}, namespace)
        case "htpasswd-map":
            users = given.pop("users")
            hashes = {user: certificates.password_hash(password).encode() for user, password in users.items()}
            document = secret(name, "Opaque", hashes, namespace)
        case _:
            raise UnknownForm(f"secret of kind {kind}")
    if given:
        raise UnknownForm(f"keys of a secret: {sorted(given)}")
    return document


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def of_case(case: Mapping[str, Any]) -> list[Document]:
    """Return all objects of a case."""
    extra = list(case.get("extra_objects", ()))
    documents = [document for key in ("ingresses", "services", "endpoints") for document in case.get(key, ())] + extra
    documents += [described_secret(entry) for entry in case.get("secrets", ())]
    if not any(document["kind"] == "IngressClass" for document in extra):
        documents.append(ingress_class())
    if "config" in case:
        namespace, name = CONTROLLER_CONFIG.split("/")
        documents.append(config_map(name, case["config"], namespace))
    return documents


def certificate_of(documents: Iterable[Document], name: str) -> list[bytes]:
    """Return the certificates, as sent over the wire, of the TLS Secrets of a name."""
    return [
        certificates.der(base64.b64decode(document["data"]["tls.crt"]))
        for document in documents
        if document["kind"] == "Secret"
        and document["metadata"]["name"] == name
        and document["type"] == "kubernetes.io/tls"
    ]


def owners(documents: Iterable[Document]) -> dict[tuple[str, int], tuple[str, str]]:
    """Return, for each address and port that can answer, the namespace and name of its Service.

    Endpoints that are not ready are there too, and so are ClusterIPs: who answers wrongly is told by name.
    """
    collected: dict[tuple[str, int], tuple[str, str]] = {}
    for document in documents:
        namespace = document["metadata"].get("namespace", "default")
        match document["kind"]:
            case "EndpointSlice":
                name = document["metadata"]["labels"]["kubernetes.io/service-name"]
                pairs = [
                    (a, p["port"]) for e in document["endpoints"] for a in e["addresses"] for p in document["ports"]
                ]
            case "Endpoints":
                name = document["metadata"]["name"]
                pairs = [
                    (a["ip"], p["port"])
                    for subset in document.get("subsets", ())
                    for a in (*subset.get("addresses", ()), *subset.get("notReadyAddresses", ()))
                    for p in subset["ports"]
                ]
            case "Service" if document["spec"].get("clusterIP", "None") != "None":
                name = document["metadata"]["name"]
                pairs = [(document["spec"]["clusterIP"], p["port"]) for p in document["spec"].get("ports", ())]
            case _:
                continue
        collected |= dict.fromkeys(pairs, (namespace, name))
    return collected


def ports(documents: Iterable[Document]) -> set[int]:
    """Return every port that a pod of these objects may be asked on."""
    return {port for _, port in owners(documents)}


def write(documents: Iterable[Document]) -> str:
    """Return one text with all objects, which any byte of a value survives."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
