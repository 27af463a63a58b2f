"""Validates Services and sets defaults, as the API server does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.kube.syntax import is_label, is_port_name
from rulegen.kube.validation.findings import PROTOCOLS, family_of_text
from rulegen.net import Family, parse_address, parse_network
from rulegen.text import number, printable, quoted

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import LoadBalancerIngress, Service, ServicePort, ServiceSpec, ServiceStatus
    from rulegen.kube.validation.findings import Findings

HEADLESS: Final = "None"
TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
POLICIES: Final = ("Cluster", "Local")
FAMILY_POLICIES: Final = ("SingleStack", "PreferDualStack", "RequireDualStack")
AFFINITIES: Final = ("None", "ClientIP")
IP_MODES: Final = ("VIP", "Proxy")
MAX_AFFINITY_S: Final = 86400

_FAMILIES: Final = tuple(family.value for family in Family)


def check_service(service: Service, findings: Findings) -> Service:
    """Return the Service with defaults and without invalid entries; record all faults."""
    spec = service.spec
    if not spec.type or not spec.session_affinity:
        spec = replace(spec, type=spec.type or "ClusterIP", session_affinity=spec.session_affinity or "None")
    _check_words(spec, findings)
    if spec.type == "ExternalName":
        spec = _with_external_name(spec, findings)
    spec = _with_addresses(_with_ports(spec, findings), findings)
    if spec.external_ips or spec.load_balancer_source_ranges:
        spec = _with_readable_entries(spec, findings)
    status = service.status
    if status.load_balancer.ingress:
        status = _with_readable_ingress(status, findings)
    if spec is service.spec and status is service.status:
        return service
    return replace(service, spec=spec, status=status)


def _check_words(spec: ServiceSpec, findings: Findings) -> None:
    findings.choice("spec.type", spec.type, TYPES)
    if spec.ip_family_policy:
        findings.choice("spec.ipFamilyPolicy", spec.ip_family_policy, FAMILY_POLICIES)
    if spec.internal_traffic_policy:
        findings.choice("spec.internalTrafficPolicy", spec.internal_traffic_policy, POLICIES)
    if spec.external_traffic_policy:
        findings.choice("spec.externalTrafficPolicy", spec.external_traffic_policy, POLICIES)
    findings.choice("spec.sessionAffinity", spec.session_affinity, AFFINITIES)
    if spec.health_check_node_port:
        findings.port("spec.healthCheckNodePort", spec.health_check_node_port, least=0)
    config = spec.session_affinity_config
    timeout = config.client_ip.timeout_seconds if config and config.client_ip else None
    if timeout is not None and not 1 <= timeout <= MAX_AFFINITY_S:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        findings.fault(path, f"{number(timeout)} is not a number of seconds from 1 to {MAX_AFFINITY_S}")


def _with_external_name(spec: ServiceSpec, findings: Findings) -> ServiceSpec:
    """Return the spec with the external name without its trailing dot."""
    name = spec.external_name.removesuffix(".")
    if name:
        findings.subdomain("spec.externalName", name)
    else:
        findings.fault("spec.externalName", "missing: an ExternalName Service needs a DNS name")
    return spec if name == spec.external_name else replace(spec, external_name=name)


# -- ports -------------------------------------------------------------------------------------------------------------


def _with_ports(spec: ServiceSpec, findings: Findings) -> ServiceSpec:
    ports = spec.ports
    if not ports and HEADLESS not in (spec.cluster_ip, *spec.cluster_ips) and spec.type != "ExternalName":
        findings.fault("spec.ports", "missing: a Service has at least one port")
    if any(not port.protocol for port in ports):
        ports = tuple(replace(port, protocol=port.protocol or "TCP") for port in ports)
        spec = replace(spec, ports=ports)
    seen: dict[tuple[str, str | int, str], int] = {}
    for index, port in enumerate(ports):
        _check_port(port, f"spec.ports[{index}]", findings)
        if len(ports) > 1:
            _check_port_among_others(port, index, seen, findings)
    return spec


def _check_port(port: ServicePort, path: str, findings: Findings) -> None:
    if port.name and not is_label(port.name):
        findings.label(f"{path}.name", port.name)
    findings.choice(f"{path}.protocol", port.protocol, PROTOCOLS)
    findings.port(f"{path}.port", port.port)
    if port.node_port:
        findings.port(f"{path}.nodePort", port.node_port, least=0)
    target = port.target_port
    if isinstance(target, str):
        if target and not is_port_name(target):
            findings.fault(f"{path}.targetPort", f"{quoted(target)} is neither a port's number nor a port's name")
    elif target:
        findings.port(f"{path}.targetPort", target, least=0)


def _check_port_among_others(
    port: ServicePort, index: int, seen: dict[tuple[str, str | int, str], int], findings: Findings
) -> None:
    """Check that names, ports and node ports are unique; `seen` has those of earlier ports, each with its index."""
    path = f"spec.ports[{index}]"
    if not port.name:
        findings.fault(f"{path}.name", "missing: with several ports, each needs a name")
    keys: list[tuple[str, str | int, str]] = [("name", port.name, ""), ("port", port.port, port.protocol)]
    if port.node_port:
        keys.append(("nodePort", port.node_port, port.protocol))
    for key in keys:
        field, value, protocol = key
        first = seen.setdefault(key, index)
        if first != index and value:
            shown = quoted(value) if isinstance(value, str) else f"{number(value)}/{printable(protocol)}"
            findings.fault(f"{path}.{field}", f"{shown} appears twice: spec.ports[{first}] has it too")


# -- addresses ---------------------------------------------------------------------------------------------------------


def _with_addresses(spec: ServiceSpec, findings: Findings) -> ServiceSpec:
    """Check that ClusterIPs and families agree; derive missing ones from each other."""
    single = spec.cluster_ip
    addresses = spec.cluster_ips or ((single,) if single else ())
    path = "spec.clusterIPs" if spec.cluster_ips else "spec.clusterIP"
    if single and spec.cluster_ips and not _same_address(single, spec.cluster_ips[0]):
        findings.fault("spec.clusterIP", f"{quoted(single)} is not the first of spec.clusterIPs")
    _check_families(spec.ip_families, findings)
    if HEADLESS in addresses:
        if len(addresses) > 1:
            findings.fault("spec.clusterIPs", 'has other addresses besides "None"')
        return replace(spec, cluster_ip=HEADLESS, cluster_ips=(HEADLESS,))
    families = [family_of_text(address) for address in addresses]
    for index, (address, family) in enumerate(zip(addresses, families, strict=True)):
        here = f"{path}[{index}]" if spec.cluster_ips else path
        if family is None:
            findings.fault(here, f"{quoted(address)} is not an IP address")
        elif index < len(spec.ip_families) and spec.ip_families[index] in _FAMILIES:
            if spec.ip_families[index] != family:
                findings.fault(here, f"{address} is {family}, spec.ipFamilies[{index}] is {spec.ip_families[index]}")
        elif spec.ip_families:
            findings.fault(here, "has no family in spec.ipFamilies")
    if len(addresses) > 2 or (len(addresses) == 2 and families[0] == families[1]):
        findings.fault(path, "at most two addresses, one of each family")
    if not addresses:
        return spec
    known = spec.ip_families or tuple(str(family) for family in families)
    if single == addresses[0] and spec.cluster_ips and spec.ip_families:
        return spec
    return replace(spec, cluster_ip=addresses[0], cluster_ips=addresses, ip_families=known)


def _same_address(address: str, other: str) -> bool:
    """Return whether two texts are the same address; invalid texts count as equal, as another check reports them."""
    if address == other or family_of_text(address) is None or family_of_text(other) is None:
        return address == other or HEADLESS not in (address, other)
    return parse_address(address) == parse_address(other)


def _check_families(families: tuple[str, ...], findings: Findings) -> None:
    for index, family in enumerate(families):
        findings.choice(f"spec.ipFamilies[{index}]", family, _FAMILIES)
        if family in families[:index]:
            findings.fault(f"spec.ipFamilies[{index}]", f"{quoted(family)} appears twice")
            return


# -- invalid entries, which are ignored --------------------------------------------------------------------------------


def _with_readable_entries(spec: ServiceSpec, findings: Findings) -> ServiceSpec:
    external_ips = []
    for index, address in enumerate(spec.external_ips):
        if family_of_text(address) is None:
            findings.ignore(f"spec.externalIPs[{index}]", f"{quoted(address)} is not an IP address: ignored")
        else:
            external_ips.append(address)
    ranges = []
    for index, text in enumerate(spec.load_balancer_source_ranges):
        stripped = text.strip(" \t\r\n\v\f")
        try:
            parse_network(stripped)
        except ValueError:
            path = f"spec.loadBalancerSourceRanges[{index}]"
            findings.ignore(path, f"{quoted(text)} is not a CIDR such as 10.0.0.0/8: ignored")
        else:
            ranges.append(stripped)
    if spec.load_balancer_source_ranges and not ranges:
        findings.ignore(
            "spec.loadBalancerSourceRanges", "no valid entry is left: the load balancer is open to everyone"
        )
    return replace(spec, external_ips=tuple(external_ips), load_balancer_source_ranges=tuple(ranges))


def _with_readable_ingress(status: ServiceStatus, findings: Findings) -> ServiceStatus:
    kept: list[LoadBalancerIngress] = []
    for index, ingress in enumerate(status.load_balancer.ingress):
        path = f"status.loadBalancer.ingress[{index}]"
        if ingress.ip and family_of_text(ingress.ip) is None:
            findings.ignore(f"{path}.ip", f"{quoted(ingress.ip)} is not an IP address: ignored")
        elif ingress.ip_mode and ingress.ip_mode not in IP_MODES:
            findings.ignore(f"{path}.ipMode", f"{quoted(ingress.ip_mode)} is not one of VIP, Proxy: ignored")
        else:
            kept.append(ingress)
    return replace(status, load_balancer=replace(status.load_balancer, ingress=tuple(kept)))
