"""Warnings about a node's configuration that depend on the Node object or on the node's addresses.

No warning changes a rule: kube-proxy continues in these cases, and so does rulegen. Configurations with which
kube-proxy does not start are rejected by `rulegen.model.services.node.mismatches`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.model.services.node.context import primary_addresses
from rulegen.model.services.node.mismatches import family_warnings, local_traffic_warnings
from rulegen.model.services.options import DetectLocalMode
from rulegen.net import Family, family_of, parse_network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rulegen.kube.objects import structs
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.model.services.options import Options
    from rulegen.net import Network


def node_warnings(nodes: Mapping[Family, ResolvedNode], node: structs.Node | None, options: Options) -> Iterator[str]:
    """Yield warnings about what the configuration leaves open, or closes, on this node in each family of the node.

    A node has the families of the addresses in its Node object and bindAddress; IPv4 if neither has an address.

    Args:
        nodes: The node's decisions, for each family that is served.
        node: Its Node object; None if there is none.
        options: The configuration.

    Raises:
        ConfigError: kube-proxy would not start on this node with these options.
    """
    yield from family_warnings(nodes, node, options)
    yield from local_traffic_warnings(nodes, node, options)
    primary = primary_addresses(node, options)
    families = [family for family in nodes if primary[family] is not None]
    if not families:
        families = [family for family in nodes if family is Family.IPV4]
    yield from _pod_networks(families, node, options)
    if options.node_port_primary:
        for family in families:
            if primary[family] is not None and nodes[family].node_port_addresses == ():
                yield (
                    f"nodePortAddresses primary: {primary[family]} is on no interface of this node: node ports do"
                    f" not answer in {family}"
                )
    elif options.node_port_networks:
        yield from _node_ports(families, nodes, options.node_port_networks)


def _pod_networks(families: Collection[Family], node: structs.Node | None, options: Options) -> Iterator[str]:
    """Yield a warning for each family in which no network identifies traffic of this node's Pods."""
    match options.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR if options.cluster_cidrs:
            networks: Sequence[Network] = options.cluster_cidrs
            source = "clusterCIDR"
        case DetectLocalMode.NODE_CIDR if node is not None:
            cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
            networks = [parse_network(cidr) for cidr in cidrs]
            source = f"detectLocalMode NodeCIDR, but spec.podCIDRs of Node {node.metadata.name}"
        case _:
            return
    for family in families:
        if any(family_of(network) is family for network in networks):
            continue
        given = f"only {', '.join(map(str, networks))}" if networks else "is empty"
        has = f"has {given}" if networks else given
        yield (
            f"{source} {has}: traffic of this node's pods cannot be recognised in {family},"
            " so no connection to a ClusterIP is masqueraded there unless masqueradeAll is set"
        )


def _node_ports(
    families: Collection[Family], nodes: Mapping[Family, ResolvedNode], networks: Sequence[Network]
) -> Iterator[str]:
    """Yield a warning for each family in which nodePortAddresses matches all addresses or none."""
    for family in families:
        ours = [str(network) for network in networks if family_of(network) is family]
        if not ours:
            yield f"nodePortAddresses has no {family} network: node ports answer on every {family} address of this node"
        elif nodes[family].node_port_addresses == ():
            yield (
                f"nodePortAddresses {', '.join(ours)}: no interface of this node has such an address: node ports do"
                f" not answer in {family}"
            )
