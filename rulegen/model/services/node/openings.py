"""Warnings about access that a changed configuration opens.

A valid configuration is applied, even if a field has been removed. Most fields restrict access, so a line removed by
mistake opens something. The log therefore names what each change opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.model.services.options import DetectLocalMode
from rulegen.net import Family, family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.model.services.options import Options
    from rulegen.net import Network


def openings(before: Options, after: Options) -> Iterator[str]:
    """Yield a warning for each access that `after` permits and `before` did not; none for equal options."""
    yield from _node_ports(before, after)
    yield from _masquerading(before, after)
    if after.external_ips and not before.external_ips:
        yield "the feature gate AllowServiceExternalIPs is on again: spec.externalIPs of all Services are served"
    if after.conntrack_be_liberal and not before.conntrack_be_liberal:
        yield "conntrack.tcpBeLiberal is on: forwarded packets that conntrack calls INVALID are no longer dropped"
    for field, page, old, new in (
        ("healthzBindAddress", "/healthz", before.healthz_address, after.healthz_address),
        ("metricsBindAddress", "/metrics", before.metrics_address, after.metrics_address),
    ):
        if _is_everywhere(new) and not _is_everywhere(old):
            yield f"{field} is {new} instead of {old or 'off'}: {page} answers on every address of this node"
    if before.needs.has_virtual_servers and after.needs.has_virtual_servers:
        yield from _ipvs(before, after)
    if before.node_name != after.node_name:
        names = [each.node_name or "the host's name" for each in (before, after)]
        yield (
            f"hostnameOverride changes from {names[0]} to {names[1]}: this host then counts as another node, with other"
            " local endpoints"
        )


def _node_ports(before: Options, after: Options) -> Iterator[str]:
    for family in Family:
        if _restricts(before, family) and not _restricts(after, family):
            yield (
                f"nodePortAddresses no longer restricts {family}: node ports and health check ports open on every"
                f" {family} address of this node"
            )
    if _on_loopback(after) and not _on_loopback(before):
        yield "node ports open on 127.0.0.0/8, for which route_localnet is set to 1"


def _restricts(options: Options, family: Family) -> bool:
    networks = [network for network in options.node_port_networks if family_of(network) is family]
    return options.node_port_primary or (bool(networks) and all(network.prefixlen for network in networks))


def _on_loopback(options: Options) -> bool:
    networks = [network for network in options.node_port_networks if family_of(network) is Family.IPV4]
    return options.opens_loopback(networks if _restricts(options, Family.IPV4) else None)


def _masquerading(before: Options, after: Options) -> Iterator[str]:
    for family in Family:
        if _masquerades(before, family) and not _masquerades(after, family):
            yield (
                f"detectLocalMode {after.detect_local_mode} no longer identifies {family} traffic of this"
                f" node's Pods: connections to ClusterIPs are not masqueraded in {family} any more"
            )


def _masquerades(options: Options, family: Family) -> bool:
    """Whether the configuration masquerades connections to ClusterIPs that do not come from Pods of this node."""
    if options.masquerade_all:
        return True
    match options.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR:
            return any(family_of(network) is family for network in options.cluster_cidrs)
        case DetectLocalMode.BRIDGE_INTERFACE:
            return bool(options.bridge_interface)
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            return bool(options.interface_name_prefix)
        case DetectLocalMode.NODE_CIDR:
            return True


def _is_everywhere(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return bool(address) and host in {"", "0.0.0.0", "::"}  # noqa: S104 - is compared with


def _ipvs(before: Options, after: Options) -> Iterator[str]:
    lost = [
        network for network in before.ipvs_excluded if not any(_covers(other, network) for other in after.ipvs_excluded)
    ]
    if lost:
        networks = ", ".join(map(str, lost))
        yield f"ipvs.excludeCIDRs no longer contains {networks}: other programs' virtual servers there may be removed"
    if before.ipvs_strict_arp and not after.ipvs_strict_arp:
        yield "ipvs.strictARP is off: other interfaces answer ARP for the addresses of Services"


def _covers(wide: Network, narrow: Network) -> bool:
    return wide.overlaps(narrow) and wide.prefixlen <= narrow.prefixlen
