"""Reads the state of this node that Services need from the kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.other_variant import beside_warning
from rulegen.errors import HostError
from rulegen.host.commands.runner import MissingToolError
from rulegen.host.netfilter import iptables
from rulegen.host.netfilter.variant import has_kubernetes_chains
from rulegen.languages.iptables.ruleset import read
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import Driver, ReadContext
    from rulegen.host.netfilter.variant import Variant
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Family


def read_kernel(drivers: Mapping[str, Driver], context: ReadContext) -> dict[str, Any]:
    """Return the unparsed state of the kernel by language; parsing, which takes time, is done later.

    Raises:
        HostError: A part cannot be read. The result is never incomplete.
    """
    raw = {}
    for name, driver in drivers.items():
        with WAITS.waiting(f"reading {name}"):
            raw[name] = driver.read(context)
    return raw


def observed(
    drivers: Mapping[str, Driver],
    raw: Mapping[str, Any],
    context: ReadContext,
    *,
    flows: Sequence[Flow] = (),
    counters: Collection[str] | None = None,
) -> Observed:
    """Return the parsed state of the kernel.

    Args:
        drivers: By language.
        raw: The result of `read_kernel`.
        context: What was read. Families that are not in it are omitted, even if they were read.
        flows: UDP entries of conntrack, if they were read.
        counters: Names of nfacct objects, if they were read.

    Raises:
        HostError: A language that the mode uses was not read.
    """
    states = {
        key: state
        for name, driver in drivers.items()
        for key, state in driver.states(raw[name], context).items()
        if key[1] is None or key[1] in context.families
    }
    there = Observed(families=context.families, states=states, flows=flows, counters=counters)
    refuse_unseen(there, context.needed & drivers.keys())
    return there


def has_objects(drivers: Mapping[str, Driver], names: Iterable[str], context: ReadContext) -> bool:
    """Return whether there are objects in some languages, of those that do not tell of writes."""
    known = (drivers[name] for name in names if name in drivers)
    return any(read_kernel({each.name: each for each in known if not each.tells_of_writes}, context).values())


def refuse_unseen(there: Observed, needed: Collection[str]) -> None:
    """Reject an observation without a language that the mode uses.

    Raises:
        HostError: There is one.
    """
    seen = {name for name, _ in there.states}
    unseen = sorted(name for name in needed if name not in seen)
    if unseen and there.families:
        raise HostError(f"{', '.join(unseen)}: cannot be read on this host, but this mode changes it")


def rules_beside(run: Runner, variant: Variant, families: Iterable[Family]) -> dict[Family, Ruleset]:
    """Return by family the rules of the other variant, if it has chains of Kubernetes.

    Raises:
        HostError: They exist but cannot be read.
    """
    other = variant.other
    if not has_kubernetes_chains(run, other):
        return {}
    rulesets = {}
    for family in families:
        try:
            text = iptables.observe(run, other, family)
        except MissingToolError:
            continue  # no program has written rules of this family there
        rulesets[family] = read(text, f"iptables-{other} on this host", family)
    return rulesets


def warning_beside(run: Runner, choice: Variant, families: Iterable[Family]) -> str:
    """Return a warning about a proxy's rules in the other iptables variant; empty if it has none."""
    try:
        beside = rules_beside(run, choice, families)
    except HostError as error:
        return f"{error.message}: it is unknown whether a proxy has rules there"
    return beside_warning(beside, choice)


def digest_of(raw: Mapping[str, Any]) -> str:
    """Return a digest of rules, without times and counters in the output of the tools."""
    digest = hashlib.sha256()
    for of_language in raw.values():
        for text in of_language.values() if isinstance(of_language, Mapping) else (of_language,):
            lines = (
                line.partition(" [")[0] if line[:1] == ":" else line
                for line in str(text).splitlines()
                if line[:1] != "#"
            )
            digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
