"""What `apply` and `cleanup` share: show the plan, ask, write, say what was written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rulegen.cli.console import Progress, count, has_colour, note, print_json, print_lines
from rulegen.errors import ApplyError
from rulegen.host.apply import perform, steps
from rulegen.host.runner import run
from rulegen.plan import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.cli.ingress import IngressInputs
    from rulegen.host.apply import Step
    from rulegen.host.variant import Variant
    from rulegen.plan.plan import Plan
    from rulegen.plan.show import Report


def write(
    plan: Plan,
    report: Report,
    variant: Variant | None,
    *,
    output: str,
    wait_s: int,
    yes: bool,
    ingress: IngressInputs | None = None,
) -> None:
    """Show a plan and make it so.

    Services come first: nginx then finds their addresses working.

    Args:
        plan: What changes.
        report: What goes with it.
        variant: Whose iptables; None where no rule is planned.
        output: `text` or `json`.
        wait_s: How long to wait for the xtables lock.
        yes: Whether not to ask.
        ingress: What nginx is to serve; None where it is left alone.

    Raises:
        ApplyError: A write failed; says what was written and what was not.
    """
    if output == "text":
        print_lines(show.text(plan, report, colour=has_colour()))
    work = steps(plan, run, variant, wait_s=wait_s, on_wait=note) if variant is not None else ()
    must_reload = ingress is not None and ingress.plan.reload
    if (work or must_reload) and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm("Make it so?", abort=True, err=True)
    with Progress() as progress:
        perform(work, lambda number, step: progress(f"{number + 1}/{len(work)} {step.title}"))
        served = _serve(ingress, work, progress)
    if output == "json":
        print_json({**show.json_document(plan, report), "applied": [step.title for step in work] + served})
    elif work or must_reload:
        number = count(len(work) + must_reload, "step")
        print_lines([f"Applied: {count(len(plan.items), 'change')} in {number}.", *served])
    else:
        print_lines(served)


def _serve(ingress: IngressInputs | None, work: Sequence[Step], progress: Progress) -> list[str]:
    """Have nginx serve what is planned, or make sure that it does where nothing has changed."""
    if ingress is None:
        return []
    progress("having nginx serve it …")
    try:
        return ingress.apply()
    except ApplyError as error:
        raise ApplyError(
            error.message,
            applied=(*(step.title for step in work), *error.applied),
            pending=error.pending,
            hint=error.hint,
        ) from None
