"""From options to a plan: compared with this host's kernel, with dumps, or with an empty node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.cli.terminal.console import note
from rulegen.cli.wiring.inputs import NOTHING, can_count
from rulegen.compiler.services.guards import lost_masquerade
from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.other_variant import beside_warning
from rulegen.compiler.services.plan import plan_node
from rulegen.errors import ConfigError, HostError, InputError
from rulegen.host.commands.runner import run
from rulegen.host.files.manifests import STDIN
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.ruleset import UNREADABLE, Ruleset, unreadable_rules
from rulegen.model.services.node.context import BE_LIBERAL
from rulegen.model.services.stale_flows import StaleUdpPolicy
from rulegen.net import Family
from rulegen.ownership import chains
from rulegen.plan.show import NO_MODE, NOT_MANAGED, Report
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.compiler.services.compile import Compiled
    from rulegen.host.dataplane.kernel import KernelDataplane
    from rulegen.host.files.dumps import Dumps
    from rulegen.model.services.stale_flows import Flow
    from rulegen.plan.plan import Plan


def report_without_services(inputs: Inputs) -> Report:
    """Return the report for a plan without rules of Services."""
    world = inputs.world
    return Report(
        node=inputs.node_name,
        mode=NO_MODE,
        observed=NOT_MANAGED,
        rejected=world.rejected,
        unknown_kinds=world.unknown_kinds,
        warnings=(*inputs.configuration[1], *inputs.warnings, *world.warnings),
    )


def observe_live(inputs: Inputs, *, flows: bool = True, adds_rules: bool = True) -> tuple[KernelDataplane, Observed]:
    """Return this host's dataplane and its current state.

    Args:
        inputs: Contain the iptables variant, if one was given.
        flows: Whether to read conntrack too.
        adds_rules: Whether rules of the mode are written. Without iptables, others can still be removed.
    """
    from rulegen.host.dataplane.kernel import KernelDataplane  # noqa: PLC0415 - only a live plan needs them
    from rulegen.host.dataplane.observe import observed, read_kernel, rules_beside  # noqa: PLC0415 - the same
    from rulegen.host.netfilter import nfacct  # noqa: PLC0415 - the same
    from rulegen.host.nftables import without_iptables  # noqa: PLC0415 - the same

    tables, drivers, facts = inputs.tables, inputs.command_tables.drivers, inputs.facts
    backend = tables.backends.get(inputs.options.mode)
    languages = backend.languages if backend is not None else ()
    needed = languages if adds_rules else ()
    choice, drivers = without_iptables.chosen(run, inputs.chosen.forced_variant, drivers, needed)
    dataplane = KernelDataplane(
        run,
        choice,
        facts,
        languages=tuple(name for name in languages if name in drivers),
        on_request=backend.on_request if backend is not None else (),
        tables=tables,
        drivers=drivers,
        on_wait=note,
    )
    choice = dataplane.choice
    inputs.progress(
        f"reading the rules of iptables-{choice.variant} …" if IPTABLES in drivers else "reading the rules …"
    )
    context = dataplane.read_context(facts.families)
    there = observed(
        drivers,
        read_kernel(drivers, context),
        context,
        flows=_udp_flows(inputs) if flows else [],
        counters=tuple(nfacct.counters()) if can_count() else None,
    )
    for warning in without_iptables.warnings(dataplane.unseen):
        inputs.warn(warning)
    try:
        beside = rules_beside(run, choice.variant, facts.families)
    except HostError as error:
        inputs.warn(f"{error.message}: if a proxy has rules there, they stay")
        return dataplane, there
    return dataplane, msgspec.structs.replace(there, beside=beside)


class LivePlan(NamedTuple):
    """A plan compared with the kernel, and its input."""

    plan: Plan
    report: Report
    dataplane: KernelDataplane
    compiled: Compiled
    observed: Observed


def plan_live(inputs: Inputs) -> LivePlan:
    """Return the plan compared with the kernel."""
    from rulegen.host.dataplane.observe import refuse_unseen  # noqa: PLC0415 - only a live plan needs it

    inputs.tables.backend(inputs.options.mode)  # an unknown mode is reported before anything is read
    dataplane, observed = observe_live(inputs)
    choice = dataplane.choice
    inputs.warn(beside_warning(observed.beside, choice.variant))
    compiled = inputs.compiled(observed, is_live=True)
    refuse_unseen(observed, compiled.requested)
    stale_udp = StaleUdpPolicy(inputs.chosen.stale_udp)
    plan = plan_node(compiled, observed, inputs.facts, inputs.world.service_cidrs, stale_udp)
    seen = f"iptables-{choice.variant} of this host ({choice.reason})"
    warnings = (*unreadable(observed.rulesets()), *lost_masquerade(compiled, plan), *plan.notes)
    return LivePlan(plan, inputs.report(seen, *warnings), dataplane, compiled, observed)


def plan_saved(inputs: Inputs, paths: tuple[str, ...], *, skip: Collection[str] = ()) -> tuple[Plan, Report]:
    """Return the plan compared with dumps, or with an empty node.

    Args:
        inputs: The input of the command.
        paths: Files and folders, or `none`.
        skip: Names of files in folders that are no dumps.
    """
    from rulegen.host.files.dumps import read_dumps  # noqa: PLC0415 - only a plan against dumps needs it

    facts = inputs.facts
    refuse_mixed(paths)
    if NOTHING in paths:
        compiled = inputs.compiled(None, is_live=False)
        report = inputs.report("a node without any rules")
        languages = inputs.tables.languages.values()
        states = {key: state for language in languages for key, state in language.empty(facts.families).items()}
        observed = Observed(families=facts.families, states=states)
    else:
        if STDIN in paths and STDIN in inputs.chosen.files:
            raise ConfigError(
                "standard input can hold objects or a dump, not both", hint="give one of them as a file instead"
            )
        by_family = _languages_by_family(inputs)
        dumps = read_dumps(paths, inputs.tables.languages, needs_rules=IPTABLES in by_family, skip=skip)
        inputs.model  # noqa: B018 - faults of the input come before those of a comparison
        seen = _seen_families(inputs, dumps, by_family, paths) if by_family else facts.families
        missing = [family for family in facts.families if family not in seen]
        warnings = [f"{family} was not observed, so it is not in the plan" for family in missing]
        warnings += (*_unseen(inputs, dumps), *_not_compared(inputs, dumps), *unreadable(dumps.rulesets))
        is_partial = bool(warnings) or any(ruleset.unknown for ruleset in dumps.rulesets.values())
        warnings += dumps.warnings
        if BE_LIBERAL in inputs.model.sysctls and dumps.sysctls is None:
            warnings.append(
                f"{BE_LIBERAL} must be 1, because the plan omits the rule that drops INVALID packets; kernel"
                " parameters were not observed (sysctl -a)"
            )
        families = tuple(family for family in seen if family in inputs.model.nodes)
        observed = Observed(families=families, states=dumps.states)
        compiled = inputs.compiled(observed, is_live=False)
        report = msgspec.structs.replace(inputs.report(", ".join(paths), *warnings), is_partial=is_partial)
        if dumps.sysctls is not None:
            facts = replace(facts, sysctls=dumps.sysctls)
    plan = plan_node(compiled, observed, facts, inputs.world.service_cidrs)
    return plan, msgspec.structs.replace(report, warnings=(*report.warnings, *lost_masquerade(compiled, plan)))


def refuse_mixed(paths: tuple[str, ...]) -> None:
    """Reject dumps together with an empty node.

    Raises:
        ConfigError: There are both.
    """
    if NOTHING in paths and len(paths) > 1:
        raise ConfigError("--observed none cannot be combined with other dumps", hint="give either dumps or none")


def refuse_previews(inputs: Inputs) -> None:
    """Reject values that were assigned for a preview: they must not be written.

    Raises:
        InputError: There are some.
    """
    assigned = [f"Service {name}: {', '.join(s.assigned)}" for name, s in inputs.model.services.items() if s.assigned]
    if assigned:
        raise InputError(
            ", ".join(inputs.chosen.files),
            "cannot be applied, because these values were assigned for a preview only:\n" + "\n".join(assigned),
            hint="set clusterIP and nodePort in the manifests, or apply the objects of the API server",
        )


def unreadable(rulesets: Mapping[Family, Ruleset]) -> Iterator[str]:
    """Yield a warning for each family with rules whose options the tool could not print completely."""
    for family, ruleset in rulesets.items():
        count = unreadable_rules(ruleset)
        if count:
            yield (
                f"{family}: in {counted_noun(count, 'rule')}, iptables shows options as {UNREADABLE}, because a newer"
                " iptables wrote them. Only the rest of these rules is compared; to compare all, read them with the"
                " newer iptables"
            )


def _languages_by_family(inputs: Inputs) -> tuple[str, ...]:
    """Return the languages of the mode whose dumps have a family, such as iptables."""
    tables, families = inputs.tables, inputs.facts.families
    written = tables.backend(inputs.options.mode).languages
    return tuple(
        name for name in written if any(family is not None for _, family in tables.languages[name].empty(families))
    )


def _seen_families(inputs: Inputs, dumps: Dumps, languages: Sequence[str], paths: Sequence[str]) -> tuple[Family, ...]:
    """Return the families that the dumps of some languages contain.

    Raises:
        InputError: No dump is of these languages.
    """
    states = dumps.states
    seen = tuple(family for family in Family if any((name, family) in states for name in languages))
    if not seen:
        raise InputError(
            ", ".join(paths),
            f"no dump of {' or '.join(languages)}, which {inputs.options.mode} mode writes",
            hint="on the node, as root: nft -j list ruleset > nftables.json",
        )
    return seen


def _unseen(inputs: Inputs, dumps: Dumps) -> Iterator[str]:
    """Yield the state that a backend needs and that no dump contains."""
    backend = inputs.tables.backend(inputs.options.mode)
    is_requested = any(port.is_proxied for service in inputs.model.services.values() for port in service.ports)
    requested = backend.on_request if is_requested else ()
    for name in (*backend.languages, *requested):
        unseen = inputs.tables.languages[name].unseen(dumps.states.get((name, None)))
        if not unseen and name in requested and not any(language == name for language, _ in dumps.states):
            unseen = f"objects of {name}"
        if unseen:
            yield f"not observed, so not in the plan: {unseen}"


def _not_compared(inputs: Inputs, dumps: Dumps) -> Iterator[str]:
    """Yield a warning for each family that has rules of Services in a dump, although the host has no such family."""
    for family, ruleset in dumps.rulesets.items():
        if family not in inputs.model.nodes and any(map(chains.is_proxys, ruleset.chains)):
            yield (
                f"{family} rules of Services are in the dumps, but not in the plan, because the facts of the host say"
                f" that it has no {family} (--host gives other facts)"
            )


def _udp_flows(inputs: Inputs) -> list[Flow]:
    """Return the UDP entries of conntrack; if they cannot be read, add a warning and plan without them."""
    from rulegen.host.netfilter import conntrack  # noqa: PLC0415 - only a live plan needs it

    try:
        return [flow for family in inputs.facts.families for flow in conntrack.list_flows(run, family)]
    except HostError as error:
        inputs.warn(f"stale UDP connections are not in the plan: {error.message}")
        return []
