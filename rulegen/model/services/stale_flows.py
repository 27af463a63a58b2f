"""Connections that the kernel remembers, and which of them keep a client on an endpoint that is none.

UDP knows no end of a connection: a client that continues sending from one port stays with the endpoint that its first
packet met, or with none, as long as conntrack remembers that. So such entries must go when endpoints do. TCP ends
by itself, and an endpoint that terminates gracefully may finish what it has; TCP and SCTP are never touched.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rulegen.net import Address, Family, Network, Protocol, family_of, join_host_port

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.model.services.ir import ResolvedNode, ResolvedPort, ResolvedService


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One entry of the connection table: the addresses of a packet as sent, and of its reply as it comes."""

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

    def __str__(self) -> str:
        client = join_host_port(self.orig_src, self.orig_sport)
        frontend = join_host_port(self.orig_dst, self.orig_dport)
        return f"{self.protocol.lower()} {client} to {frontend} at {join_host_port(self.reply_src, self.reply_sport)}"


class FlowFrontend(NamedTuple):
    """Where flows are sent to; no address is a node port, on each address that node ports answer on."""

    address: Address | None
    port: int


class StaleUdpPolicy(enum.StrEnum):
    """Which flows are forgotten when they have become stale."""

    ALL = "all"
    """All that keep a client on what does not serve it."""
    KUBE_PROXY = "kube-proxy"
    """Only those of Services that have endpoints, as kube-proxy has it."""
    NONE = "none"


class Stale(NamedTuple):
    """A flow to forget, whose it was (empty for nobody that is served), and why."""

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
    forgetting: StaleUdpPolicy = StaleUdpPolicy.ALL,
) -> Iterator[Stale]:
    """Yield the UDP flows that must be forgotten, in the order given.

    A flow to a frontend of a Service stays only while its reply comes from an endpoint that serves the port, whatever
    policies say now. So the flows of a Service without endpoints go, which kube-proxy forgets to do
    (kubernetes/kubernetes#139628), and those of a deleted Service (#141371).

    Args:
        flows: What the kernel remembers.
        services: Decided for this node.
        node_addresses: Addresses of this node that node ports answer on, of `answering`. What a program of the node
            serves on its other addresses is no flow of a node port, whatever its number.
        gone: Frontends that this node served until now, and that no Service has any more.
        service_networks: Where ClusterIPs come from, if known: a flow that was sent on from an address in there that no
            Service has is one of a Service deleted long ago.
        forgetting: Which of them.
    """
    if forgetting is StaleUdpPolicy.NONE:
        return
    forgets_all = forgetting is StaleUdpPolicy.ALL
    # A node port has no address, so both families of a Service share its frontend: keep them apart.
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
            if reply not in port.serving and (port.serving or forgets_all):
                yield Stale(flow, str(port.service), f"{reply} does not serve {port.label}")
        elif not forgets_all:
            continue
        elif sent_to in removed:
            yield Stale(flow, "", "its Service was deleted")
        elif flow.reply_src != flow.orig_dst and any(
            flow.orig_dst in network for network in service_networks if network.version == flow.orig_dst.version
        ):
            yield Stale(flow, "", f"no Service has {flow.orig_dst}")


def answering(nodes: Mapping[Family, ResolvedNode], addresses: Iterable[Address]) -> set[Address]:
    """Return those of a node's addresses that node ports answer on.

    Args:
        nodes: The node's decisions, for each family that is served.
        addresses: All that the node has now.
    """
    return {
        address
        for address in addresses
        if (node := nodes.get(family_of(address))) is not None and node.answers_node_ports(address)
    }


def frontends_of(port: ResolvedPort) -> Iterator[FlowFrontend]:
    """Yield all that a port is reached by."""
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
