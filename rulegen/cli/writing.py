"""What `apply` and `cleanup` share: show the plan, ask, write, say what was written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rulegen.cli.console import Progress, count, has_colour, note, print_json, print_lines
from rulegen.host.apply import perform, steps
from rulegen.host.runner import run
from rulegen.plan import show

if TYPE_CHECKING:
    from rulegen.host.variant import Variant
    from rulegen.plan.plan import Plan
    from rulegen.plan.show import Report


def write(plan: Plan, report: Report, variant: Variant, *, output: str, wait_s: int, yes: bool) -> None:
    """Show a plan and make it so.

    Raises:
        ApplyError: A write failed; says what was written and what was not.
    """
    if output == "text":
        print_lines(show.text(plan, report, colour=has_colour()))
    work = steps(plan, run, variant, wait_s=wait_s, on_wait=note)
    if work and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm("Make it so?", abort=True, err=True)
    with Progress() as progress:
        perform(work, lambda number, step: progress(f"{number + 1}/{len(work)} {step.title}"))
    if output == "json":
        print_json({**show.json_document(plan, report), "applied": [step.title for step in work]})
    elif work:
        print_lines([f"Applied: {count(len(plan.items), 'change')} in {count(len(work), 'step')}."])
