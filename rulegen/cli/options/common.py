"""Options that several commands have, and their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rulegen.apiserver.limits import DEFAULT_MEBIBYTES, MOST_MEBIBYTES, ApiTerms
from rulegen.cli.command_tables import command_tables
from rulegen.cli.options.nftables import AUTO, NFTABLES_OPTIONS, layout_required
from rulegen.host.netfilter.variant import Variant
from rulegen.kube.node_names import read_node_name
from rulegen.kube.proxyconfig.modes import MODES, sections_of
from rulegen.kube.proxyconfig.validation import DETECT_LOCAL_MODES
from rulegen.model.services.ir import Semantics
from rulegen.model.services.limits import ENDPOINTS, FRONTENDS
from rulegen.model.services.stale_flows import StaleUdpPolicy
from rulegen.net import Network, parse_network

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

NODE_PORTS = (30000, 32767)


class _NetworkType(click.ParamType[Network]):
    name = "CIDR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return parse_network(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _PortRangeType(click.ParamType[tuple[int, int]]):
    name = "FROM-TO"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, dash, last = value.partition("-")
        if not (dash and _is_number(first) and _is_number(last) and 1 <= int(first) <= int(last) <= 65535):
            self.fail(f"{value!r} is not a range of ports such as 30000-32767", param, ctx)
        return int(first), int(last)


def _is_number(text: str) -> bool:
    """Whether a text is a number of at most five digits; a port has only the digits 0 to 9."""
    return text.isascii() and text.isdigit() and len(text) <= 5


class _NodeNameType(click.ParamType[str]):
    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return read_node_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Mode(click.Choice[str]):
    """Name of a mode of the command."""

    def __init__(self) -> None:
        """Use rulegen's own modes, for help texts."""
        super().__init__(tuple(MODES))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the mode; modes of tables that a program has passed are accepted too."""
        modes = command_tables().tables.modes
        return str(value) if value in modes else super().convert(value, param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class CliOptions:
    """Values of the options, each checked; see the help texts for their meaning."""

    files: tuple[str, ...] = ()
    config: str | None = None
    host: str | None = None
    node: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    no_exec: bool = False
    api_limit: int = DEFAULT_MEBIBYTES
    mode: str | None = None
    nftables_layout: str = AUTO
    nftables_extras: tuple[str, ...] = ()
    variant: str = "auto"
    nfacct: str = "auto"
    strict: bool = False
    service_cidrs: tuple[Network, ...] = ()
    node_port_range: tuple[int, int] = NODE_PORTS
    cluster_cidr: str | None = None
    detect_local_mode: str | None = None
    bridge_interface: str | None = None
    interface_name_prefix: str | None = None
    masquerade_all: bool | None = None
    masquerade_bit: int | None = None
    node_port_addresses: str | None = None
    localhost_node_ports: bool | None = None
    bind_address: str | None = None
    health_address: str | None = None
    metrics_address: str | None = None
    ipvs_scheduler: str | None = None
    ipvs_exclude_cidrs: str | None = None
    ipvs_strict_arp: bool | None = None
    ipvs_tcp_timeout: str | None = None
    ipvs_tcpfin_timeout: str | None = None
    ipvs_udp_timeout: str | None = None
    ipvs_semantics: str = "kube-proxy"
    external_ip_semantics: str = "kube-proxy"
    ignore_external_ips: bool = False
    claims: str = "oldest"
    max_service_endpoints: int = ENDPOINTS
    max_service_frontends: int = FRONTENDS
    stale_udp: str = "all"

    @property
    def api_terms(self) -> ApiTerms:
        """Limits for answers of the API server and for the kubeconfig."""
        return ApiTerms(self.api_limit, exec_plugins=not self.no_exec)

    @property
    def forced_variant(self) -> Variant | None:
        """The given variant; None to detect it."""
        return None if self.variant == "auto" else Variant(self.variant)

    @property
    def fixed_layout(self) -> str:
        """The layout of nftables mode that the options require; see `layout_required`."""
        return layout_required(self.nftables_layout, self.nftables_extras)

    def over(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration document in which the given flags override the fields of a file."""
        merged = {**document}
        mode = document.get("mode") if self.mode is None else self.mode
        marks = sections_of(mode if isinstance(mode, str) else "", MODES).marks
        for section, name, value in (
            ("", "mode", self.mode),
            ("", "hostnameOverride", self.node),
            ("", "bindAddress", self.bind_address),
            ("", "clusterCIDR", self.cluster_cidr),
            ("", "healthzBindAddress", self.health_address),
            ("", "metricsBindAddress", self.metrics_address),
            ("", "detectLocalMode", self.detect_local_mode),
            ("", "nodePortAddresses", _listed(self.node_port_addresses)),
            ("detectLocal", "bridgeInterface", self.bridge_interface),
            ("detectLocal", "interfaceNamePrefix", self.interface_name_prefix),
            (marks, "masqueradeAll", self.masquerade_all),
            (marks, "masqueradeBit", self.masquerade_bit),
            ("iptables", "localhostNodePorts", self.localhost_node_ports),
            ("ipvs", "scheduler", self.ipvs_scheduler),
            ("ipvs", "excludeCIDRs", _listed(self.ipvs_exclude_cidrs)),
            ("ipvs", "strictARP", self.ipvs_strict_arp),
            ("ipvs", "tcpTimeout", self.ipvs_tcp_timeout),
            ("ipvs", "tcpFinTimeout", self.ipvs_tcpfin_timeout),
            ("ipvs", "udpTimeout", self.ipvs_udp_timeout),
        ):
            if value is None:
                continue
            if not section:
                merged[name] = value
            elif isinstance(there := merged.get(section) or {}, dict):  # otherwise it is rejected as a whole
                merged[section] = {**there, name: value}
        return merged


