"""Reads the states of all languages in dumps as Services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.compiler.dumped.iptables import is_of_proxy, rules_as_services
from rulegen.compiler.dumped.ipvs import servers_as_services
from rulegen.compiler.dumped.listeners import UNSEEN as PROXY_UNSEEN
from rulegen.compiler.dumped.listeners import proxy_as_services
from rulegen.compiler.dumped.nftables import table_as_services
from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.ruleset import unreadable_rules
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.listeners.language import NAME as PROXY
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.net import Family
from rulegen.ownership.virtual_servers import DEVICE
from rulegen.plan.dumped.services import DumpedNode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rulegen.languages.language import StateKey


def as_services(states: Mapping[StateKey, Any], sources: Sequence[str], warnings: Sequence[str] = ()) -> DumpedNode:
    """Return what the dumps of a node say in terms of Services.

    Args:
        states: The states by language and family.
        sources: The paths of the dumps.
        warnings: Warnings about the dumps.
    """
    node = DumpedNode(sources=sources, warnings=list(warnings))
    by_family = [name for name in (IPTABLES, NFTABLES) if any((name, family) in states for family in Family)]
    for family in Family:
        for name in by_family:
            if (name, family) not in states:
                node.unseen.append(f"{name} {family}")
        ruleset = states.get((IPTABLES, family))
        if ruleset is not None:
            node.take(rules_as_services(ruleset))
            if count := unreadable_rules(ruleset):
                node.warnings.append(f"{family}: {count} rules have options that the tool could not print")
        table = states.get((NFTABLES, family))
        if table is not None:
            node.take(table_as_services(table, family))
    servers = getattr(states.get((IPVS, None)), "servers", None)
    sets = states.get((IPSET, None))
    links = states.get((LINKS, None))
    bound = None if links is None else {key.address for key in links.addresses if key.device == DEVICE}
    if servers is not None:
        node.take(servers_as_services(servers, sets, bound))
    elif sets is not None or links is not None:
        node.unseen.append("virtual servers")
    proxy = states.get((PROXY, None))
    if proxy is not None:
        node.take(proxy_as_services(proxy))
    elif any(is_of_proxy(states[IPTABLES, family]) for family in Family if (IPTABLES, family) in states):
        node.unseen.append(PROXY_UNSEEN)
    return node
