"""Validates a configuration as kube-proxy 1.36 does before it reads the node: faults and warnings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import Fault
from rulegen.kube.node_names import read_node_name
from rulegen.kube.proxyconfig.durations import parse_duration
from rulegen.kube.proxyconfig.feature_gates import gate_faults
from rulegen.kube.proxyconfig.logging_options import logging_faults
from rulegen.kube.proxyconfig.modes import DEFAULT_MODE, MODES, sections_of
from rulegen.net import family_of, parse_address, parse_network
from rulegen.text import number, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.kube.proxyconfig.configuration import KubeProxyConfiguration
    from rulegen.kube.proxyconfig.modes import ModeSections

DETECT_LOCAL_MODES: Final = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
SCHEDULERS: Final = (
    *("rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc"),
    *("lblcr", "dh", "sh", "mh", "sed", "nq", "twos"),
)
"""The schedulers of Linux (net/netfilter/ipvs)."""
PRIMARY: Final = "primary"
_HIDDEN_METRICS: Final = "1.35"
"""The only valid value of showHiddenMetricsForVersion: the minor version before 1.36."""
LONGEST_TIMEOUT_S: Final = 2**31 // 1000
"""Maximum of an IPVS timeout in seconds: INT_MAX / HZ."""
_PORT: Final = re.compile(r"[0-9]{1,5}\Z")
_HOST_PORT: Final = re.compile(r"(\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[^\[\]:]*)\Z")
_INT32: Final = range(-(2**31), 2**31)

# At most IFNAMSIZ - 1 characters. Only characters that dev_valid_name() of the kernel accepts and iptables does not
# interpret.
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}\Z")


def refusals(config: KubeProxyConfiguration, modes: Mapping[str, ModeSections] = MODES) -> Iterator[Fault]:
    """Yield a fault for each value that is invalid by itself, regardless of other fields."""
    yield from gate_faults(config.feature_gates)
    yield from logging_faults(config.logging, config.feature_gates)
    yield from _names(config, modes)
    yield from _numbers(config, sections_of(config.mode, modes))
    yield from _durations(config, sections_of(config.mode, modes))
    yield from _listeners(config)
    yield from _networks(config)
    shown = config.show_hidden_metrics_for_version
    if shown not in ("", _HIDDEN_METRICS):
        yield Fault("showHiddenMetricsForVersion", f"{quoted(shown)} is not {_HIDDEN_METRICS}, the version before")


def joint_refusals(config: KubeProxyConfiguration, modes: Mapping[str, ModeSections] = MODES) -> Iterator[Fault]:
    """Yield a fault for each value that is invalid together with others; values that the mode ignores are skipped."""
    mode = config.detect_local_mode or DETECT_LOCAL_MODES[0]
    named = (
        ("BridgeInterface", "bridgeInterface", config.detect_local.bridge_interface),
        ("InterfaceNamePrefix", "interfaceNamePrefix", config.detect_local.interface_name_prefix),
    )
    for needed, field, name in named:
        if mode == needed and not name:
            yield Fault(f"detectLocal.{field}", f"must not be empty where detectLocalMode is {needed}")
    if mode == "ClusterCIDR":
        yield from _cluster_cidr_faults(config.cluster_cidr)
    sections = sections_of(config.mode, modes)
    periods, section = config.periods(sections.periods), sections.periods
    least, most = _period(periods.min_sync_period), _period(periods.sync_period) or 30.0
    if least is None:
        least = sections.min_sync_s
    if least > most > 0:
        yield Fault(f"{section}.minSyncPeriod", f"{least:g} s is more than {section}.syncPeriod, {most:g} s")
    if sections.has_virtual_servers:
        yield from _ipvs(config)


def cautions(config: KubeProxyConfiguration, modes: Mapping[str, ModeSections] = MODES) -> Iterator[str]:
    """Yield warnings about a valid configuration."""
    sections = sections_of(config.mode, modes)
    if not config.node_port_addresses and not sections.has_primary_node_ports:
        yield (
            "nodePortAddresses is unset: node ports are open on all local addresses;"
            " 'primary' opens them only on the node's own addresses"
        )
    if sections.caution:
        yield sections.caution
    if sections.has_virtual_servers:
        return
    for index, cidr in enumerate(config.ipvs.exclude_cidrs):
        for fault in _cidr_fault(f"ipvs.excludeCIDRs[{index}]", cidr):
            yield f"{fault}; it has no effect in {config.mode or DEFAULT_MODE} mode"


def host_and_port(text: str) -> tuple[str, int]:
    """Return address and port of `IP:port`, such as `10.0.0.1:80` or `[::1]:80`; the address as text.

    Raises:
        ValueError: The text has another form; the message names the expected one.
    """
    parts = _HOST_PORT.match(text)
    if parts is None:
        raise ValueError(f"{quoted(text)} is not an address and port such as 127.0.0.1:10249 or [::1]:10249")
    host, port = parts["ipv6"] or parts["host"] or "", parts["port"]
    parse_address(host)
    if not _PORT.match(port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{quoted(port)} is not a port (1 to 65535)")
    return host, int(port)


def _names(config: KubeProxyConfiguration, modes: Mapping[str, ModeSections]) -> Iterator[Fault]:
    if config.hostname_override:
        try:
            read_node_name(config.hostname_override)
        except ValueError as error:
            yield Fault("hostnameOverride", str(error))
    if config.mode not in ("", *modes):
        yield Fault("mode", f"{quoted(config.mode)} is not one of {', '.join(modes)}")
    if config.detect_local_mode not in ("", *DETECT_LOCAL_MODES):
        listed = ", ".join(DETECT_LOCAL_MODES)
        yield Fault("detectLocalMode", f"{quoted(config.detect_local_mode)} is not one of {listed}")
    for path, name in (
        ("detectLocal.bridgeInterface", config.detect_local.bridge_interface),
        ("detectLocal.interfaceNamePrefix", config.detect_local.interface_name_prefix),
    ):
        if name and not _INTERFACE.match(name):
            yield Fault(path, f"{quoted(name)} is not the name of an interface (at most 15 letters, digits, _.:@-)")


def _numbers(config: KubeProxyConfiguration, sections: ModeSections) -> Iterator[Fault]:
    for path, bit in (
        ("iptables.masqueradeBit", config.iptables.masquerade_bit),
        (
            "nftables.masqueradeBit",
            config.nftables.masquerade_bit if config.marks(sections.marks) is config.nftables else None,
        ),
    ):
        if bit is not None and not 0 <= bit <= 31:
            yield Fault(path, f"{number(bit)} is not a bit (0 to 31)")
    for path, value, allowed, words in (
        ("oomScoreAdj", config.oom_score_adj, range(-1000, 1001), "from -1000 to 1000"),
        ("conntrack.maxPerCore", config.conntrack.max_per_core, _INT32[2**31 :], "from 0 to 2147483647"),
        ("conntrack.min", config.conntrack.min, _INT32[2**31 :], "from 0 to 2147483647"),
        ("clientConnection.burst", config.client_connection.burst, _INT32[2**31 :], "from 0 to 2147483647"),
    ):
        if value is not None and value not in allowed:
            yield Fault(path, f"{number(value)} is not {words}")


def _durations(config: KubeProxyConfiguration, sections: ModeSections) -> Iterator[Fault]:
    """Yield faults of durations: invalid ones in all sections, and negative ones that are invalid in this mode."""
    is_ipvs = sections.has_virtual_servers
    conntrack = config.conntrack
    for path, text, may_be_negative in (
        ("configSyncPeriod", config.config_sync_period, False),
        ("iptables.syncPeriod", config.iptables.sync_period, is_ipvs),
        ("iptables.minSyncPeriod", config.iptables.min_sync_period, is_ipvs),
        ("ipvs.syncPeriod", config.ipvs.sync_period, True),
        ("ipvs.minSyncPeriod", config.ipvs.min_sync_period, True),
        ("ipvs.tcpTimeout", config.ipvs.tcp_timeout, True),
        ("ipvs.tcpFinTimeout", config.ipvs.tcp_fin_timeout, True),
        ("ipvs.udpTimeout", config.ipvs.udp_timeout, True),
        ("nftables.syncPeriod", config.nftables.sync_period, True),
        ("nftables.minSyncPeriod", config.nftables.min_sync_period, True),
        ("conntrack.tcpEstablishedTimeout", conntrack.tcp_established_timeout or "", False),
        ("conntrack.tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout or "", False),
        ("conntrack.udpTimeout", conntrack.udp_timeout, False),
        ("conntrack.udpStreamTimeout", conntrack.udp_stream_timeout, False),
    ):
        yield from _duration_fault(path, text, may_be_negative=may_be_negative)


def _duration_fault(path: str, text: str, *, may_be_negative: bool) -> Iterator[Fault]:
    if not text:
        return
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        yield Fault(path, str(error))
    else:
        if seconds < 0 and not may_be_negative:
            yield Fault(path, f"{quoted(text)} is less than 0")


def _ipvs(config: KubeProxyConfiguration) -> Iterator[Fault]:
    """Yield faults of values that only ipvs mode reads."""
    for path, text in (
        ("ipvs.syncPeriod", config.ipvs.sync_period),
        ("ipvs.minSyncPeriod", config.ipvs.min_sync_period),
        ("ipvs.tcpTimeout", config.ipvs.tcp_timeout),
        ("ipvs.tcpFinTimeout", config.ipvs.tcp_fin_timeout),
        ("ipvs.udpTimeout", config.ipvs.udp_timeout),
    ):
        seconds = _period(text) or 0.0
        if seconds < 0:
            yield Fault(path, f"{quoted(text)} is less than 0")
        elif path.endswith("Timeout") and seconds > LONGEST_TIMEOUT_S:
            yield Fault(path, f"{quoted(text)} is more than {LONGEST_TIMEOUT_S} s, the kernel's limit")
    for index, cidr in enumerate(config.ipvs.exclude_cidrs):
        yield from _cidr_fault(f"ipvs.excludeCIDRs[{index}]", cidr)


def _listeners(config: KubeProxyConfiguration) -> Iterator[Fault]:
    if config.bind_address:
        try:
            parse_address(config.bind_address)
        except ValueError as error:
            yield Fault("bindAddress", str(error))
    for path, text in (
        ("healthzBindAddress", config.healthz_bind_address),
        ("metricsBindAddress", config.metrics_bind_address),
    ):
        if text:
            try:
                host_and_port(text)
            except ValueError as error:
                yield Fault(path, str(error))


def _networks(config: KubeProxyConfiguration) -> Iterator[Fault]:
    for index, cidr in enumerate(config.node_port_addresses):
        path = f"nodePortAddresses[{index}]"
        if cidr != PRIMARY:
            yield from _cidr_fault(path, cidr)
        elif len(config.node_port_addresses) > 1:
            yield Fault(path, f"'{PRIMARY}' cannot be combined with other entries")


def _cluster_cidr_faults(text: str) -> Iterator[Fault]:
    """Yield the faults of clusterCIDR: it must contain one prefix, or one of each family."""
    cidrs: Sequence[str] = text.split(",") if text else ()
    faults = [fault for cidr in cidrs for fault in _cidr_fault("clusterCIDR", cidr)]
    yield from faults
    if len(cidrs) > 2:
        yield Fault("clusterCIDR", f"{len(cidrs)} prefixes; expected one, or one of each family")
    elif len(cidrs) == 2 and not faults and len({family_of(parse_network(cidr)) for cidr in cidrs}) == 1:
        yield Fault("clusterCIDR", f"{quoted(text)} has two prefixes of one family; expected one of each")


def _cidr_fault(path: str, cidr: str) -> Iterator[Fault]:
    try:
        parse_network(cidr)
    except ValueError as error:
        yield Fault(path, str(error))


def _period(text: str) -> float | None:
    """Return a duration in seconds; None for an empty or invalid text."""
    try:
        return parse_duration(text)
    except ValueError:
        return None
