"""Validates EndpointSlices and core Endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.kube.syntax import is_label, is_label_value, is_subdomain
from rulegen.kube.validation.findings import PROTOCOLS, family_of_text
from rulegen.net import Family
from rulegen.text import quoted

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import (
        EndpointAddress,
        Endpoints,
        EndpointSlice,
        EndpointSubset,
        SliceEndpoint,
        SlicePort,
    )
    from rulegen.kube.validation.findings import Findings

ADDRESS_TYPES: Final = (*(family.value for family in Family), "FQDN")
_FAMILIES: Final = {family.value: family for family in Family}


def check_slice(endpoint_slice: EndpointSlice, findings: Findings) -> EndpointSlice:
    """Return the slice without endpoints whose address is invalid; record all faults.

    As in the API server, the default name of a port is empty, and the default protocol is TCP. A port without a number
    is valid and stays unchanged: proxies ignore it.
    """
    findings.choice("addressType", endpoint_slice.address_type, ADDRESS_TYPES)
    ports = _checked_ports(endpoint_slice.ports, findings)
    family = _FAMILIES.get(endpoint_slice.address_type)
    dropped: set[int] = set()
    for index, endpoint in enumerate(endpoint_slice.endpoints):
        _check_place(endpoint, index, findings)
        if family is None or not endpoint.addresses:
            continue
        address = endpoint.addresses[0]
        actual = family_of_text(address)
        if actual is not family:
            wrong = "not an IP address" if actual is None else f"{actual}, the slice is {family}"
            findings.ignore(f"endpoints[{index}].addresses[0]", f"{quoted(address)} is {wrong}: ignored")
            dropped.add(index)
    if ports is endpoint_slice.ports and not dropped:
        return endpoint_slice
    kept = tuple(endpoint for index, endpoint in enumerate(endpoint_slice.endpoints) if index not in dropped)
    return replace(endpoint_slice, ports=ports, endpoints=kept)


def _checked_ports(ports: tuple[SlicePort, ...], findings: Findings) -> tuple[SlicePort, ...]:
    names: dict[str, int] = {}
    for index, port in enumerate(ports):
        path = f"ports[{index}]"
        if port.name and not is_label(port.name):
            findings.label(f"{path}.name", port.name)
        if port.port:
            findings.port(f"{path}.port", port.port, least=0)
        if port.protocol:
            findings.choice(f"{path}.protocol", port.protocol, PROTOCOLS)
        if port.name is None and not port.port:
            continue
        first = names.setdefault(port.name or "", index)
        if first != index:
            findings.fault(f"{path}.name", f"{quoted(port.name or '')} appears twice: ports[{first}] has it too")
    if all(port.protocol and port.name is not None for port in ports):
        return ports
    return tuple(replace(port, name=port.name or "", protocol=port.protocol or "TCP") for port in ports)


def _check_place(endpoint: SliceEndpoint, index: int, findings: Findings) -> None:
    """Check the names of nodes and zones, which are compared and shown in messages."""
    if endpoint.node_name and not is_subdomain(endpoint.node_name):
        findings.subdomain(f"endpoints[{index}].nodeName", endpoint.node_name)
    if endpoint.zone and not is_label_value(endpoint.zone):
        findings.fault(f"endpoints[{index}].zone", f"{quoted(endpoint.zone)} is not the name of a zone")
    hints = endpoint.hints
    for number, zone in enumerate(hints.for_zones):
        if not is_label_value(zone.name):
            path = f"endpoints[{index}].hints.forZones[{number}].name"
            findings.fault(path, f"{quoted(zone.name)} is not the name of a zone")
    for number, node in enumerate(hints.for_nodes):
        if node.name and not is_subdomain(node.name):
            findings.subdomain(f"endpoints[{index}].hints.forNodes[{number}].name", node.name)


def check_endpoints(endpoints: Endpoints, findings: Findings) -> Endpoints:
    """Return the Endpoints without invalid addresses; record all faults."""
    subsets = tuple(_checked_subset(subset, f"subsets[{i}]", findings) for i, subset in enumerate(endpoints.subsets))
    return replace(endpoints, subsets=subsets)


def _checked_subset(subset: EndpointSubset, path: str, findings: Findings) -> EndpointSubset:
    for index, port in enumerate(subset.ports):
        here = f"{path}.ports[{index}]"
        if port.name and not is_label(port.name):
            findings.label(f"{here}.name", port.name)
        findings.port(f"{here}.port", port.port)
        if port.protocol:
            findings.choice(f"{here}.protocol", port.protocol, PROTOCOLS)
    return replace(
        subset,
        addresses=_readable(subset.addresses, f"{path}.addresses", findings),
        not_ready_addresses=_readable(subset.not_ready_addresses, f"{path}.notReadyAddresses", findings),
        ports=tuple(replace(port, protocol=port.protocol or "TCP") for port in subset.ports),
    )


def _readable(addresses: tuple[EndpointAddress, ...], path: str, findings: Findings) -> tuple[EndpointAddress, ...]:
    kept: list[EndpointAddress] = []
    for index, address in enumerate(addresses):
        if address.node_name and not is_subdomain(address.node_name):
            findings.subdomain(f"{path}[{index}].nodeName", address.node_name)
        if family_of_text(address.ip) is None:
            findings.ignore(f"{path}[{index}].ip", f"{quoted(address.ip)} is not an IP address: ignored")
        else:
            kept.append(address)
    return tuple(kept)
