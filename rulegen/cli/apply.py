"""`rulegen apply`: make a node's rules so."""

from __future__ import annotations

from typing import Any

import click

from rulegen.cli.inputs import Inputs, plan_live
from rulegen.cli.options import LOCK_WAIT, OUTPUT, YES, Chosen, input_options, variant_option
from rulegen.cli.writing import write
from rulegen.errors import InputError, RulegenError
from rulegen.plan.items import Action


class RefusedError(RulegenError):
    """What was asked for would do harm."""


@click.command("apply")
@input_options
@variant_option
@LOCK_WAIT
@click.option(
    "--allow-empty", is_flag=True, help="Also where the objects hold no Service at all, and the node has some."
)
@YES
@OUTPUT
def command(output: str, wait_s: int, *, allow_empty: bool, yes: bool, **chosen: Any) -> None:
    """Show the plan for this node, then make it so: make before break, only what changed.

    \b
    rulegen apply                            what the cluster wants, on this node
    rulegen apply -f blog.yaml --node web-1  what a file says, as the node web-1
    """
    inputs = Inputs(Chosen(**chosen))
    with inputs.progress:
        _refuse_unread(inputs)
        _refuse_previews(inputs)
        plan, report, choice = plan_live(inputs)
    if not inputs.model.services and not allow_empty:
        gone = {item.owner for item in plan.items if item.is_leftover and item.action is Action.DELETE}
        if gone:
            raise RefusedError(
                "the objects hold no Service, but this node serves some: this would take all of them away",
                hint="look at the input again, or say --allow-empty",
            )
    write(plan, report, choice.variant, output=output, wait_s=wait_s, yes=yes)


def _refuse_unread(inputs: Inputs) -> None:
    """Refuse input of which a part could not be read: it may hold Services that this node serves now."""
    unread = [line for r in inputs.world.rejected if r.object.startswith(r.source) for line in r.lines()]
    if unread:
        raise RefusedError(
            "a part of the input could not be read, and what is not in the input is taken away:\n" + "\n".join(unread),
            hint="mend it; `rulegen plan` shows what the rest comes to",
        )


def _refuse_previews(inputs: Inputs) -> None:
    """Refuse what only a preview may have: addresses that no API server has assigned."""
    assigned = [f"Service {name}: {', '.join(s.assigned)}" for name, s in inputs.model.services.items() if s.assigned]
    if assigned:
        raise InputError(
            ", ".join(inputs.chosen.files),
            "not to be applied, as these were assigned for a preview only:\n" + "\n".join(assigned),
            hint="write clusterIP and nodePort into the manifests, or apply what the API server has",
        )
