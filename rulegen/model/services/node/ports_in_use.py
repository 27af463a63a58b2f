"""The node's addresses, and the ports in use on them by node ports, health checks and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.model.services.node.context import NodeContext
    from rulegen.net import Address, Family

KUBELET: Final = (Protocol.TCP, 10250)
"""The kubelet's API, on every node."""


class PortsInUse(msgspec.Struct, frozen=True, kw_only=True):
    """The node's own addresses, and what answers on them except external addresses of Services.

    Attributes:
        addresses: All addresses of this node except loopback.
        answering: The addresses on which node ports and health checks answer.
        programs: Ports on which programs of root listen; always includes the kubelet's port.
        knows_programs: Whether these ports were read from the host.
    """

    addresses: frozenset[Address] = frozenset()
    answering: frozenset[Address] = frozenset()
    programs: frozenset[tuple[Protocol, int]] = frozenset({KUBELET})
    knows_programs: bool = False


def node_ports_in_use(nodes: Mapping[Family, ResolvedNode], site: NodeContext, facts: HostFacts) -> PortsInUse:
    """Return the node's addresses and ports in use.

    Args:
        nodes: The node's decisions, for each family that is served.
        site: The node; its primary addresses are included even if the host's interfaces are unknown.
        facts: The host's interfaces, and the ports on which its programs listen.
    """
    addresses: set[Address] = set()
    answering: set[Address] = set()
    for family, node in nodes.items():
        own = {a for a in (site.addresses[family], *facts.addresses(family)) if not a.is_loopback}
        addresses |= own
        answering |= {address for address in own if node.answers_node_ports(address)}
    programs = {KUBELET, *((Protocol(name), port) for name, port in facts.root_ports or ())}
    return PortsInUse(
        addresses=frozenset(addresses),
        answering=frozenset(answering),
        programs=frozenset(programs),
        knows_programs=facts.root_ports is not None,
    )
