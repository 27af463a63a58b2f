"""The node's options, from a KubeProxyConfiguration and the command line."""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from rulegen.kube.proxyconfig.durations import seconds_of
from rulegen.kube.proxyconfig.modes import DEFAULT_MODE, MODES, sections_of
from rulegen.model.host.conntrack_limits import ConntrackLimits
from rulegen.model.services.ir import NftExtra, Semantics
from rulegen.model.services.limits import ServiceLimits
from rulegen.model.services.modes import NEEDS, ModeNeeds
from rulegen.net import Address, Family, Network, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.kube.proxyconfig.configuration import KubeProxyConfiguration
    from rulegen.kube.proxyconfig.modes import ModeSections


LONGEST_WAIT_S = 31_536_000.0
"""Maximum of a sync period, in seconds: a year. Longer periods would exceed the range of timers."""


class DetectLocalMode(enum.StrEnum):
    """How to recognise traffic from this node's Pods."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one node.

    Attributes:
        mode: The mode of Services: the name of a backend.
        needs_of_mode: The properties of a mode that is not in `NEEDS`; None for a mode in `NEEDS`.
        node_name: The node's name; empty for the host's name.
        bind_address: The node's address (bindAddress); None to use the addresses of the Node object.
        masquerade_bit: The bit of the packet mark that requests masquerading (0–31).
        node_port_primary: Whether node ports answer only on the node's primary addresses; in a family without one, on
            all addresses.
        node_port_networks: Node ports answer on the node's addresses in these networks; empty for all addresses.
        external_ips: Whether spec.externalIPs is served (feature gate AllowServiceExternalIPs).
        min_sync_s: Minimum time between two writes, in seconds.
        sync_s: Maximum time between two reads of all rules, in seconds.
        healthz_address: Address of /healthz, such as `0.0.0.0:10256`; empty for none.
        bind_hard_fail: Whether it is an error if `healthz_address` or `metrics_address` is in use. Otherwise, binding
            is retried.
        metrics_address: Address of /metrics and the pages of the agent.
        ipvs_scheduler: The default IPVS scheduler.
        ipvs_excluded: Prefixes of virtual servers that belong to other programs (`ipvs.excludeCIDRs`).
        ipvs_strict_arp: Whether the node answers ARP only for addresses of the receiving interface, so never for
            addresses of kube-ipvs0.
        ipvs_timeouts: IPVS timeouts of TCP, TCP after FIN, and UDP, in seconds; 0 leaves a timeout unchanged.
        ipvs_semantics: Behaviour where kube-proxy's ipvs mode differs from its other modes.
        conntrack: Limits and timeouts of conntrack.
        external_ip_semantics: Behaviour for external addresses that are not a Service's to use; see
            `rulegen.model.services.external_addresses` and `rulegen.model.services.conflicts`.
        oldest_claim_wins: Whether only the oldest of several Services gets the same address and port; otherwise all of
            them get it.
        limits: Limits of one Service.
        service_networks: The ranges of ClusterIPs, if no ServiceCIDR object shows them.
        nft_extras: The rules of nftables mode that kube-proxy's does not have.
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
    conntrack: ConntrackLimits = msgspec.field(default_factory=ConntrackLimits)
    limits: ServiceLimits = msgspec.field(default_factory=ServiceLimits)
    service_networks: tuple[Network, ...] = ()
    nft_extras: frozenset[NftExtra] = frozenset()

    @property
    def needs(self) -> ModeNeeds:
        """The properties of the mode."""
        return self.needs_of_mode or NEEDS.get(self.mode, ModeNeeds())

    @property
    def has_localhost_extra(self) -> bool:
        """Whether node ports answer on 127.0.0.1 in nftables mode, whatever `nodePortAddresses` says."""
        return self.needs.uses_nft and NftExtra.LOCALHOST_NODE_PORTS in self.nft_extras

    def opens_loopback(self, networks: Sequence[Network] | None) -> bool:
        """Whether node ports answer on IPv4 loopback addresses.

        Args:
            networks: The IPv4 networks that node ports are restricted to; None for all addresses.
        """
        if self.has_localhost_extra:
            return True
        if not (self.needs.opens_loopback and self.localhost_node_ports):
            return False
        return networks is None or any(network.overlaps(Family.IPV4.loopback) for network in networks)

    @classmethod
    def of(
        cls,
        config: KubeProxyConfiguration,
        modes: Mapping[str, ModeSections] = MODES,
        needs_of_mode: ModeNeeds | None = None,
    ) -> Options:
        """Return the options of a configuration, with defaults.

        Args:
            config: The configuration, validated by `read_config`.
            modes: The sections that each mode reads.
            needs_of_mode: The properties of a mode that is not in `NEEDS`.
        """
        mode = config.mode or DEFAULT_MODE
        sections = sections_of(mode, modes)
        marks, periods = config.marks(sections.marks), config.periods(sections.periods)
        primary = config.node_port_addresses == ("primary",) or (
            sections.has_primary_node_ports and not config.node_port_addresses
        )
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
    """Return the valid prefixes. `read_config` has rejected invalid ones, except in sections that the mode ignores."""
    networks = []
    for cidr in cidrs:
        with suppress(ValueError):
            networks.append(parse_network(cidr))
    return tuple(networks)


def _bind_address(text: str) -> Address | None:
    """Return the configured address; None for no address, 0.0.0.0 and ::."""
    if not text:
        return None
    address = parse_address(text)
    return None if address.is_unspecified else address
