"""Validates Pods, Nodes and ServiceCIDRs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.kube.syntax import is_port_name, is_subdomain
from rulegen.kube.validation.findings import PROTOCOLS, family_of_text
from rulegen.net import parse_network
from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.structs import Container, Node, NodeAddress, Pod, ServiceCIDR
    from rulegen.kube.validation.findings import Findings

_IP_ADDRESSES: Final = frozenset({"InternalIP", "ExternalIP"})


def check_pod(pod: Pod, findings: Findings) -> Pod:
    """Return the Pod without invalid addresses; record all faults."""
    spec, status = pod.spec, pod.status
    if spec.node_name and not is_subdomain(spec.node_name):
        findings.subdomain("spec.nodeName", spec.node_name)
    _check_containers(spec.containers, "spec.containers", findings)
    _check_containers(spec.init_containers, "spec.initContainers", findings)
    addresses = status.pod_ips
    if status.pod_ip and family_of_text(status.pod_ip) is None:
        findings.ignore("status.podIP", f"{quoted(status.pod_ip)} is not an IP address: ignored")
        status = replace(status, pod_ip="")
    for index, entry in enumerate(addresses):
        if family_of_text(entry.ip) is None:
            findings.ignore(f"status.podIPs[{index}].ip", f"{quoted(entry.ip)} is not an IP address: ignored")
    kept = tuple(entry for entry in addresses if family_of_text(entry.ip) is not None)
    return replace(pod, status=replace(status, pod_ips=kept))


def _check_containers(containers: tuple[Container, ...], path: str, findings: Findings) -> None:
    for index, container in enumerate(containers):
        for number, port in enumerate(container.ports):
            here = f"{path}[{index}].ports[{number}]"
            if port.name and not is_port_name(port.name):
                findings.fault(f"{here}.name", f"{quoted(port.name)} is not the name of a port")
            findings.port(f"{here}.containerPort", port.container_port)
            if port.protocol:
                findings.choice(f"{here}.protocol", port.protocol, PROTOCOLS)


def check_node(node: Node, findings: Findings) -> Node:
    """Return the Node without invalid addresses; record all faults."""
    spec = node.spec
    if spec.pod_cidr:
        _check_cidrs([("spec.podCIDR", spec.pod_cidr)], findings)
    _check_cidrs(((f"spec.podCIDRs[{i}]", cidr) for i, cidr in enumerate(spec.pod_cidrs)), findings)
    kept: list[NodeAddress] = []
    for index, address in enumerate(node.status.addresses):
        if address.type in _IP_ADDRESSES and family_of_text(address.address) is None:
            path = f"status.addresses[{index}].address"
            findings.ignore(path, f"{quoted(address.address)} is not an IP address: ignored")
        else:
            kept.append(address)
    return replace(node, status=replace(node.status, addresses=tuple(kept)))


def check_service_cidr(service_cidr: ServiceCIDR, findings: Findings) -> ServiceCIDR:
    """Return the ServiceCIDR; record all faults."""
    _check_cidrs(((f"spec.cidrs[{i}]", cidr) for i, cidr in enumerate(service_cidr.spec.cidrs)), findings)
    return service_cidr


def _check_cidrs(cidrs: Iterable[tuple[str, str]], findings: Findings) -> None:
    for path, text in cidrs:
        try:
            parse_network(text)
        except ValueError:
            findings.fault(path, f"{quoted(text)} is not a CIDR such as 10.0.0.0/8 or fd00::/64")