def _listed(text: str | None) -> list[str] | None:
    """Return the parts of a list separated by commas; nothing for an empty one."""
    return text.split(",") if text else None if text is None else []


_NODE_PORT_RANGE = click.option(
    "--node-port-range",
    type=_PortRangeType(),
    default="30000-32767",
    show_default=True,
    help="The cluster's node port range. A preview assigns missing node ports from it.",
)

_OBJECTS = (
    click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        metavar="PATH",
        help="Manifests: a file, a folder, a 'glob*', or - for standard input. Repeatable. Default: read from the"
        " API server.",
    ),
    click.option(
        "--kubeconfig",
        metavar="FILE",
        help="Kubeconfig for the API server.  [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount]",
    ),
    click.option("--context", metavar="NAME", help="Context of the kubeconfig to use."),
    click.option("--no-exec", is_flag=True, help="Reject a kubeconfig that runs a program to get credentials."),
    click.option(
        "--api-limit",
        type=click.IntRange(16, MOST_MEBIBYTES),
        default=DEFAULT_MEBIBYTES,
        show_default=True,
        metavar="MIB",
        help="Limit in MiB for the API server's lists, and for the memory that their objects need. More is an error.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Fail on an invalid object. With plan and apply, also exit with 3 if part of an Ingress is not served as"
        " specified; apply then writes nothing. Default: only report these problems.",
    ),
    click.option(
        "--service-cidr",
        "service_cidrs",
        type=_NetworkType(),
        multiple=True,
        help="Range for ClusterIPs. A preview assigns missing ones from it. Give it once per IP family.  [default: the"
        " ServiceCIDR objects, else 10.96.0.0/12 and fd00:10:96::/112]",
    ),
    _NODE_PORT_RANGE,
)

_CONFIG = click.option(
    "--config", metavar="FILE", help="KubeProxyConfiguration file, as for kube-proxy. Flags override its fields."
)

_LOCAL_TRAFFIC = (
    click.option("--cluster-cidr", metavar="CIDR[,CIDR]", help="The cluster's Pod networks."),
    click.option(
        "--detect-local-mode",
        type=click.Choice(DETECT_LOCAL_MODES),
        help="How to recognise traffic from this node's Pods.",
    ),
    click.option(
        "--pod-bridge-interface",
        "bridge_interface",
        metavar="NAME",
        help="Bridge of this node's Pods, for BridgeInterface.",
    ),
    click.option(
        "--pod-interface-name-prefix",
        "interface_name_prefix",
        metavar="PREFIX",
        help="Prefix of the Pods' interface names, for InterfaceNamePrefix.",
    ),
)

