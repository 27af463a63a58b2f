"""`rulegen apply`: write the rules that this node needs."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

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
from rulegen.cli.options.narrowing import VERBOSE
from rulegen.cli.options.old_flags import IngressCommand
from rulegen.cli.wiring.apply_in_parts import ApartWriter
from rulegen.cli.wiring.ingress import IngressInputs, plan_ingress
from rulegen.cli.wiring.inputs import Inputs
from rulegen.cli.wiring.planning import plan_live, report_without_services
from rulegen.cli.wiring.strict import refuse_not_as_written
from rulegen.cli.wiring.writing import write
from rulegen.diff.items import Action
from rulegen.errors import InputError, RulegenError
from rulegen.host.files.manifests import are_from_stdin
from rulegen.kube.node_names import unknown_node
from rulegen.model.ingress.routing.selection import selected
from rulegen.plan.plan import Plan


class ServicesRefusedError(RulegenError):
    """The requested change would do harm."""


@click.command("apply", cls=IngressCommand)
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

    With --ingress, a proxy is started or reloaded: nginx, or that of --ingress-engine. Its configuration is tested
    in a sandbox first. An Ingress that it rejects is left out and reported. It runs on after the command ends.

    With --strict, nothing is written if part of an Ingress is not served as written; the exit code is then 3.

    If the kernel rejects the rules of a Service, that Service keeps its old rules. All others are written, and the
    exit code is 1.

    \b
    rulegen apply                            Services from the cluster
    rulegen apply -f blog.yaml --node web-1  Services from a file, for the node web-1
    rulegen apply --ingress                  also Ingresses, on ports 80 and 443 of this host
    """
    chosen_ingress = ChosenIngress.of(chosen)
    chosen_ingress.refuse_nothing(no_services=no_services, verb="apply")
    inputs = Inputs(CliOptions(**chosen), ingress=chosen_ingress if chosen_ingress.ingress else None)
    inputs.warn(chosen_ingress.idle)
    ingress = IngressInputs(chosen_ingress, inputs) if chosen_ingress.ingress else None
    dataplane = apart = None
    with inputs.progress:
        _refuse_unread(inputs)
        if no_services:
            plan, report = Plan(), report_without_services(inputs)
        else:
            if not allow_unknown_node:
                _refuse_unknown_node(inputs)
            _refuse_previews(inputs)
            live = plan_live(inputs)
            plan, report, dataplane = live.plan, live.report, live.dataplane
            dataplane.lock_wait_s = wait_s
            apart = ApartWriter(inputs, live)
            _refuse_empty(inputs, plan, allow_empty=allow_empty)
        if ingress is not None:
            _refuse_no_host(ingress, allow_empty=allow_empty)
            plan, report = plan_ingress(ingress, plan, report)
            _refuse_taken_ports(ingress)
    write(
        plan,
        report,
        dataplane,
        output=output,
        yes=yes,
        verbose=verbose,
        stdin_is_input=are_from_stdin((*inputs.chosen.files, inputs.chosen.config, inputs.chosen.host)),
        engine_after=ingress.apply if ingress is not None else None,
        apart=apart,
        refuse=partial(refuse_not_as_written, report, strict=inputs.chosen.strict),
    )


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


def _refuse_previews(inputs: Inputs) -> None:
    """Reject values that were assigned for a preview."""
    assigned = [f"Service {name}: {', '.join(s.assigned)}" for name, s in inputs.model.services.items() if s.assigned]
    if assigned:
        raise InputError(
            ", ".join(inputs.chosen.files),
            "cannot be applied, because these values were assigned for a preview only:\n" + "\n".join(assigned),
            hint="set clusterIP and nodePort in the manifests, or apply the objects of the API server",
        )
