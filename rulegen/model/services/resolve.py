"""Resolves a cluster snapshot to the model: `resolve` makes all decisions for one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import Warnings
from rulegen.kube.node_names import unknown_node
from rulegen.model.services.ir import Model
from rulegen.model.services.node.context import resolve_node, resolve_site, resolve_sysctls
from rulegen.model.services.node.node_warnings import node_warnings
from rulegen.model.services.node.ports_in_use import node_ports_in_use
from rulegen.model.services.table import ServiceTable
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.options import Options


def resolve(
    world: ClusterSnapshot, options: Options, facts: HostFacts, families: Sequence[Family] = tuple(Family)
) -> Model:
    """Return the model of one node.

    Args:
        world: The objects of the cluster.
        options: The configuration. The node is its `node_name`, else the host's name.
        facts: The facts of the host.
        families: The families to serve.
    """
    warnings = Warnings()
    name = options.node_name or facts.hostname
    node = world.nodes.get(name)
    if node is None:
        warnings.add(f"{unknown_node(name, world.nodes)}. This node's zone, addresses and Pod CIDRs are unknown")
    site = resolve_site(node, name, options, facts, world.nodes.values())
    if (
        options.needs.has_virtual_servers
        and facts.schedulers is not None
        and options.ipvs_scheduler not in facts.schedulers
    ):
        offered = ", ".join(sorted(facts.schedulers)) or "none"
        warnings.add(f"this kernel does not have the IPVS scheduler {options.ipvs_scheduler!r}, but {offered}")
    nodes = {f: resolve_node(f, site, node, options, facts, warnings.add, world.service_cidrs) for f in families}
    for warning in node_warnings(nodes, node, options):
        warnings.add(warning)
    table = ServiceTable(
        site,
        families,
        oldest_wins=options.oldest_claim_wins,
        ports_in_use=node_ports_in_use(nodes, site, facts),
    )
    for service in sorted(world.services):
        table.put(service, world.services[service])
    for warning in table.warnings():
        warnings.add(warning)
    return Model(
        node_name=name,
        nodes=nodes,
        services=table.services(),
        sysctls=resolve_sysctls(nodes.values(), options, facts),
        timeouts=options.ipvs_timeouts if options.needs.has_virtual_servers else (0, 0, 0),
        warnings=warnings.texts(),
    )
