"""Live rules of both iptables variants, and leftovers of other proxies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, MissingToolError
from rulegen.host.doctor.findings import Finding, Level
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family
from rulegen.ownership.nftables import TABLES
from rulegen.safe_files import read_kernel_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.host.doctor.patient import HostProbe

_HINTS: Final = frozenset({"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"})
_SHOWN: Final = 3
_IPVS_CHAINS: Final = frozenset(
    {
        "KUBE-IPVS-FILTER",
        "KUBE-IPVS-OUT-FILTER",
        "KUBE-LOAD-BALANCER",
        "KUBE-NODE-PORT",
        "KUBE-SOURCE-RANGES-FIREWALL",
    }
)
_SET_NAME: Final = re.compile(r"KUBE-\S+")


def check_both_variants(patient: HostProbe) -> Iterator[Finding]:
    """Yield the number of rules of each variant, and a warning if both have rules."""
    topic = "rules"
    ruled: dict[Variant, int] = {}
    services: dict[Variant, int] = {}
    for variant in Variant:
        for family in Family:
            refusal = patient.rules[variant, family]
            if isinstance(refusal, MissingToolError):
                continue
            if isinstance(refusal, HostError):
                yield Finding(Level.WARN, topic, refusal.message, refusal.hint)
        chains = patient.chains(variant)
        ruled[variant] = sum(chains.values())
        services[variant] = sum(count for (_, _, name), count in chains.items() if _is_of_services(name))
        if chains:
            words = f"iptables-{variant}: {ruled[variant]} rules, {services[variant]} of them for Services"
            yield Finding(Level.INFO, topic, words)
    if all(services.values()):
        yield Finding(
            Level.FAIL,
            topic,
            "both variants have rules for Services: each packet passes both, and one of them is out of date",
            "find out which is the right one (see variant), and remove the rules of the other",
        )
    elif all(ruled.values()):
        yield Finding(
            Level.WARN,
            topic,
            "both variants have rules: each packet passes both, so the rules of one do not show everything",
            "make all programs use the same variant",
        )


def check_leftovers(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about objects of other versions and modes of kube-proxy."""
    for variant in Variant:
        chains = patient.chains(variant)
        yield from _old_chains(variant, chains)
    yield from _nft_tables(patient)
    yield from _ipvs(patient)
    yield from _sets(patient)


def _is_of_services(chain: str) -> bool:
    return chain.startswith("KUBE-") and chain not in _HINTS


def _old_chains(variant: Variant, chains: Iterable[tuple[Family, str, str]]) -> Iterator[Finding]:
    def chain_finding(chains: list[str], what: str, hint: str) -> Iterator[Finding]:
        if chains:
            yield Finding(Level.WARN, "leftovers", f"iptables-{variant}: {what}: {_some(chains)}", hint)

    names = sorted({name for _, _, name in chains})
    yield from chain_finding(
        [name for name in names if name.startswith("KUBE-XLB-")],
        "chains of kube-proxy before 1.24",
        "they can make iptables-restore fail long after an upgrade: flush and delete them",
    )
    yield from chain_finding(
        [name for name in names if name == "KUBE-MARK-DROP"],
        "a chain of kubelet and kube-proxy before 1.28",
        "it may be deleted once nothing jumps to it",
    )
    yield from chain_finding(
        [name for name in names if name in _IPVS_CHAINS],
        "chains of kube-proxy's IPVS mode",
        "if that mode is not in use here, run `kube-proxy --cleanup`",
    )
    if "KUBE-PROXY-CANARY" in names and "KUBE-SERVICES" not in names:
        yield from chain_finding(
            ["KUBE-PROXY-CANARY"],
            "kube-proxy's marker chain without its rules",
            "they were flushed, or a cleanup was interrupted",
        )


def _nft_tables(patient: HostProbe) -> Iterator[Finding]:
    try:
        ended = patient.run(Command(("nft", "list", "tables")))
    except MissingToolError:
        return  # reported among the tools
    if ended.code != 0:
        yield Finding(Level.INFO, "leftovers", f"nftables rules cannot be read: {ended.complaint}")
        return
    lines = {f"table {family} {table}": table for family in ("ip", "ip6") for table in sorted(TABLES)}
    there = [line for line in ended.stdout.splitlines() if line in lines]
    if patient.options.needs.uses_nft:
        if len({lines[line] for line in there}) > 1:
            yield Finding(
                Level.WARN,
                "leftovers",
                f"nftables has the tables of both layouts: {', '.join(there)}. Both apply to each connection",
                "`rulegen apply` removes that of the layout not in use; stop the program that writes it",
            )
        return
    for line in there:
        yield Finding(
            Level.WARN,
            "leftovers",
            f"nftables has {line} of {lines[line]}'s nftables mode: it applies besides the iptables rules",
            f"if that mode is not in use here: nft delete {line}",
        )


def _ipvs(patient: HostProbe) -> Iterator[Finding]:
    hint = "if the IPVS mode is not in use here, run `kube-proxy --cleanup`"
    dummies = [interface for interface in patient.interfaces if interface.name == "kube-ipvs0"]
    if dummies:
        count = len(dummies[0].addresses)
        yield Finding(Level.WARN, "leftovers", f"interface kube-ipvs0 of the IPVS mode, with {count} addresses", hint)
    try:
        servers = read_kernel_text("/proc/thread-self/net/ip_vs").splitlines()
    except OSError:
        return  # the kernel has no ip_vs, or access is not permitted
    count = sum(line.startswith(("TCP", "UDP", "SCTP")) for line in servers)
    if count:
        yield Finding(Level.WARN, "leftovers", f"{count} IPVS virtual servers", hint)


def _sets(patient: HostProbe) -> Iterator[Finding]:
    try:
        ended = patient.run(Command(("ipset", "list", "-n")))
    except MissingToolError:
        return  # reported among the tools
    if ended.code != 0:
        yield Finding(Level.INFO, "leftovers", f"ipsets cannot be read: {ended.complaint}")
        return
    names = [name for name in ended.stdout.split() if _SET_NAME.fullmatch(name)]
    if names:
        yield Finding(
            Level.WARN,
            "leftovers",
            f"{len(names)} ipsets of the IPVS mode: {_some(names)}",
            "if that mode is not in use here, run `kube-proxy --cleanup`",
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
