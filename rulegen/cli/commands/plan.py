"""`rulegen plan`: what would change on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from rulegen.cli.options.common import PLAN_OUTPUT, CliOptions, input_options, no_services_option, variant_option
from rulegen.cli.options.ingress import ChosenIngress, ingress_options
from rulegen.cli.options.narrowing import Narrowing, narrowing_options
from rulegen.cli.options.old_flags import IngressCommand
from rulegen.cli.terminal.console import has_colour, print_json, print_long
from rulegen.cli.wiring.fleet import fleet_of_one, plan_fleet, print_fleet, refuse_failed
from rulegen.cli.wiring.ingress import IngressInputs, plan_ingress, report_unseen
from rulegen.cli.wiring.inputs import NOTHING, Inputs
from rulegen.cli.wiring.made import with_made
from rulegen.cli.wiring.planning import plan_live, plan_saved, refuse_mixed, refuse_previews, report_without_services
from rulegen.cli.wiring.saved_plan import PlanOrigin, refuse_unsaveable, saved_plan, write_saved
from rulegen.cli.wiring.strict import refuse_not_as_written
from rulegen.errors import ConfigError
from rulegen.host.files.manifests import STDIN
from rulegen.plan import show
from rulegen.plan.plan import Plan
from rulegen.plan.show import Details

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
    help="Compare with saved dumps (files or folders), or with an empty node (none). Repeatable. Default: this host."
    " Dumps are the output of iptables-save and ip6tables-save; in ipvs mode also of ipset save, ipvsadm -Sn and"
    " ip -br addr; in nftables mode of nft list ruleset, with or without -j. In userspace mode, policy.routes and"
    " services.proxy of `rulegen export` are dumps, too. The configuration for Ingresses is not in dumps, so it is not"
    " compared.",
)
@click.option(
    "--observed-dir",
    metavar="DIR",
    help="Compare many nodes. Each folder in DIR has the name of a node and contains its dumps, as for --observed. A"
    " file host.yaml in such a folder contains the facts of that host, as for --host.",
)
@ingress_options()
@no_services_option
@narrowing_options
@click.option("--detailed-exitcode", is_flag=True, help="Exit code 0: no changes, 2: changes, 1: error.")
@click.option(
    "--out", metavar="FILE", help="Save the whole plan, for `rulegen apply FILE`. It contains only digests of Secrets."
)
@PLAN_OUTPUT
def command(
    output: str,
    observed: tuple[str, ...],
    observed_dir: str | None,
    *,
    detailed_exitcode: bool,
    no_services: bool,
    out: str | None,
    **chosen: Any,
) -> int:
    """Show what would change on a node. Changes nothing.

    The first part lists what changes for users, by Service and host. The second part lists each changed object, if the
    list fits on a screen. SERVICE, -n, -l and --ingress-host select the part of the plan that is shown. The totals and
    the exit code are always those of the whole plan.

    \b
    rulegen plan                                          compare this node's kernel with the cluster
    rulegen plan -f shop/ --observed none                 preview manifests from git on an empty node
    rulegen plan -f objects.yaml --host host.yaml --observed iptables.save --observed ip6tables.save
                                                          plan for another node, from files only
    rulegen plan -f objects.yaml --observed-dir dumps/    compare many nodes: dumps/NODE/iptables.save
    rulegen plan --ingress                                also show which hosts of Ingresses change
    rulegen plan shop/web                                 show each rule that changes for one Service
    rulegen plan -n shop -l tier=front                    the same for Services of a namespace with a label
    rulegen plan --out FILE                               save the plan, for `rulegen apply FILE`
    rulegen plan --detailed-exitcode -o json              for scripts: exit code 2 if anything would change
    """
    ingress, narrowing = ChosenIngress.of(chosen), Narrowing.of(chosen)
    ingress.refuse_nothing(no_services=no_services, verb="compare")
    options = CliOptions(**chosen)
    if observed_dir is not None:
        _refuse_beside_dir(options, ingress, observed, out, no_services=no_services)
        changes = _compare_nodes(options, narrowing, observed_dir, output=output)
        return CHANGES if detailed_exitcode and changes else 0
    inputs = Inputs(options, is_of_this_host=not observed, ingress=ingress if ingress.ingress else None)
    inputs.options  # noqa: B018 - a fault of the options is reported before anything is read
    inputs.warn(ingress.idle)
    if out is not None:
        refuse_unsaveable(out, (*inputs.chosen.files, inputs.chosen.config, inputs.chosen.host), observed)
    with inputs.progress:
        plan, report, engine = _compare(inputs, ingress, observed, no_services=no_services)
        if out is not None:
            refuse_previews(inputs)
            origin = PlanOrigin.here(click.get_current_context())
            write_saved(out, saved_plan(inputs, plan, report, engine, origin, services=not no_services))
    source = next(iter(observed), "") if not {NOTHING, STDIN} & {*observed} else ""
    report = _show(inputs, plan, report, narrowing, output=output, source=source)
    refuse_not_as_written(report, strict=inputs.chosen.strict)
    return CHANGES if detailed_exitcode and not plan.is_empty else 0


def _compare(
    inputs: Inputs, ingress: ChosenIngress, observed: tuple[str, ...], *, no_services: bool
) -> tuple[Plan, Report, IngressInputs | None]:
    """Return the plan of one node, its report, and the input about Ingresses, if they are included."""
    unseen = bool(observed) and NOTHING not in observed
    if unseen and no_services:
        raise ConfigError(
            f"--observed with --no-services: dumps do not contain the configuration of {ingress.ingress_engine}",
            hint="omit --observed to compare with this host, or compare with an empty host: --observed none",
        )
    if no_services:
        refuse_mixed(observed)
        plan, report = Plan(), report_without_services(inputs)
    else:
        plan, report = plan_saved(inputs, observed) if observed else plan_live(inputs)[:2]
    if not ingress.ingress:
        return plan, report, None
    engine = IngressInputs(ingress, inputs, is_live=not observed)
    plan, report = (report_unseen if unseen else plan_ingress)(engine, plan, report)
    return plan, report, engine


def _refuse_beside_dir(
    options: CliOptions, ingress: ChosenIngress, observed: tuple[str, ...], out: str | None, *, no_services: bool
) -> None:
    """Check that nothing contradicts --observed-dir.

    Raises:
        ConfigError: An option that applies to one node, or to Ingresses, is given too.
    """
    for is_given, option, why in (
        (bool(observed), "--observed", "it gives the dumps of one node only"),
        (options.node is not None, "--node", "the folders have the names of the nodes"),
        (out is not None, "--out", "a plan compared with dumps cannot be applied"),
        (ingress.ingress or no_services, "--ingress", "dumps do not contain the configuration for Ingresses"),
    ):
        if is_given:
            raise ConfigError(f"--observed-dir cannot be combined with {option}: {why}", hint=f"omit {option}")


def _compare_nodes(options: CliOptions, narrowing: Narrowing, path: str, *, output: str) -> bool:
    """Print the plans of many nodes; return whether any node has changes.

    Raises:
        NodesFailedError: A node could not be compared; the report was printed.
    """
    inputs = Inputs(options, is_of_this_host=False, every_node=True)
    inputs.options  # noqa: B018 - a fault of the options is reported before anything is read
    with inputs.progress:
        fleet = plan_fleet(inputs, path)
    shown = fleet.narrowed(narrowing.filter(inputs.world, fleet.plan))
    is_long = narrowing.details is Details.ALL
    print_fleet(shown, inputs, output=output, verbose=is_long, pager=not narrowing.no_pager)
    refuse_failed(fleet)
    return any(row.changes for row in fleet.rows)


def _show(inputs: Inputs, plan: Plan, report: Report, narrowing: Narrowing, *, output: str, source: str) -> Report:
    """Print the part of the plan that was asked for; return the report for it."""
    shown = narrowing.filter(inputs.world, plan)
    report = replace(report, shown=shown.text)
    part = shown.narrowed(plan)
    if output == "json":
        print_json(show.json_document(part, with_made(report, inputs, output=output), total=plan))
    elif output in {"sarif", "html"}:
        print_fleet(fleet_of_one(part, report, source), inputs, output=output)
    else:
        colour = has_colour()
        lines = show.text(part, report, colour=colour, details=narrowing.details, total=plan)
        print_long(lines, colour=colour, pager=not narrowing.no_pager)
    return report