_NODE = (
    _CONFIG,
    click.option(
        "--node",
        "--hostname-override",
        type=_NodeNameType(),
        help="Name of this node's Node object.  [default: the host name]",
    ),
    click.option(
        "--host",
        metavar="FILE",
        help="YAML file with facts of the host, such as its interfaces. Default: read them from this host.",
    ),
    click.option("--mode", type=Mode(), help="How Services are implemented.  [default: iptables]"),
    *NFTABLES_OPTIONS,
    *_LOCAL_TRAFFIC,
    click.option("--masquerade-all/--no-masquerade-all", default=None, help="Masquerade all traffic to ClusterIPs."),
    click.option(
        "--iptables-masquerade-bit",
        "masquerade_bit",
        type=click.IntRange(0, 31),
        help="Bit of the packet mark that requests masquerading.  [default: 14]",
    ),
    click.option(
        "--nodeport-addresses",
        "node_port_addresses",
        metavar="CIDR[,CIDR]",
        help="Node addresses that accept connections to node ports: CIDRs, or 'primary'.",
    ),
    click.option(
        "--iptables-localhost-nodeports/--no-iptables-localhost-nodeports",
        "localhost_node_ports",
        default=None,
        help="Accept connections to node ports on 127.0.0.1.",
    ),
    click.option("--bind-address", metavar="IP", help="The node's own address, if the Node object has none."),
    click.option("--ipvs-scheduler", metavar="NAME", help="IPVS scheduler, such as rr, lc or sh.  [default: rr]"),
    click.option(
        "--ipvs-exclude-cidrs",
        metavar="CIDR[,CIDR]",
        help="Never delete IPVS virtual servers in these networks.",
    ),
    click.option(
        "--ipvs-strict-arp/--no-ipvs-strict-arp",
        default=None,
        help="Answer ARP requests only on the interface that has the address. MetalLB needs this.",
    ),
    click.option("--ipvs-tcp-timeout", metavar="DURATION", help="IPVS timeout for idle TCP connections."),
    click.option("--ipvs-tcpfin-timeout", metavar="DURATION", help="IPVS timeout for TCP connections after a FIN."),
    click.option("--ipvs-udp-timeout", metavar="DURATION", help="IPVS timeout for UDP."),
    click.option(
        "--ipvs-semantics",
        type=click.Choice([semantics.value for semantics in Semantics]),
        default="kube-proxy",
        show_default=True,
        help="Traffic policies in ipvs mode. kube-proxy: as kube-proxy's ipvs mode applies them; strict: as"
        " Kubernetes defines them.",
    ),
    click.option(
        "--external-ip-semantics",
        type=click.Choice([semantics.value for semantics in Semantics]),
        default="kube-proxy",
        show_default=True,
        help="External addresses of Services. kube-proxy: accept all, and warn about doubtful ones; strict: ignore"
        " those that belong to a node, a gateway, an API server or another Service.",
    ),
    click.option(
        "--ignore-external-ips",
        is_flag=True,
        help="Ignore spec.externalIPs of all Services. Load balancer addresses are still served.",
    ),
    click.option(
        "--claims",
        type=click.Choice(["oldest", "all"]),
        default="oldest",
        show_default=True,
        help="What happens if two Services have the same address and port. oldest: only the older one is served; all:"
        " rules for both are written, as by kube-proxy.",
    ),
    click.option(
        "--max-service-endpoints",
        type=click.IntRange(min=1),
        default=ENDPOINTS,
        show_default=True,
        metavar="N",
        help="Maximum number of endpoints of one Service in each IP family, all ports together. Excess endpoints are"
        " ignored.",
    ),
    click.option(
        "--max-service-frontends",
        type=click.IntRange(min=1),
        default=FRONTENDS,
        show_default=True,
        metavar="N",
        help="Maximum number of frontends (ports x addresses) of one Service in each IP family. Excess frontends are"
        " ignored.",
    ),
    click.option(
        "--stale-udp",
        type=click.Choice([policy.value for policy in StaleUdpPolicy]),
        default="all",
        show_default=True,
        help="Which stale UDP connections are deleted from conntrack. kube-proxy: only those of Services that have"
        " endpoints, as kube-proxy does.",
    ),
    click.option(
        "--nfacct",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Add nfacct counters to rules. auto: if the kernel supports it, or the dump has counters.",
    ),
)

_VARIANT = click.option(
    "--variant",
    type=click.Choice(["auto", "nft", "legacy"]),
    default="auto",
    show_default=True,
    help="iptables variant. auto: the one with chains of the kubelet or of a Service proxy, else nft.",
)

OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)

PLAN_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "sarif", "html"]),
    default="text",
    show_default=True,
    help="Output format. sarif: SARIF 2.1.0, for viewers of audit results; html: one page.",
)

LOCK_WAIT = click.option(
    "-w",
    "--lock-wait",
    "wait_s",
    type=click.IntRange(0, 3600),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="Time to wait for the xtables lock. 0: no limit.",
)

YES = click.option("-y", "--yes", is_flag=True, help="Write without asking. Default: ask on the terminal.")

ALLOW_UNKNOWN_NODE = click.option(
    "--allow-unknown-node",
    is_flag=True,
    help="Continue without a Node object for this node. Its zone, addresses and Pod CIDRs are then unknown.",
)


def input_options(function: F) -> F:
    """Add the options about what to compile, and for which node; the command receives them as `CliOptions` fields."""
    for option in reversed((*_OBJECTS, *_NODE)):
        function = option(function)
    return function


def local_traffic_options(function: F) -> F:
    """Add --config, and the options about recognising traffic from this node's Pods."""
    for option in reversed((_CONFIG, *_LOCAL_TRAFFIC)):
        function = option(function)
    return function


def variant_option(function: F) -> F:
    """Add --variant."""
    return _VARIANT(function)


def node_port_range_option(function: F) -> F:
    """Add --node-port-range."""
    return _NODE_PORT_RANGE(function)


def no_services_option(function: F) -> F:
    """Add --no-services."""
    return click.option(
        "--no-services",
        is_flag=True,
        help="Do not read or change the rules for Services, for example because kube-proxy writes them.",
    )(function)
