"""What Ingresses cost: N of them with a host and three paths each. A process; prints seconds and sizes by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from integration.bench import worlds

PATHS = ("/", "/api", "/static")
CERTIFICATES = 200
"""Secrets that the hosts share, as those of one wildcard do."""


def objects(ingresses: int, *, tls: bool) -> Iterator[dict[str, Any]]:
    """Yield the objects of a world: a Service and an Ingress for each host, and the class."""
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "rulegen"},
        "spec": {"controller": "rulegen.io/ingress"},
    }
    for number in range(ingresses):
        yield worlds.service(number)
        yield worlds.endpoint_slice(number)
        yield ingress(number, tls=tls)


def ingress(number: int, *, tls: bool, paths: tuple[str, ...] = PATHS) -> dict[str, Any]:
    """Return one Ingress, as an API server prints it."""
    host = f"app-{number}.bench.example.com"
    backend = {"service": {"name": f"svc-{number}", "port": {"number": 80}}}
    spec: dict[str, Any] = {
        "ingressClassName": "rulegen",
        "rules": [
            {"host": host, "http": {"paths": [{"path": p, "pathType": "Prefix", "backend": backend} for p in paths]}}
        ],
    }
    if tls:
        spec["tls"] = [{"hosts": [host], "secretName": f"cert-{number % CERTIFICATES}"}]
    metadata = {"name": f"app-{number}", "namespace": "bench", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}
