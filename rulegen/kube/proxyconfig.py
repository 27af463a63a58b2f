"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), read as it is.

Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType, field

from rulegen.errors import ConfigError, Fault
from rulegen.kube.node_names import read_node_name
from rulegen.kube.objects import Object
from rulegen.net import parse_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"

DETECT_LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
MODES = ("", "iptables", "ipvs", "nftables")

# IFNAMSIZ less the final NUL, of what the kernel's dev_valid_name() takes, less what iptables reads as its own.
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}\Z")
_SCHEDULER = re.compile(r"[a-z0-9][a-z0-9_-]{0,14}\Z")
"""Of at most 15 characters (IP_VS_SCHEDNAME_MAXLEN less the NUL)."""
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+\Z|0\Z")


class Iptables(Object, frozen=True):
    """iptables{}. An interval that is unset has kube-proxy's default."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    localhost_node_ports: bool | None = None
    sync_period: str = ""
    min_sync_period: str = ""


class Ipvs(Object, frozen=True):
    """ipvs{}."""

    sync_period: str = ""
    min_sync_period: str = ""
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] = field(default=(), name="excludeCIDRs")
    strict_arp: bool = field(default=False, name="strictARP")
    tcp_timeout: str = ""
    tcp_fin_timeout: str = ""
    udp_timeout: str = ""


class Nftables(Object, frozen=True):
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
    """A whole configuration; what kube-proxy has and rulegen needs not is accepted and left alone."""

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
    iptables: Iptables = Iptables()
    ipvs: Ipvs = Ipvs()
    nftables: Nftables = Nftables()
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


def read_config(document: object, source: str) -> tuple[KubeProxyConfiguration, tuple[str, ...]]:
    """Return the configuration that a parsed document holds, and the paths of the fields that nobody knows.

    Raises:
        ConfigError: It is none, or has faults; the message names all of them.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: expected a {KIND}, got {type(document).__name__}")
    told = (document.get("apiVersion"), document.get("kind"))
    if told != (API_VERSION, KIND):
        raise ConfigError(
            f"{source}: expected {API_VERSION} {KIND}, got {told[0] or 'nothing'} {told[1] or ''}".rstrip()
        )
    try:
        config = msgspec.convert(_without_nulls(document), KubeProxyConfiguration)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None
    faults = tuple(_faults(config))
    if faults:
        raise ConfigError("; ".join(f"{source}: {fault}" for fault in faults))
    return config, tuple(_unknown(document, KubeProxyConfiguration, ""))


def _without_nulls(value: Any) -> Any:
    """A null is an absent field."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _unknown(document: Mapping[Any, Any], struct: type[Object], path: str) -> Iterator[str]:
    fields = {f.encode_name: f.type for f in msgspec.structs.fields(struct)}
    for key, value in document.items():
        if key not in fields:
            yield f"{path}{key}"
        elif isinstance(value, dict) and isinstance(fields[key], type) and issubclass(fields[key], Object):
            yield from _unknown(value, fields[key], f"{path}{key}.")


def _faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    """Yield what kube-proxy's own validation would refuse, as far as it matters here."""
    if config.hostname_override:
        try:
            read_node_name(config.hostname_override)
        except ValueError as error:
            yield Fault("hostnameOverride", str(error))
    if config.mode not in MODES:
        yield Fault("mode", f"{config.mode!r} is not one of iptables, ipvs, nftables")
    for name, bit in (("iptables", config.iptables.masquerade_bit), ("nftables", config.nftables.masquerade_bit)):
        if bit is not None and not 0 <= bit <= 31:
            yield Fault(f"{name}.masqueradeBit", f"{bit} is not a bit (0–31)")
    if config.detect_local_mode not in ("", *DETECT_LOCAL_MODES):
        yield Fault("detectLocalMode", f"{config.detect_local_mode!r} is not one of {', '.join(DETECT_LOCAL_MODES)}")
    for path, name in (
        ("detectLocal.bridgeInterface", config.detect_local.bridge_interface),
        ("detectLocal.interfaceNamePrefix", config.detect_local.interface_name_prefix),
    ):
        if name and not _INTERFACE.match(name):
            yield Fault(path, f"{name!r} is not the name of an interface (at most 15 letters, digits, _.:@-)")
    if config.cluster_cidr:
        for cidr in config.cluster_cidr.split(","):
            yield from _cidr_fault("clusterCIDR", cidr)
    for index, cidr in enumerate(config.node_port_addresses):
        if cidr == "primary":
            if len(config.node_port_addresses) > 1:
                yield Fault(f"nodePortAddresses[{index}]", "'primary' stands alone or not at all")
        else:
            yield from _cidr_fault(f"nodePortAddresses[{index}]", cidr)
    if config.ipvs.scheduler and not _SCHEDULER.match(config.ipvs.scheduler):
        yield Fault("ipvs.scheduler", f"{config.ipvs.scheduler!r} is not the name of a scheduler such as rr")
    for index, cidr in enumerate(config.ipvs.exclude_cidrs):
        yield from _cidr_fault(f"ipvs.excludeCIDRs[{index}]", cidr)
    for path, number in (
        ("conntrack.maxPerCore", config.conntrack.max_per_core),
        ("conntrack.min", config.conntrack.min),
    ):
        if number is not None and number < 0:
            yield Fault(path, f"{number} is less than 0")
    for path, text in (
        ("iptables.syncPeriod", config.iptables.sync_period),
        ("iptables.minSyncPeriod", config.iptables.min_sync_period),
        ("ipvs.syncPeriod", config.ipvs.sync_period),
        ("ipvs.minSyncPeriod", config.ipvs.min_sync_period),
        ("ipvs.tcpTimeout", config.ipvs.tcp_timeout),
        ("ipvs.tcpFinTimeout", config.ipvs.tcp_fin_timeout),
        ("ipvs.udpTimeout", config.ipvs.udp_timeout),
        ("conntrack.tcpEstablishedTimeout", config.conntrack.tcp_established_timeout),
        ("conntrack.tcpCloseWaitTimeout", config.conntrack.tcp_close_wait_timeout),
        ("conntrack.udpTimeout", config.conntrack.udp_timeout),
        ("conntrack.udpStreamTimeout", config.conntrack.udp_stream_timeout),
    ):
        if text and not _DURATION.match(text):
            yield Fault(path, f"{text!r} is not a duration such as 30s or 1m30s")


def seconds_of(text: str, default: float) -> float:
    """Return a checked duration as Go writes it (`1m30s`), in seconds; the default for none.

    >>> seconds_of("1m30s", 5), seconds_of("", 5), seconds_of("250ms", 5)
    (90.0, 5, 0.25)
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    parts = re.findall(r"([0-9]*\.?[0-9]+)(h|ms|m|s|us|µs|ns)", text)
    return sum(float(number) * units[unit] for number, unit in parts) if text else default


def _cidr_fault(path: str, cidr: str) -> Iterator[Fault]:
    try:
        parse_network(cidr.strip())
    except ValueError as error:
        yield Fault(path, str(error))
