"""Contradictions between the configuration, the Node and the host that kube-proxy 1.36 rejects or warns about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import ConfigError
from rulegen.kube.proxyconfig.validation import host_and_port
from rulegen.model.services.node.context import primary_addresses
from rulegen.model.services.options import DetectLocalMode
from rulegen.net import Family, family_of, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.kube.objects import structs
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.model.services.options import Options
    from rulegen.net import Network


def family_warnings(nodes: Mapping[Family, ResolvedNode], node: structs.Node | None, options: Options) -> Iterator[str]:
    """Yield warnings about configured prefixes and addresses that are not of the node's primary family.

    `rulegen.model.services.node.node_warnings` warns if, in a family in which the node has an address, Pod traffic
    cannot be recognised or node ports are not restricted.

    Args:
        nodes: The node's decisions, for each family that the host supports.
        node: Its Node object; None if there is none.
        options: The configuration.

    Raises:
        ConfigError: The host supports one family, and the prefixes that identify Pod traffic are all of the other.
    """
    is_dual = len(nodes) > 1
    primary = primary_family(node, options) if is_dual or not nodes else next(iter(nodes))
    other = next(family for family in Family if family is not primary)
    kind = f"{primary} first" if is_dual else f"{primary} only"
    pods = _pod_cidrs(node)
    for name, networks, mode in (
        ("clusterCIDR", options.cluster_cidrs, DetectLocalMode.CLUSTER_CIDR),
        ("the Node's podCIDRs", pods, DetectLocalMode.NODE_CIDR),
    ):
        if not _all_of(networks, other):
            continue
        text = f"the node uses {kind}, but {name} holds {other} prefixes only"
        if options.detect_local_mode is not mode:
            yield text
        elif not is_dual:
            raise ConfigError(text, hint=f"give an {primary} prefix, or enable {other} on the node")
    ports = options.node_port_networks
    dual = [options.cluster_cidrs, options.ipvs_excluded, pods]
    if (
        _all_of(ports, primary)
        and primary_addresses(node, options)[other] is None
        and any(len({family_of(network) for network in group}) > 1 for group in dual)
    ):
        yield (
            f"the cluster has both families, but nodePortAddresses has no {other} network:"
            f" node ports answer on every {other} address of this node"
        )
    if not is_dual:
        yield from _single_stack_warnings(options, primary, other)


def local_traffic_warnings(
    nodes: Mapping[Family, ResolvedNode], node: structs.Node | None, options: Options
) -> Iterator[str]:
    """Yield a warning if Pod traffic cannot be recognised in any family: the reason, the effect and the remedy."""
    if any(decided.pods is not None for decided in nodes.values()):
        return
    match options.detect_local_mode:
        case DetectLocalMode.NODE_CIDR if node is None:
            why, remedy = "there is no Node object with podCIDRs", "Give the Node object too"
        case DetectLocalMode.CLUSTER_CIDR if not options.cluster_cidrs:
            why = "there is no clusterCIDR"
            remedy = "Give kube-proxy's configuration (--config) or the Pod network (--cluster-cidr)"
        case _:
            return  # `node_warnings` warns for each family
    follows = ["for externalTrafficPolicy Local, Pods count as outside clients"]
    if not options.masquerade_all:
        follows.insert(
            0, "connections to ClusterIPs are not masqueraded, so clients that are not Pods may get no answer"
        )
    yield f"local traffic cannot be recognised, because {why}: {'; '.join(follows)}. {remedy}"


def primary_family(node: structs.Node | None, options: Options) -> Family:
    """Return the node's primary family: that of its bind address, else of its first address, else IPv4."""
    if options.bind_address is not None:
        return family_of(options.bind_address)
    known = {address for address in primary_addresses(node, options).values() if address is not None}
    for kind in ("InternalIP", "ExternalIP"):
        for written in node.status.addresses if node else ():
            if written.type == kind:
                for address in known:
                    if _is_same(written.address, address):
                        return family_of(address)
    return Family.IPV4


def _is_same(text: str, address: object) -> bool:
    try:
        return parse_address(text) == address
    except ValueError:
        return False  # the decoder has already reported the invalid text


def _single_stack_warnings(options: Options, primary: Family, other: Family) -> Iterator[str]:
    if _all_of(options.ipvs_excluded, other):
        yield f"the node uses {primary} only, but ipvs.excludeCIDRs holds {other} prefixes only"
    for name, text in (
        ("healthzBindAddress", options.healthz_address),
        ("metricsBindAddress", options.metrics_address),
    ):
        host = parse_address(host_and_port(text)[0])
        if family_of(host) is other and not host.is_unspecified:
            yield f"the node uses {primary} only, but {name} is {text}"


def _pod_cidrs(node: structs.Node | None) -> Collection[Network]:
    if node is None:
        return ()
    cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
    return tuple(parse_network(cidr) for cidr in cidrs)


def _all_of(networks: Iterable[Network], family: Family) -> bool:
    """Whether there is at least one prefix, and all prefixes are of this family."""
    return {family_of(network) for network in networks} == {family}
