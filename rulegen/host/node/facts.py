"""Facts of this host, gathered live: interfaces over netlink, settings from /proc, versions from the tools."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rulegen.host.commands.runner import VERSION_S, MissingToolError, ToolTimeoutError, find
from rulegen.host.ipvs import servers
from rulegen.host.netfilter import nfacct
from rulegen.host.netfilter.variant import Variant, call
from rulegen.host.node import sysctl
from rulegen.host.node.gateways import gateways
from rulegen.host.node.interfaces import interfaces
from rulegen.host.node.listening_ports import root_ports
from rulegen.model.host.document import facts_from_document, knows_random_fully
from rulegen.model.host.facts import HostFacts
from rulegen.net import Family

if TYPE_CHECKING:
    from rulegen.host.commands.runner import Runner

__all__ = ["SYSCTLS", "facts_from_document", "gather", "hostname", "interfaces", "refreshed", "speaks_ipv6"]

SYSCTLS = (
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.vs.conn_reuse_mode",
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
)
"""The kernel parameters that matter for Services."""

_OF_PROXY = (("haproxy",), ("iptables-nft", "iptables-legacy", "iptables"))
"""The programs that the proxy of Services needs, one of each."""


def gather(run: Runner) -> HostFacts:
    """Return the facts of this host. It needs no privilege, except to find out whether the kernel has nfacct.

    Raises:
        HostError: The interfaces or the routes cannot be read.
    """
    return HostFacts(
        hostname=hostname(),
        interfaces=interfaces(),
        sysctls=MappingProxyType(_settings()),
        fixed_sysctls=sysctl.read_only(SYSCTLS),
        random_fully=_random_fully(run),
        has_proxy=all(any(map(find, names)) for names in _OF_PROXY),
        nfacct=nfacct.supported(),
        ipv6=speaks_ipv6(),
        kernel=os.uname().release,
        schedulers=servers.schedulers(),
        gateways=gateways(),
        root_ports=root_ports(),
    )


def _settings() -> dict[str, str]:
    """Return the kernel parameters of this network namespace; those of IPVS have initial values without its module."""
    values = sysctl.read_all(SYSCTLS)
    return values if any(name in values for name in servers.PARAMETERS) else {**servers.PARAMETERS, **values}


def hostname() -> str:
    """Return the host's name in lower case: the default name of the node."""
    return socket.gethostname().strip().lower()


def refreshed(facts: HostFacts) -> HostFacts:
    """Return the facts with current values of all that can change: addresses, gateways, ports, parameters, IPv6.

    Name, kernel and tools stay as they were, because the running agent depends on them.

    Raises:
        HostError: The interfaces or the routes cannot be read.
    """
    settings = MappingProxyType({**facts.sysctls, **_settings()})
    return replace(
        facts,
        interfaces=interfaces(),
        sysctls=settings,
        ipv6=speaks_ipv6(),
        gateways=gateways(),
        root_ports=root_ports(),
    )


def speaks_ipv6() -> bool:
    """Return whether IPv6 exists and is enabled in this network namespace."""
    return Path("/proc/thread-self/net/if_inet6").exists() and sysctl.read("net.ipv6.conf.all.disable_ipv6") != "1"


def _random_fully(run: Runner) -> bool:
    """Return whether iptables knows `--random-fully`; true if no iptables is installed, or none answers."""
    for variant in Variant:
        try:
            version = call(run, variant, Family.IPV4, "", ("--version",), timeout_s=VERSION_S).stdout
            known = knows_random_fully(version)
        except (MissingToolError, ToolTimeoutError):
            continue
        if known is not None:
            return known
    return True
