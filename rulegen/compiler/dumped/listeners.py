"""Reads the proxy of userspace mode as Services: the names of its pools contain those of the Services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.listeners.language import FILE, NAME
from rulegen.languages.listeners.state import ANY_ADDRESS, ProxyFrontend, ProxyObject, ServerPool, owner_of_pool
from rulegen.net import Protocol
from rulegen.plan.dumped.services import DumpedEndpoint, DumpedFrontend, DumpedNode, DumpedPort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.languages.listeners.state import ProxyKey, ProxyValue

UNSEEN = f"the proxy of userspace mode ({FILE} of an export): the endpoints are in the proxy, not in the rules"


def proxy_as_services(objects: Mapping[ProxyKey, ProxyValue]) -> DumpedNode:
    """Return what the proxy says in terms of Services. It does not say which addresses are ClusterIPs."""
    servers: dict[str, list[str]] = {}
    for key in objects:
        if key.kind is ProxyObject.SERVER:
            pool, _, endpoint = key.name.partition("/")
            servers.setdefault(pool, []).append(endpoint)
    ports: dict[str, DumpedPort] = {}
    for key, value in objects.items():
        if not isinstance(value, ServerPool):
            continue
        port = ports[key.name] = DumpedPort(
            language=NAME,
            family=key.family.value,
            service=owner_of_pool(key.name),
            name=key.name.split(".")[2],
            key=key.name,
        )
        ends = servers.get(key.name, [])
        port.endpoints = [DumpedEndpoint(end, round(100 / len(ends), 1)) for end in ends]
        if value.affinity_s is not None:
            port.limit(f"session affinity by client address, {value.affinity_s} s")
    for key, value in objects.items():
        if isinstance(value, ProxyFrontend) and value.pool in ports:
            address, _, number = key.name.rpartition(":")
            is_node_port = address == ANY_ADDRESS
            text = f"{Protocol.TCP} {number if is_node_port else key.name}"
            ports[value.pool].add(DumpedFrontend("node port" if is_node_port else "address", text))
    return DumpedNode(seen=[NAME], ports=list(ports.values()))
