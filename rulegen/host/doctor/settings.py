"""Kernel parameters: required values, conflicting values, and limits that are nearly reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.namespace import in_throwaway_namespace
from rulegen.host.commands.runner import Command, MissingToolError
from rulegen.host.doctor.findings import Finding, Level
from rulegen.host.ipvs import addresses as links
from rulegen.host.ipvs import servers
from rulegen.host.netfilter.variant import Variant
from rulegen.languages.addresses.script import AddressCommand as LinkCommand
from rulegen.languages.addresses.script import AddressVerb
from rulegen.net import Family, family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.doctor.patient import HostProbe

_FULL: Final = 0.95
_NEARLY_FULL: Final = 0.80
_A_DEVICE: Final = LinkCommand(AddressVerb.CREATE, "kube-ipvs0")


def check_settings(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about the kernel parameters that matter for Services."""
    yield from _forwarding(patient)
    yield from _bridges(patient)
    yield from _odd_settings(patient)
    yield from _connections(patient)


def check_modules(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about the kernel's support for ipvs mode."""
    topic = "modules"
    yield _ip_vs(patient)
    known = servers.schedulers()
    if known:
        yield Finding(Level.INFO, topic, f"schedulers of IPVS: {', '.join(sorted(known))}")
    try:
        ended = patient.run(Command(("ipset", "list", "-n")))
    except MissingToolError:
        pass  # reported by the checks of tools
    else:
        if ended.code == 0:
            yield Finding(Level.OK, topic, "ip_set is available, for the IPVS mode")
        else:
            yield Finding(Level.INFO, topic, f"ipsets, which the IPVS mode needs, cannot be used: {ended.complaint}")
    try:
        in_throwaway_namespace(lambda: links.write([_A_DEVICE]))
    except HostError as error:
        yield Finding(
            Level.INFO, topic, f"dummy devices, which the IPVS mode needs, cannot be created: {error.message}"
        )
    else:
        yield Finding(Level.OK, topic, "dummy devices can be created, for the IPVS mode")


def _ip_vs(patient: HostProbe) -> Finding:
    if Path("/proc/thread-self/net/ip_vs").exists():
        return Finding(Level.OK, "modules", "ip_vs is available, for the IPVS mode")
    try:
        loadable = patient.run(Command(("modprobe", "--dry-run", "--quiet", "ip_vs"))).code == 0
    except MissingToolError:
        return Finding(Level.INFO, "modules", "without modprobe, rulegen cannot find out whether ip_vs could be loaded")
    words = "can be loaded" if loadable else "is missing: the IPVS mode cannot work on this kernel"
    return Finding(Level.INFO, "modules", f"ip_vs {words}")


def _forwarding(patient: HostProbe) -> Iterator[Finding]:
    forward = patient.sysctls.get("net.ipv4.ip_forward")
    if forward == "0":
        yield Finding(
            Level.FAIL,
            "settings",
            "net.ipv4.ip_forward = 0: packets for endpoints on other nodes and in Pods are dropped",
            "set it to 1",
        )
    elif forward is not None:
        yield Finding(Level.OK, "settings", f"net.ipv4.ip_forward = {forward}")
    if patient.sysctls.get("net.ipv6.conf.all.disable_ipv6") == "1":
        yield Finding(Level.INFO, "settings", "IPv6 is turned off")
        return
    forward = patient.sysctls.get("net.ipv6.conf.all.forwarding")
    if forward == "0":
        level = Level.WARN if _has_global_ipv6(patient) else Level.INFO
        hint = "set it to 1, if Services here have IPv6 addresses" if level is Level.WARN else ""
        yield Finding(level, "settings", "net.ipv6.conf.all.forwarding = 0: IPv6 is not forwarded to Pods", hint)
    elif forward is not None:
        yield Finding(Level.OK, "settings", f"net.ipv6.conf.all.forwarding = {forward}")


def _has_global_ipv6(patient: HostProbe) -> bool:
    addresses = [address for interface in patient.interfaces for address, _ in interface.addresses]
    return any(
        family_of(address) is Family.IPV6 and not address.is_link_local and not address.is_loopback
        for address in addresses
    )


def _bridges(patient: HostProbe) -> Iterator[Finding]:
    name = "net.bridge.bridge-nf-call-iptables"
    match patient.sysctls.get(name):
        case None:
            yield Finding(
                Level.INFO, "settings", f"no {name}: br_netfilter is not loaded; only Pods on a bridge need it"
            )
        case "0":
            yield Finding(
                Level.WARN,
                "settings",
                f"{name} = 0: between Pods on one bridge, replies from a Service bypass NAT and are lost",
                "set it to 1, if Pods here are on a bridge",
            )
        case value:
            yield Finding(Level.OK, "settings", f"{name} = {value}")


def _odd_settings(patient: HostProbe) -> Iterator[Finding]:
    if patient.sysctls.get("net.ipv4.conf.all.rp_filter") == "1":
        yield Finding(
            Level.WARN,
            "settings",
            "net.ipv4.conf.all.rp_filter = 1 (strict): packets whose replies leave by another interface are dropped",
            "set it to 2 (loose) or 0, if node ports do not answer some clients",
        )
    if patient.sysctls.get("net.ipv4.conf.all.route_localnet") == "1":
        yield _loopback(patient)
    if patient.sysctls.get("net.netfilter.nf_conntrack_tcp_be_liberal", "0") != "0":
        yield Finding(
            Level.INFO,
            "settings",
            "net.netfilter.nf_conntrack_tcp_be_liberal is on: the rule that drops INVALID packets is omitted",
        )


def _loopback(patient: HostProbe) -> Finding:
    words = "net.ipv4.conf.all.route_localnet = 1: node ports answer on 127.0.0.1"
    guard = (Family.IPV4, "filter", "KUBE-FIREWALL")
    if any(patient.chains(variant).get(guard) for variant in Variant):
        return Finding(Level.INFO, "settings", f"{words}, and the chain KUBE-FIREWALL blocks other hosts")
    if any(isinstance(text, HostError) for text in patient.rules.values()):
        return Finding(
            Level.INFO, "settings", f"{words}; cannot check whether the chain KUBE-FIREWALL blocks other hosts"
        )
    return Finding(
        Level.WARN,
        "settings",
        f"{words}, and no chain KUBE-FIREWALL blocks neighbours from programs that listen there",
        "set it to 0, or run `rulegen apply`, which adds the chain",
    )


def _connections(patient: HostProbe) -> Iterator[Finding]:
    try:
        count = int(patient.sysctls["net.netfilter.nf_conntrack_count"])
        most = int(patient.sysctls["net.netfilter.nf_conntrack_max"])
    except (KeyError, ValueError):
        yield Finding(Level.INFO, "settings", "the size of the conntrack table is unknown: conntrack is not loaded yet")
        return
    used = count / most if most else 0.0
    level = Level.FAIL if used >= _FULL else Level.WARN if used >= _NEARLY_FULL else Level.OK
    hint = (
        "raise net.netfilter.nf_conntrack_max: when the table is full, new connections are dropped"
        if used > _NEARLY_FULL
        else ""
    )
    yield Finding(level, "settings", f"conntrack table: {count} of {most} entries ({used:.0%})", hint)
