"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), read as it is.

Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType, field

from rulegen.errors import ConfigError
from rulegen.kube.objects.structs import Object
from rulegen.kube.proxyconfig.validation import joint_refusals, refusals
from rulegen.text import described, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"


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


def read_config(
    document: object, source: str, *, is_whole: bool = True
) -> tuple[KubeProxyConfiguration, tuple[str, ...]]:
    """Return the configuration that a parsed document holds, and the paths of the fields that nobody knows.

    Args:
        document: Mappings, lists and scalars.
        source: Its file, for messages.
        is_whole: Whether nothing else is put over it: then fields must fit together, too.

    Raises:
        ConfigError: It is none, or kube-proxy would refuse it; the message names all faults.
    """
    if not isinstance(document, dict):
        raise ConfigError(
            f"{source}: expected a {KIND}, not {described(document)}", hint=f"begin it with apiVersion: {API_VERSION}"
        )
    written = tuple(document.get(key, "") for key in ("apiVersion", "kind"))
    if written != (API_VERSION, KIND):
        instead = " ".join(map(_shown, written)).strip() or "nothing"
        raise ConfigError(
            f"{source}: expected {API_VERSION} {KIND}, not {instead}",
            hint="a ConfigMap holds the configuration as a text: fetch that alone, with `kubectl -n kube-system get"
            " configmap kube-proxy -o jsonpath='{.data.config\\.conf}'`"
            if written[1:] == ("ConfigMap",)
            else f"begin it with apiVersion: {API_VERSION} and kind: {KIND}",
        )
    try:
        config = msgspec.convert(_without_nulls(document), KubeProxyConfiguration)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{source}: {_told(error)}") from None
    faults = [*refusals(config), *(joint_refusals(config) if is_whole else ())]
    if faults:
        raise ConfigError("; ".join(f"{source}: {fault}" for fault in faults))
    return config, tuple(_unknown(document, KubeProxyConfiguration, ""))


def _shown(value: object) -> str:
    return printable(value) if isinstance(value, str) else described(value)


def _told(error: Exception) -> str:
    """Return what msgspec says with the path first, as all other faults have it."""
    message = printable(str(error).replace("`", ""), 300)
    words, at, path = message.rpartition(" - at $.")
    return f"{path}: {words[:1].lower()}{words[1:]}" if at else message


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
