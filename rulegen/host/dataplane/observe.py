"""What this node has now, of all that Services are made of, read from the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.compiler.services.compile import Observed
from rulegen.errors import HostError
from rulegen.host.commands.runner import MissingToolError
from rulegen.host.ipvs import addresses
from rulegen.host.ipvs import servers as ipvs
from rulegen.host.netfilter import ipset, iptables
from rulegen.host.netfilter.variant import has_kubernetes_chains
from rulegen.languages.ipset.script import TEMPORARY
from rulegen.languages.iptables.ruleset import read
from rulegen.net import Family
from rulegen.ownership import ipsets, virtual_servers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rulegen.host.commands.runner import Runner
    from rulegen.host.netfilter.variant import Variant
    from rulegen.languages.ipset.state import Objects
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.model.services.stale_flows import Flow

_OUR_SETS = frozenset({TEMPORARY, *(name for family in Family for name in ipsets.names(family))})


def print_rules(run: Runner, variant: Variant, families: Iterable[Family]) -> dict[Family, str]:
    """Return all rules by family, as the tools print them.

    Raises:
        HostError: They cannot be read. Never less than all.
    """
    return {family: iptables.observe(run, variant, family) for family in families}


def observe(
    run: Runner,
    variant: Variant,
    rules: Mapping[Family, str],
    *,
    needs_sets: bool,
    flows: Sequence[Flow] = (),
    counters: Collection[str] | None = None,
) -> Observed:
    """Return what the kernel has.

    Args:
        run: What runs the tools.
        variant: Which iptables.
        rules: What `print_rules` told.
        needs_sets: Whether the mode cannot do without sets and virtual servers. Else they are looked at for leftovers,
            and are not there where nothing could have made them.
        flows: What conntrack remembers, if that was read.
        counters: Names of nfacct objects, if they were read.

    Raises:
        HostError: Anything cannot be read. Never less than all.
    """
    rulesets = {family: read(text, f"iptables-{variant} on this host", family) for family, text in rules.items()}
    return Observed(
        rulesets=rulesets,
        flows=flows,
        counters=counters,
        sets=_sets(run, needs_sets=needs_sets),
        servers=ipvs.observe(),
        links=addresses.observe(virtual_servers.DEVICE),
        timeouts=ipvs.timeouts() if needs_sets else None,
    )


def rules_beside(run: Runner, variant: Variant, families: Iterable[Family]) -> dict[Family, Ruleset]:
    """Return by family the rules of the variant that is not this one, where Kubernetes' chains are among them.

    Raises:
        HostError: They are there, and cannot be read.
    """
    other = variant.other
    if not has_kubernetes_chains(run, other):
        return {}
    rulesets = {}
    for family in families:
        try:
            text = iptables.observe(run, other, family)
        except MissingToolError:
            continue  # nobody wrote rules of this family there
        rulesets[family] = read(text, f"iptables-{other} on this host", family)
    return rulesets


def _sets(run: Runner, *, needs_sets: bool) -> Objects | None:
    """Return all sets; none at all where none is ours, as others' may be large; None where nobody can look."""
    if needs_sets:
        return ipset.observe(run)
    try:
        return ipset.observe(run) if _OUR_SETS & set(ipset.names(run)) else {}
    except HostError:
        return None  # as on a host without ipset, where nobody can have left any
