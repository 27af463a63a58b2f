"""Protecting rules that a plan removes only because an option is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.iptables.state import ChainKey, ChainValue
from rulegen.model.services.ir import Masquerade
from rulegen.ownership import chains, ipsets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.compiler.services.compile import Compiled
    from rulegen.languages.iptables.rules import Rule
    from rulegen.net import Family
    from rulegen.plan.plan import Plan

_SERVICE_CHAINS = ("KUBE-SVC-", "KUBE-SVL-")
"""In these chains, nothing else marks packets for masquerading."""


def lost_masquerade(compiled: Compiled, plan: Plan) -> Iterator[str]:
    """Yield a warning for each family in which a plan removes the rules that masquerade connections to ClusterIPs.

    They are removed if traffic of Pods cannot be recognised any more. Without any ClusterIP, nothing is lost.
    """
    for family in compiled.model.nodes:
        ports = (port for service in compiled.model.services.values() for port in service.ports)
        if compiled.model.nodes[family].masquerade_cluster_ip is not Masquerade.NEVER:
            continue
        if not any(port.cluster_ip is not None and port.family is family for port in ports):
            continue
        lost = sum(
            any(_masquerades(change.key, rule, family) for rule in change.before.rules)
            for key, part in plan.parts.items()
            if key.family is family and not key.variant
            for change in part.changes
            if isinstance(change.key, ChainKey) and isinstance(change.before, ChainValue)
        )
        if lost:
            yield (
                f"this removes rules that masquerade connections to ClusterIPs ({family}). This node has them now,"
                " but the configuration has no clusterCIDR (or what detectLocalMode needs)"
            )


def _masquerades(key: ChainKey, rule: Rule, family: Family) -> bool:
    """Whether a rule marks connections to ClusterIPs, in iptables mode or in ipvs mode."""
    if not rule.spec.endswith(f"-j {chains.MARK_MASQ}"):
        return False
    if key.name.chain.startswith(_SERVICE_CHAINS):
        return True
    return f"--match-set {ipsets.name_of(ipsets.CLUSTER_IP, family)} dst,dst" in rule.spec
