"""`rulegen apply`: write the rules that this node needs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.core import ParameterSource

from rulegen.cli.options.common import (
    ALLOW_UNKNOWN_NODE,
    LOCK_WAIT,
    OUTPUT,
    YES,
    CliOptions,
    input_options,
    no_services_option,
    variant_option,
)
from rulegen.cli.options.ingress import ChosenIngress, ingress_options
from rulegen.cli.options.narrowing import VERBOSE, Narrowing
from rulegen.cli.options.old_flags import IngressCommand
from rulegen.cli.wiring.apply_in_parts import ApartWriter
from rulegen.cli.wiring.ingress import IngressInputs, plan_ingress
from rulegen.cli.wiring.inputs import Inputs
from rulegen.cli.wiring.made import with_made
from rulegen.cli.wiring.planning import plan_live, refuse_previews, report_without_services
from rulegen.cli.wiring.saved_plan import PlanOrigin, SavedPlan, read_saved, saved_plan
from rulegen.cli.wiring.strict import refuse_not_as_written
from rulegen.cli.wiring.writing import write
from rulegen.diff.items import Action
from rulegen.errors import ConfigError, RulegenError
from rulegen.host.files.manifests import are_from_stdin
from rulegen.kube.node_names import unknown_node
from rulegen.model.ingress.routing.selection import selected
from rulegen.model.services.stale_flows import StaleUdpPolicy
from rulegen.plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.host.dataplane.kernel import KernelDataplane
    from rulegen.plan.show import Report


class ServicesRefusedError(RulegenError):
    """The requested change would do harm."""


WITH_SAVED: Final = frozenset(
    {"file", "yes", "verbose", "output", "wait_s", "allow_empty", "allow_unknown_node", "help"}
)
"""Parameters that go together with a saved plan."""


@click.command("apply", cls=IngressCommand)
@click.argument("file", required=False, metavar="[FILE]")
@input_options
@variant_option
@LOCK_WAIT
@ingress_options()
@no_services_option
@click.option(
    "--allow-empty",
    is_flag=True,
    help="Apply even if the input has no Service or no Ingress. This removes all that the node serves.",
)
@ALLOW_UNKNOWN_NODE
@YES
@VERBOSE
@OUTPUT
def command(
    file: str | None,
    output: str,
    wait_s: int,
    *,
    allow_empty: bool,
    allow_unknown_node: bool,
    no_services: bool,
    yes: bool,
    verbose: bool,
    **chosen: Any,
) -> None:
    """Show the plan for this node, ask, then write the changes. New rules are added before old ones are removed.

    With FILE, exactly the plan saved in FILE is applied. If anything that the plan depends on has changed, nothing is
    written.

    With --ingress, the proxy of --ingress-engine (default: nginx) is started or reloaded. Its configuration is tested
    in a sandbox first. An Ingress that the proxy rejects is left out and reported. The proxy keeps running after the
    command ends.

    With --strict, nothing is written if part of an Ingress is not served as specified; the exit code is then 3.

    If the kernel rejects the rules of a Service, that Service keeps its old rules. All others are written, and the
    exit code is 1.

    \b
    rulegen apply                            Services from the cluster
    rulegen apply -f blog.yaml --node web-1  Services from a file, for the node web-1
    rulegen apply FILE                       exactly the plan that `rulegen plan --out FILE` saved
    rulegen apply --ingress                  also Ingresses, on ports 80 and 443 of this host
    """
    saved = read_saved(file) if file is not None else None
    if saved is not None:
        chosen, no_services = _saved_choice(saved)
    chosen_ingress = ChosenIngress.of(chosen)
    chosen_ingress.refuse_nothing(no_services=no_services, verb="apply")
    inputs = Inputs(CliOptions(**chosen), ingress=chosen_ingress if chosen_ingress.ingress else None)
    inputs.warn(chosen_ingress.idle)
    ingress = IngressInputs(chosen_ingress, inputs) if chosen_ingress.ingress else None
    with inputs.progress:
        work = _planned(
            inputs, None if no_services else wait_s, ingress, allow_empty=allow_empty, allow_unknown=allow_unknown_node
        )
        if saved is not None:
            _refuse_changed(saved, inputs, work, ingress)
            work = work._replace(apart=None)  # exactly this plan, or nothing
    write(
        work.plan,
        with_made(work.report, inputs, output=output),
        work.dataplane,
        output=output,
        yes=yes,
        verbose=verbose,
        stdin_is_input=are_from_stdin((*inputs.chosen.files, inputs.chosen.config, inputs.chosen.host)),
        engine_after=ingress.apply if ingress is not None else None,
        apart=work.apart,
        refuse=partial(refuse_not_as_written, work.report, strict=inputs.chosen.strict),
    )
    _forget(work)


class _Planned(NamedTuple):
    """A plan, and what writes it; no dataplane if the rules of Services are left alone."""

    plan: Plan
    report: Report
    dataplane: KernelDataplane | None
    apart: ApartWriter | None
    forget: Callable[[], object] | None = None


def _forget(work: _Planned) -> None:
    """Delete stale flows that clients have made since the plan, if there were some already."""
    if work.forget is not None and work.plan.flows:
        work.forget()


def _planned(
    inputs: Inputs, wait_s: int | None, ingress: IngressInputs | None, *, allow_empty: bool, allow_unknown: bool
) -> _Planned:
    """Return the plan that may be written.

    Args:
        inputs: The objects, the configuration and the host.
        wait_s: How long to wait for the xtables lock; None to leave the rules of Services alone.
        ingress: The input about Ingresses; None to leave the engine alone.
        allow_empty: Whether the input may have no Service or no Ingress.
        allow_unknown: Whether the node may have no Node object.

    Raises:
        RulegenError: It would do harm.
    """
    _refuse_unread(inputs)
    dataplane = apart = forget = None
    if wait_s is None:
        plan, report = Plan(), report_without_services(inputs)
    else:
        if not allow_unknown:
            _refuse_unknown_node(inputs)
        refuse_previews(inputs)
        live = plan_live(inputs)
        plan, report, dataplane = live.plan, live.report, live.dataplane
        dataplane.lock_wait_s = wait_s
        dataplane.stale_udp = StaleUdpPolicy(inputs.chosen.stale_udp)
        forget = partial(dataplane.reconcile, live.compiled.model.services.values(), live.compiled.model.nodes)
        apart = ApartWriter(inputs, live)
        _refuse_empty(inputs, plan, allow_empty=allow_empty)
    if ingress is not None:
        _refuse_no_host(ingress, allow_empty=allow_empty)
        plan, report = plan_ingress(ingress, plan, report)
        _refuse_taken_ports(ingress)
    return _Planned(plan, report, dataplane, apart, forget)


def _refuse_changed(saved: SavedPlan, inputs: Inputs, work: _Planned, ingress: IngressInputs | None) -> None:
    """Reject a saved plan that is not the plan of now."""
    origin = PlanOrigin(saved.directory, saved.arguments, saved.environment)
    has_services = work.dataplane is not None
    saved.refuse_changed(saved_plan(inputs, work.plan, work.report, ingress, origin, services=has_services))


def _saved_choice(saved: SavedPlan) -> tuple[dict[str, Any], bool]:
    """Return the options of a saved plan, and whether it leaves the rules of Services alone.

    Raises:
        ConfigError: The command line has options that a saved plan already has.
    """
    context = click.get_current_context()
    for param in context.command.params:
        given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.name not in WITH_SAVED:
            raise ConfigError(
                f"{param.opts[0]}: a saved plan has its own options",
                hint="omit it, or save another plan with this option",
            )
    chosen = saved.parameters(context)
    Narrowing.of(chosen)
    for name in ("observed", "observed_dir", "out", "output", "detailed_exitcode"):
        del chosen[name]
    return chosen, chosen.pop("no_services")


def _refuse_unknown_node(inputs: Inputs) -> None:
    """Reject a node that the cluster does not know: all endpoints would count as those of other nodes."""
    name, world = inputs.node_name, inputs.world
    if name in world.nodes:
        return
    faults = [line for r in world.rejected if r.object == f"Node {name}" for line in r.lines()]
    if faults:
        raise ServicesRefusedError(
            "this node's Node object is invalid:\n" + "\n".join(faults), hint="correct the Node object"
        )
    raise ServicesRefusedError(
        f"{unknown_node(name, world.nodes)}: nothing is written for a node without a Node object",
        hint="give this node's name with --node, and its Node object if you use -f; or add --allow-unknown-node",
    )


def _refuse_empty(inputs: Inputs, plan: Plan, *, allow_empty: bool) -> None:
    """Reject input without any Service if the node serves some."""
    if inputs.model.services or allow_empty:
        return
    gone = (item for item in plan.items if item.is_leftover and item.action is Action.DELETE)
    if any(item.owner or item.kind == "virtual server" for item in gone):
        raise ServicesRefusedError(
            "the input has no Service, but this node serves some: apply would remove all of them",
            hint="check the input, or add --allow-empty",
        )


def _refuse_no_host(ingress: IngressInputs, *, allow_empty: bool) -> None:
    """Reject input without any Ingress if nginx serves some."""
    if allow_empty or selected(ingress.completed.world, ingress.options) or ingress.observed is None:
        return
    if ingress.engine.hosts(ingress.observed):
        raise ServicesRefusedError(
            f"the input has no Ingress for rulegen, but {ingress.name} serves some: apply would remove all of them",
            hint="check the input, or add --allow-empty",
        )


def _refuse_taken_ports(ingress: IngressInputs) -> None:
    """Reject a configuration if the engine could not listen on its ports."""
    if ingress.taken_ports:
        raise ServicesRefusedError(
            "; ".join(ingress.taken_ports),
            hint="stop it, or choose other ports with --http-port and --https-port",
        )


def _refuse_unread(inputs: Inputs) -> None:
    """Reject input that could not be read completely: it may contain Services that this node serves."""
    unread = [line for r in inputs.world.rejected if r.object.startswith(r.source) for line in r.lines()]
    if unread:
        raise ServicesRefusedError(
            "part of the input could not be read, and apply removes what is not in the input:\n" + "\n".join(unread),
            hint="correct it; `rulegen plan` shows the plan for the rest",
        )
