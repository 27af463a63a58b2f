"""`rulegen cleanup`: remove the state of rulegen and kube-proxy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from rulegen.cli.options.common import LOCK_WAIT, OUTPUT, YES, CliOptions, no_services_option, variant_option
from rulegen.cli.options.ingress import ChosenIngress, removal_options
from rulegen.cli.options.narrowing import VERBOSE
from rulegen.cli.wiring.inputs import Inputs
from rulegen.cli.wiring.made import with_made
from rulegen.cli.wiring.planning import observe_live
from rulegen.cli.wiring.writing import write
from rulegen.compiler.services.other_variant import beside_warning
from rulegen.compiler.services.plan import plan_cleanup
from rulegen.plan.plan import Plan, with_site
from rulegen.plan.show import NO_MODE, NOT_MANAGED, Report

if TYPE_CHECKING:
    from rulegen.compiler.ingress.engine import EngineRemoval
    from rulegen.host.dataplane.kernel import KernelDataplane
    from rulegen.plan.ingress import IngressPlan

DRAIN_S = 300.0
"""Longer than nginx's own limit for old connections (worker_shutdown_timeout, 240 s)."""


SWITCH = click.option(
    "--ingress",
    is_flag=True,
    help="Also stop the proxy of --ingress-engine after its current requests, and remove its folder.",
)


@click.command("cleanup")
@variant_option
@LOCK_WAIT
@YES
@VERBOSE
@OUTPUT
@removal_options(SWITCH)
@no_services_option
def command(output: str, wait_s: int, *, yes: bool, verbose: bool, no_services: bool, **chosen: Any) -> None:
    """Remove from this host what rulegen and kube-proxy wrote, in all modes, and nothing else.

    This removes their iptables chains and jumps, their ipsets and nftables tables, the device kube-ipvs0, the IPVS
    virtual servers whose addresses are in these ipsets or on that device, and the proxy of userspace mode with its
    routing rules. Rules and virtual servers of other programs stay.

    Services then no longer work through this node. If a kubelet runs here, the chain that it shares with kube-proxy
    stays.

    \b
    rulegen cleanup
    rulegen cleanup --variant legacy
    rulegen cleanup --ingress --no-services      only nginx
    """
    ingress = ChosenIngress.of(chosen)
    ingress.refuse_nothing(no_services=no_services, verb="remove")
    inputs = Inputs(CliOptions(**chosen))
    removal = ingress.engine.removal() if ingress.ingress else None
    dataplane = None
    with inputs.progress:
        site = removal.plan() if removal is not None else None
        if no_services:
            plan = Plan()
            report = Report(node=inputs.facts.hostname, mode=NO_MODE, observed=NOT_MANAGED)
        else:
            plan, report, dataplane = _planned_rules(inputs)
            dataplane.lock_wait_s = wait_s
    if site is not None and removal is not None:
        plan = with_site(plan, site)
        report = replace(
            report, site=removal.location + ("" if site.items else f", where {site.engine} was never started")
        )
    ends = partial(_end, removal, site) if removal is not None and site is not None and site.items else None
    write(
        plan,
        with_made(report, None, output=output),
        dataplane,
        output=output,
        yes=yes,
        verbose=verbose,
        engine_before=ends,
    )


def _planned_rules(inputs: Inputs) -> tuple[Plan, Report, KernelDataplane]:
    """Return the plan that removes rules and related objects, in both iptables variants unless one was given."""
    from rulegen.host.userspace import proxy  # noqa: PLC0415 - only a live plan needs it

    dataplane, observed = observe_live(inputs, flows=False, adds_rules=False)
    choice = dataplane.choice
    other = choice.variant.other
    plan = plan_cleanup(
        inputs.options.mode,
        observed,
        {address for family in inputs.facts.families for address in inputs.facts.addresses(family)},
        inputs.options.ipvs_excluded,
        facts=inputs.facts,
        beside=str(other) if inputs.chosen.forced_variant is None else "",
        tables=inputs.tables,
    )
    takes_both = any(item.variant for item in plan.items)
    seen = f"iptables-{choice.variant} ({choice.reason})"
    if takes_both:
        seen = f"{seen}, and iptables-{other}, which also has chains of rulegen or kube-proxy"
    left = "" if takes_both else beside_warning(observed.beside, choice.variant)
    warnings = (*inputs.warnings, *filter(None, [left, proxy.unreadable()]), *plan.notes)
    return (
        plan,
        Report(node=inputs.facts.hostname, mode=NO_MODE, cleanup=True, observed=seen, warnings=warnings),
        dataplane,
    )


def _end(removal: EngineRemoval, site: IngressPlan) -> list[str]:
    """Remove an ingress engine; return the completed actions, one line each."""
    return list(removal.remove(site, DRAIN_S))
