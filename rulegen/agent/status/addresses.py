"""Addresses of nodes in the status of API objects."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from rulegen.kube.syntax import is_subdomain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.kube.objects.structs import LoadBalancerIngress, Node, Service

EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of a Node that load balancers must not use."""

Entries = tuple[str, ...]
"""Addresses and names of hosts, in order, each once."""


def union(live: Mapping[str, Entries]) -> Entries:
    """Return the addresses and names of all nodes; invalid ones are omitted."""
    return in_order(entry for entries in live.values() for entry in entries if family_of(entry) or _is_host(entry))


def entries_of(ingress: tuple[LoadBalancerIngress, ...]) -> Entries:
    """Return the addresses that a status publishes."""
    return in_order(entry.ip or entry.hostname for entry in ingress)


def documents(entries: Entries) -> list[dict[str, str]]:
    """Return entries in the format of a status."""
    return [{"ip": entry} if family_of(entry) else {"hostname": entry} for entry in entries]


def node_addresses(node: Node | None, *, internal: bool) -> Entries:
    """Return the external addresses of a node; if it has none, the internal ones.

    Args:
        node: Its Node object, if there is one.
        internal: Whether to always return the internal ones.
    """
    by_type: dict[str, list[str]] = {"ExternalIP": [], "InternalIP": []}
    for address in node.status.addresses if node else ():
        if address.type in by_type and family_of(address.address):
            by_type[address.type].append(str(ip_address(address.address)))
    return tuple(dict.fromkeys((not internal and by_type["ExternalIP"]) or by_type["InternalIP"]))


def service_addresses(service: Service) -> Entries:
    """Return the addresses by which clients outside of the cluster reach a Service."""
    spec = service.spec
    match spec.type:
        case "ExternalName":
            return (spec.external_name,)
        case "LoadBalancer":
            return in_order((*entries_of(service.status.load_balancer.ingress), *spec.external_ips))
        case "NodePort" if spec.external_ips:
            return in_order(spec.external_ips)
    return (spec.cluster_ip,) if family_of(spec.cluster_ip) else ()


def in_order(entries: Iterable[str]) -> Entries:
    """Return entries in order, each once."""
    return tuple(sorted(set(entries)))


def family_of(text: str) -> str:
    """Return `IPv4` or `IPv6`; empty if a text is no address."""
    try:
        return f"IPv{ip_address(text).version}"
    except ValueError:
        return ""


def _is_host(text: str) -> bool:
    """Whether a text is a host name that does not look like an address."""
    return is_subdomain(text) and not text.rpartition(".")[2].isdigit()
