"""Selects the conntrack entries that send UDP clients to an endpoint that does not serve them any more.

UDP connections have no end. While a client continues to send from one port, conntrack sends its packets to the endpoint
of the first packet, or to none. When an endpoint is removed, such entries must be deleted. TCP and SCTP entries are
never deleted: TCP connections end, and a terminating endpoint may finish its connections.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.net import Address, Family, Network, Protocol, family_of, join_host_port

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.model.services.ir import ResolvedNode, ResolvedPort, ResolvedService


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A conntrack entry: addresses and ports of the original direction and of the reply direction."""

    protocol: Protocol
    orig_src: Address
    orig_dst: Address
    orig_sport: int
    orig_dport: int
    reply_src: Address
    reply_dst: Address
    reply_sport: int
    reply_dport: int

    @property
    def family(self) -> Family:
        """The flow's family."""
        return family_of(self.orig_dst)

    @property
    def is_untranslated(self) -> bool:
        """Whether the client's packets keep their destination, as those that the proxy of this node gets."""
        return (self.reply_src, self.reply_sport) == (self.orig_dst, self.orig_dport)

    def __str__(self) -> str:
        client = join_host_port(self.orig_src, self.orig_sport)
        frontend = join_host_port(self.orig_dst, self.orig_dport)
        return f"{self.protocol.lower()} {client} to {frontend} at {join_host_port(self.reply_src, self.reply_sport)}"


class FlowFrontend(NamedTuple):
    """The frontend of a flow; without address: a node port, on all addresses on which node ports answer."""

    address: Address | None
    port: int


class StaleUdpPolicy(enum.StrEnum):
    """Which stale UDP flows are deleted from conntrack."""

    ALL = "all"
    """All stale flows."""
    KUBE_PROXY = "kube-proxy"
    """Only stale flows of Services that have endpoints, as in kube-proxy."""
    NONE = "none"


class Stale(NamedTuple):
    """A flow to delete, the Service that owns it (empty if it is deleted), and the reason."""

    flow: Flow
    owner: str
    why: str


def stale_flows(
    flows: Iterable[Flow],
    services: Iterable[ResolvedService],
    *,
    node_addresses: Collection[Address],
    gone: Collection[FlowFrontend] = (),
    service_networks: Collection[Network] = (),
    stale_udp: StaleUdpPolicy = StaleUdpPolicy.ALL,
) -> Iterator[Stale]:
    """Yield the UDP flows that must be deleted, in the order of `flows`.

    A flow to a frontend of a Service is kept only if its reply source is an endpoint that serves the port, regardless
    of traffic policies, or if it is not translated and the proxy of this node serves the port. Flows of Services
    without endpoints are therefore deleted, which kube-proxy does not do (kubernetes/kubernetes#139628), and flows of
    deleted Services (kubernetes/kubernetes#141371).

    Args:
        flows: The entries of conntrack.
        services: The resolved Services.
        node_addresses: Addresses of this node on which node ports answer, see `answering`. A flow to another address is
            not a flow of a node port, even if it has its number.
        gone: Frontends that this node served until now, and that no Service has any more.
        service_networks: Prefixes of ClusterIPs, if known. A flow to an address in these that was translated, and that
            no Service has, is a flow of a Service deleted earlier.
        stale_udp: Which stale flows to delete.
    """
    if stale_udp is StaleUdpPolicy.NONE:
        return
    deletes_all = stale_udp is StaleUdpPolicy.ALL
    # The frontend of a node port has no address and is equal in both families, so the family is part of the key.
    frontends = {(port.family, frontend): port for port in _udp_ports(services) for frontend in frontends_of(port)}
    removed = set(gone)
    here = set(node_addresses)
    for flow in flows:
        if flow.protocol is not Protocol.UDP:
            continue
        sent_to = FlowFrontend(flow.orig_dst, flow.orig_dport)
        if flow.orig_dst in here and (flow.family, sent_to) not in frontends and sent_to not in removed:
            sent_to = FlowFrontend(None, flow.orig_dport)
        port = frontends.get((flow.family, sent_to))
        reply = join_host_port(flow.reply_src, flow.reply_sport)
        if port is not None:
            is_of_proxy = port.is_proxied and flow.is_untranslated
            if reply not in port.serving and (port.serving or deletes_all) and not is_of_proxy:
                yield Stale(flow, str(port.service), f"{reply} does not serve {port.label}")
        elif not deletes_all:
            continue
        elif sent_to in removed:
            yield Stale(flow, "", "its Service was deleted")
        elif flow.reply_src != flow.orig_dst and any(
            flow.orig_dst in network for network in service_networks if network.version == flow.orig_dst.version
        ):
            yield Stale(flow, "", f"no Service has {flow.orig_dst}")


def answering(nodes: Mapping[Family, ResolvedNode], addresses: Iterable[Address]) -> set[Address]:
    """Return the addresses on which node ports answer.

    Args:
        nodes: The node's decisions, for each family that is served.
        addresses: The current addresses of the node.
    """
    return {
        address
        for address in addresses
        if (node := nodes.get(family_of(address))) is not None and node.answers_node_ports(address)
    }


def frontends_of(port: ResolvedPort) -> Iterator[FlowFrontend]:
    """Yield all frontends of a port."""
    for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        if address is not None:
            yield FlowFrontend(address, port.port)
    if port.node_port:
        yield FlowFrontend(None, port.node_port)


def _udp_ports(services: Iterable[ResolvedService]) -> Iterator[ResolvedPort]:
    for service in services:
        for port in service.ports:
            if port.protocol is Protocol.UDP:
                yield port
