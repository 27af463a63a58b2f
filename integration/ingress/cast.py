"""The cast of the scenarios: Services whose pods answer, refuse, hang up or are silent; and Ingresses to them."""

from __future__ import annotations

from collections.abc import Mapping

from integration.ingress import objects
from integration.ingress.objects import Document

DEAD, BLACK_HOLE = 9999, "10.244.66.1"


def slice_of(service: str, number: int, port: int, *addresses: str) -> Document:
    """Return one of the EndpointSlices of a Service."""
    made = objects.endpoint_slice(service, addresses)
    made["metadata"]["name"] = f"{service}-{number}"
    made["ports"][0]["port"] = port
    return made


_CAST: Mapping[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "echo": ((8080, ("10.244.1.1", "10.244.1.2")),),
    "other": ((8080, ("10.244.2.1",)),),
    "third": ((8080, ("10.244.2.2",)),),
    "crowd": ((8080, tuple(f"10.244.3.{number}" for number in range(1, 6))),),
    "errors": ((8080, ("10.244.6.1",)),),
    "auth": ((9100, ("10.244.4.1",)),),
    "auth-large": ((9100, ("10.244.4.13",)),),
    "auth-too-large": ((9100, ("10.244.4.14",)),),
    "scripts": ((9101, ("10.244.4.2",)),),
    "calls": ((9102, ("10.244.4.3",)),),
    "safe-calls": ((9103, ("10.244.4.4",)),),
    "safe": ((8443, ("10.244.4.5",)),),
    "knowing": ((9104, ("10.244.4.6",)),),
    "knowing-name": ((9104, ("10.244.4.9",)),),
    "knowing-ca": ((9104, ("10.244.4.10",)),),
    "knowing-old": ((9104, ("10.244.4.11",)),),
    "mixed": ((8080, ("10.244.4.12",)),),
    "mirror": ((9106, ("10.244.4.7",)),),
    "hangs-up": ((9105, ("10.244.5.1",)), (8080, ("10.244.5.2",))),
    "half-dead": ((DEAD, ("10.244.5.3",)), (8080, ("10.244.5.4",))),
    "half-off": ((DEAD, ("10.244.5.12",)), (8080, ("10.244.5.13",))),
    "poisoned": ((8080, ("10.244.5.14", "10.244.5.15")),),
    "poisoned-too": ((8080, ("10.244.5.16", "10.244.5.17")),),
    "dead": ((DEAD, ("10.244.5.5", "10.244.5.6")),),
    "lost": ((8080, (BLACK_HOLE, "10.244.5.7")),),
    "half-broken": ((9107, ("10.244.5.8",)), (8080, ("10.244.5.9",))),
    "silent": ((9108, ("10.244.5.18",)),),
    "broken": ((9107, ("10.244.5.10", "10.244.5.11")),),
    "empty": (),
    "notes": ((9109, ("10.244.4.15",)),),
}


def cast() -> list[Document]:
    """Return the Services that all scenarios may use."""
    results: list[Document] = [objects.ingress_class()]
    for number, (name, slices) in enumerate(_CAST.items(), 1):
        results.append(objects.service(name, f"10.96.7.{number}"))
        results += [slice_of(name, index, port, *addresses) for index, (port, addresses) in enumerate(slices)]
    return results


def cluster_ip(service: str) -> str:
    """Return the address of a Service."""
    return f"10.96.7.{list(_CAST).index(service) + 1}"


def site(
    host: str,
    annotations: Mapping[str, str] | None = None,
    service: str = "echo",
    *,
    path: str = "/",
    path_type: str = "Prefix",
    secret: str = "",
    name: str = "",
    created: str = "2025-01-01T00:00:00Z",
    prefix: str = objects.PREFIX,
) -> Document:
    """Return an Ingress of one path, called as its host unless told."""
    made = objects.ingress(name or host, host, service, paths=(path,), created=created, secret=secret)
    made["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = path_type
    if annotations:
        made["metadata"]["annotations"] = {f"{prefix}/{key}": value for key, value in annotations.items()}
    return made
