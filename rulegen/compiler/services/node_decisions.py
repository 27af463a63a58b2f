"""Decisions for all Services of a node: from its Node object, the facts of its host and the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from rulegen.errors import Warnings
from rulegen.kube.objects import structs
from rulegen.model.services.node.context import resolve_node, resolve_site, resolve_sysctls
from rulegen.model.services.node.known_node import known_node
from rulegen.model.services.node.node_warnings import node_warnings
from rulegen.model.services.node.ports_in_use import node_ports_in_use

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.snapshot.cluster import Cluster
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.model.services.node.context import NodeContext
    from rulegen.model.services.node.ports_in_use import PortsInUse
    from rulegen.model.services.options import Options
    from rulegen.net import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDecisions:
    """Decisions that apply to all Services of a node.

    Attributes:
        name: The node's name.
        known: The Node object used.
        kept: Warnings about values of an earlier Node object that stay in use.
        ports_in_use: Addresses and ports of the node itself; only conflicts with Services depend on it.
        nodes: By family; a family that the host does not have is missing.
        sysctls: Kernel parameters that must have these values.
        warnings: Warnings for the user, without `kept`.
    """

    name: str
    known: structs.Node | None
    kept: tuple[str, ...]
    site: NodeContext
    ports_in_use: PortsInUse
    nodes: Mapping[Family, ResolvedNode]
    sysctls: Mapping[str, str]
    warnings: tuple[str, ...]

    def decides_as(self, other: NodeDecisions, *, binds: bool) -> bool:
        """Return whether both lead to the same rules, except for Services with external addresses.

        Args:
            other: The other decisions.
            binds: Whether the mode has objects for each address of the node; otherwise only selected addresses count.
        """
        mine, others = (
            {family: node if binds else _without_own(node) for family, node in each.nodes.items()}
            for each in (self, other)
        )
        site = replace(self.site, forbidden=other.site.forbidden)
        return (self.name, site, self.sysctls, mine) == (other.name, other.site, other.sysctls, others)

    def differs_in_addresses_only(self, other: NodeDecisions) -> bool:
        """Return whether only the node's addresses differ: its own, those of node ports, and that of the proxy."""
        mine, others = (
            {
                family: replace(_without_own(node), node_port_addresses=None, proxy=None)
                for family, node in each.nodes.items()
            }
            for each in (self, other)
        )
        site = replace(self.site, addresses=other.site.addresses, forbidden=other.site.forbidden)
        is_same_site = site == other.site
        return is_same_site and (self.name, self.sysctls, mine) == (other.name, other.sysctls, others)


def decide_node(
    cluster: Cluster, options: Options, facts: HostFacts, before: structs.Node | None = None
) -> NodeDecisions:
    """Return the decisions that apply to all Services of a node.

    Args:
        cluster: Contains the Node, if it exists.
        options: Options for the node.
        facts: Facts of the host.
        before: The previous Node object: its values stay in use if a newer one has none.
    """
    warnings = Warnings()
    name = options.node_name or facts.hostname
    node, kept = known_node(name, before, cluster.node(name))
    site = resolve_site(node, name, options, facts, cluster.of_kind(structs.Node).values())
    cidrs = [cidr for each in cluster.of_kind(structs.ServiceCIDR).values() for cidr in each.spec.cidrs]
    nodes = {family: resolve_node(family, site, node, options, facts, warnings.add, cidrs) for family in facts.families}
    for warning in node_warnings(nodes, node, options):
        warnings.add(warning)
    return NodeDecisions(
        name=name,
        known=node,
        kept=kept,
        site=site,
        ports_in_use=node_ports_in_use(nodes, site, facts),
        nodes=nodes,
        sysctls=resolve_sysctls(nodes.values(), options, facts),
        warnings=warnings.texts(),
    )


def _without_own(node: ResolvedNode) -> ResolvedNode:
    return replace(node, addresses=frozenset(), listening=())
