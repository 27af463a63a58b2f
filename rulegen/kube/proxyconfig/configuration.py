"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1) as typed structs.

Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from rulegen.kube.objects.structs import Object

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"


class IptablesSection(Object, frozen=True):
    """iptables{}. An unset interval has kube-proxy's default."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    localhost_node_ports: bool | None = None
    sync_period: str = ""
    min_sync_period: str = ""


class IpvsSection(Object, frozen=True):
    """ipvs{}."""

    sync_period: str = ""
    min_sync_period: str = ""
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] = field(default=(), name="excludeCIDRs")
    strict_arp: bool = field(default=False, name="strictARP")
    tcp_timeout: str = ""
    tcp_fin_timeout: str = ""
    udp_timeout: str = ""


class NftablesSection(Object, frozen=True):
    """nftables{}."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    sync_period: str = ""
    min_sync_period: str = ""


class Conntrack(Object, frozen=True):
    """conntrack{}."""

    max_per_core: int | None = None
    min: int | None = None
    tcp_established_timeout: str | None = None
    tcp_close_wait_timeout: str | None = None
    tcp_be_liberal: bool = False
    udp_timeout: str = ""
    udp_stream_timeout: str = ""


class DetectLocal(Object, frozen=True):
    """detectLocal{}."""

    bridge_interface: str = ""
    interface_name_prefix: str = ""


class ClientConnection(Object, frozen=True):
    """clientConnection{}."""

    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    qps: float = 0
    burst: int = 0


class KubeProxyConfiguration(Object, frozen=True):
    """A complete configuration. Fields of kube-proxy that rulegen does not need are accepted and ignored."""

    api_version: str = API_VERSION
    kind: str = KIND
    feature_gates: dict[str, bool] = field(default_factory=dict)
    client_connection: ClientConnection = ClientConnection()
    logging: dict[str, Any] = field(default_factory=dict)
    hostname_override: str = ""
    bind_address: str = ""
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = ""
    iptables: IptablesSection = IptablesSection()
    ipvs: IpvsSection = IpvsSection()
    nftables: NftablesSection = NftablesSection()
    winkernel: dict[str, Any] | UnsetType = UNSET
    detect_local_mode: str = ""
    detect_local: DetectLocal = DetectLocal()
    cluster_cidr: str = field(default="", name="clusterCIDR")
    node_port_addresses: tuple[str, ...] = ()
    oom_score_adj: int | None = None
    conntrack: Conntrack = Conntrack()
    config_sync_period: str = ""
    port_range: str = ""
    windows_run_as_service: bool = False

    def marks(self, section: str) -> IptablesSection | NftablesSection:
        """Return the section with a mode's packet mark."""
        sections: dict[str, IptablesSection | NftablesSection] = {"iptables": self.iptables, "nftables": self.nftables}
        return sections[section]

    def periods(self, section: str) -> IptablesSection | IpvsSection | NftablesSection:
        """Return the section with a mode's sync periods."""
        sections: dict[str, IptablesSection | IpvsSection | NftablesSection] = {
            "iptables": self.iptables,
            "ipvs": self.ipvs,
            "nftables": self.nftables,
        }
        return sections[section]
