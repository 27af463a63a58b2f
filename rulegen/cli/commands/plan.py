"""`rulegen plan`: what would change on a node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rulegen.cli.options.common import OUTPUT, CliOptions, input_options, no_services_option, variant_option
from rulegen.cli.options.ingress import ChosenIngress, ingress_options
from rulegen.cli.options.narrowing import Narrowing, narrowing_options
from rulegen.cli.options.old_flags import IngressCommand
from rulegen.cli.terminal.console import has_colour, print_json, print_long
from rulegen.cli.wiring.ingress import IngressInputs, plan_ingress, report_unseen
from rulegen.cli.wiring.inputs import NOTHING, Inputs
from rulegen.cli.wiring.made import with_made
from rulegen.cli.wiring.planning import plan_live, plan_saved, refuse_mixed, refuse_previews, report_without_services
from rulegen.cli.wiring.saved_plan import PlanOrigin, refuse_unsaveable, saved_plan, write_saved
from rulegen.cli.wiring.strict import refuse_not_as_written
from rulegen.errors import ConfigError
from rulegen.plan import show
from rulegen.plan.plan import Plan

if TYPE_CHECKING:
    from rulegen.plan.show import Report

CHANGES = 2
"""Exit code of `--detailed-exitcode` if something would change."""


@click.command("plan", cls=IngressCommand)
@input_options
@variant_option
@click.option(
    "--observed",
    multiple=True,
    metavar="PATH|none",
    help="Compare with saved dumps, or with an empty node (none). Give files or a folder with the output of"
    " iptables-save, ip6tables-save and, in ipvs mode, ipset save, ipvsadm -Sn and ip -br addr; in nftables mode, of"
    " nft list ruleset, with or without -j. Dumps do not contain"
    " nginx's configuration, so it is not compared. Repeatable. Default: this host.",
)
@ingress_options()
@no_services_option
@narrowing_options
@click.option("--detailed-exitcode", is_flag=True, help="Exit code 0: no changes, 2: changes, 1: error.")
@click.option(
    "--out", metavar="FILE", help="Save the whole plan, for `rulegen apply FILE`. Secrets are in it as digests only."
)
@OUTPUT
def command(
    output: str,
    observed: tuple[str, ...],
    *,
    detailed_exitcode: bool,
    no_services: bool,
    out: str | None,
    **chosen: Any,
) -> int:
    """Show what would change on a node. Changes nothing.

    First, what changes for users, by Service and host; then each changed object, if they fit on a screen. SERVICE, -n,
    -l and --ingress-host narrow what is shown, not the plan: its totals and the exit code are those of the whole plan.

    \b
    rulegen plan                                          compare this node's kernel with the cluster
    rulegen plan -f shop/ --observed none                 preview manifests from git on an empty node
    rulegen plan -f objects.yaml --host host.yaml --observed iptables.save --observed ip6tables.save
                                                          plan for another node, from files only
    rulegen plan --ingress                                also show which hosts of nginx change
    rulegen plan shop/web                                 show each rule that changes for one Service
    rulegen plan -n shop -l tier=front                    the same for Services of a namespace with a label
    rulegen plan --out FILE                               save the plan, for `rulegen apply FILE`
    rulegen plan --detailed-exitcode -o json              for scripts: exit code 2 if anything would change
    """
    ingress, narrowing = ChosenIngress.of(chosen), Narrowing.of(chosen)
    ingress.refuse_nothing(no_services=no_services, verb="compare")
    inputs = Inputs(CliOptions(**chosen), is_of_this_host=not observed, ingress=ingress if ingress.ingress else None)
    inputs.options  # noqa: B018 - a fault of the options is reported before anything is read
    inputs.warn(ingress.idle)
    if out is not None:
        refuse_unsaveable((*inputs.chosen.files, inputs.chosen.config, inputs.chosen.host), observed)
    engine = None
    unseen = bool(observed) and NOTHING not in observed
    if unseen and no_services:
        raise ConfigError(
            f"--observed with --no-services: dumps do not contain the configuration of {ingress.ingress_engine}",
            hint="omit --observed to compare with this host, or compare with an empty host: --observed none",
        )
    with inputs.progress:
        if no_services:
            refuse_mixed(observed)
            plan, report = Plan(), report_without_services(inputs)
        else:
            plan, report = plan_saved(inputs, observed) if observed else plan_live(inputs)[:2]
        if ingress.ingress:
            engine = IngressInputs(ingress, inputs, is_live=not observed)
            plan, report = (report_unseen if unseen else plan_ingress)(engine, plan, report)
        if out is not None:
            refuse_previews(inputs)
            origin = PlanOrigin.here(click.get_current_context())
            write_saved(out, saved_plan(inputs, plan, report, engine, origin, services=not no_services))
    report = _show(inputs, plan, report, narrowing, output=output)
    refuse_not_as_written(report, strict=inputs.chosen.strict)
    return CHANGES if detailed_exitcode and not plan.is_empty else 0


def _show(inputs: Inputs, plan: Plan, report: Report, narrowing: Narrowing, *, output: str) -> Report:
    """Print the part of the plan that was asked for; return the report for it."""
    shown = narrowing.filter(inputs.world, plan)
    report = replace(report, shown=shown.text)
    part = shown.narrowed(plan)
    if output == "json":
        print_json(show.json_document(part, with_made(report, inputs, output=output), total=plan))
    else:
        colour = has_colour()
        lines = show.text(part, report, colour=colour, details=narrowing.details, total=plan)
        print_long(lines, colour=colour, pager=not narrowing.no_pager)
    return report
