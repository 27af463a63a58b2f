"""Options of a compile: what a KubeProxyConfiguration and the command line decided, as values."""

from __future__ import annotations

import enum
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.kube.proxyconfig.durations import seconds_of
from rulegen.kube.proxyconfig.modes import DEFAULT_MODE, MODES, sections_of
from rulegen.model.host.conntrack_limits import ConntrackLimits
from rulegen.model.services.ir import Semantics
from rulegen.model.services.limits import ServiceLimits
from rulegen.model.services.modes import NEEDS, ModeNeeds
from rulegen.net import Address, Network, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.kube.proxyconfig.configuration import KubeProxyConfiguration
    from rulegen.kube.proxyconfig.modes import ModeSections


LONGEST_WAIT_S = 31_536_000.0
"""A year; a longer period makes no difference, and what waits for it could not count that far."""


class DetectLocalMode(enum.StrEnum):
    """How traffic of this node's pods is told from other traffic."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is wanted of the node as a whole.

    Attributes:
        mode: By which backend Services are served.
        needs_of_mode: What decisions depend on, of a mode that `NEEDS` does not have; None for one that it has.
        node_name: The node's name; empty for the host's name.
        bind_address: The node's address, where one was given; else the Node object tells.
        masquerade_bit: Which bit of the packet mark requests masquerading (0–31).
        node_port_primary: Node ports listen on the node's primary addresses only; on all in a family without one.
        node_port_networks: Node ports listen on the addresses in these; empty for all.
        external_ips: Whether spec.externalIPs is honoured (gate AllowServiceExternalIPs).
        min_sync_s: The least time between two writes, in seconds.
        sync_s: The most time between two looks at all rules.
        healthz_address: Where health is told, as `0.0.0.0:10256`; empty for nowhere.
        bind_hard_fail: Whether an address of these two that is taken is an error; else it is tried again.
        metrics_address: Where metrics and views are told.
        ipvs_scheduler: How IPVS spreads connections where a Service says nothing.
        ipvs_excluded: Prefixes with virtual servers that are not ours.
        ipvs_strict_arp: Whether the node answers ARP only for addresses of the interface that asks; kube-ipvs0 is none.
        ipvs_timeouts: How long IPVS remembers connections: TCP, TCP after a FIN, UDP, in seconds; 0 leaves one alone.
        ipvs_semantics: What ipvs mode makes of a Service where kube-proxy's differs from its other modes.
        conntrack: How wide and patient connection tracking is to be.
        external_ip_semantics: What is made of external addresses that are not a Service's to take; see
            `rulegen.model.services.conflicts`.
        oldest_claim_wins: Of two Services that claim one address and port, only the older gets it; else both do.
        limits: How much of one Service is served.
    """

    mode: str = DEFAULT_MODE
    needs_of_mode: ModeNeeds | None = None
    node_name: str = ""
    bind_address: Address | None = None
    masquerade_bit: int = 14
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    conntrack_be_liberal: bool = False
    detect_local_mode: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    cluster_cidrs: tuple[Network, ...] = ()
    node_port_primary: bool = False
    node_port_networks: tuple[Network, ...] = ()
    external_ips: bool = True
    external_ip_semantics: Semantics = Semantics.KUBE_PROXY
    oldest_claim_wins: bool = True
    ipvs_scheduler: str = "rr"
    ipvs_excluded: tuple[Network, ...] = ()
    ipvs_strict_arp: bool = False
    ipvs_timeouts: tuple[int, int, int] = (0, 0, 0)
    ipvs_semantics: Semantics = Semantics.KUBE_PROXY
    min_sync_s: float = 1.0
    sync_s: float = 30.0
    healthz_address: str = "0.0.0.0:10256"
    metrics_address: str = "127.0.0.1:10249"
    bind_hard_fail: bool = False
    conntrack: ConntrackLimits = field(default_factory=ConntrackLimits)
    limits: ServiceLimits = field(default_factory=ServiceLimits)

    @property
    def needs(self) -> ModeNeeds:
        """What decisions depend on, of the mode."""
        return self.needs_of_mode or NEEDS.get(self.mode, ModeNeeds())

    @classmethod
    def of(
        cls,
        config: KubeProxyConfiguration,
        modes: Mapping[str, ModeSections] = MODES,
        needs_of_mode: ModeNeeds | None = None,
    ) -> Options:
        """Return the options that a configuration (already checked by `read_config`) requests, defaults filled in.

        Args:
            config: The configuration.
            modes: Which sections each mode reads.
            needs_of_mode: What decisions depend on, of a mode that `NEEDS` does not have.
        """
        mode = config.mode or DEFAULT_MODE
        sections = sections_of(mode, modes)
        marks, periods = config.marks(sections.marks), config.periods(sections.periods)
        primary = config.node_port_addresses == ("primary",)
        localhost = config.iptables.localhost_node_ports
        return cls(
            mode=mode,
            needs_of_mode=needs_of_mode,
            node_name=config.hostname_override.strip().lower(),
            bind_address=_bind_address(config.bind_address),
            masquerade_bit=14 if marks.masquerade_bit is None else marks.masquerade_bit,
            masquerade_all=marks.masquerade_all,
            localhost_node_ports=True if localhost is None else localhost,
            conntrack_be_liberal=config.conntrack.tcp_be_liberal,
            detect_local_mode=DetectLocalMode(config.detect_local_mode or "ClusterCIDR"),
            bridge_interface=config.detect_local.bridge_interface,
            interface_name_prefix=config.detect_local.interface_name_prefix,
            cluster_cidrs=_networks(config.cluster_cidr.split(",")),
            node_port_primary=primary,
            node_port_networks=() if primary else tuple(parse_network(c) for c in config.node_port_addresses),
            min_sync_s=min(seconds_of(periods.min_sync_period, sections.min_sync_s), LONGEST_WAIT_S),
            sync_s=min(seconds_of(periods.sync_period, 30.0) or 30.0, LONGEST_WAIT_S),
            ipvs_scheduler=config.ipvs.scheduler or "rr",
            ipvs_excluded=_networks(config.ipvs.exclude_cidrs),
            ipvs_strict_arp=config.ipvs.strict_arp,
            ipvs_timeouts=(
                int(seconds_of(config.ipvs.tcp_timeout, 0.0)),
                int(seconds_of(config.ipvs.tcp_fin_timeout, 0.0)),
                int(seconds_of(config.ipvs.udp_timeout, 0.0)),
            ),
            healthz_address=config.healthz_bind_address or "0.0.0.0:10256",
            metrics_address=config.metrics_bind_address or "127.0.0.1:10249",
            bind_hard_fail=config.bind_address_hard_fail,
            conntrack=ConntrackLimits.of(config.conntrack),
            external_ips=config.feature_gates.get("AllowServiceExternalIPs", True),
        )


def _networks(cidrs: Iterable[str]) -> tuple[Network, ...]:
    """Return the prefixes that are some: others were rejected before, unless nobody reads them in this mode."""
    networks = []
    for cidr in cidrs:
        with suppress(ValueError):
            networks.append(parse_network(cidr))
    return tuple(networks)


def _bind_address(text: str) -> Address | None:
    """Return the address that was requested; 0.0.0.0 and :: ask for none."""
    if not text:
        return None
    address = parse_address(text)
    return None if address.is_unspecified else address
