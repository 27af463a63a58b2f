"""Common part of `apply` and `cleanup`: show the plan, ask, write, report what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.cli.terminal.consent import has_terminal, require_consent
from rulegen.cli.terminal.console import Progress, folded, has_colour, note, print_json, print_lines
from rulegen.cli.wiring.apply_in_parts import LeftOutError
from rulegen.cli.wiring.strict import NotAsWrittenError
from rulegen.errors import ApplyError, HostError
from rulegen.host.dataplane.apply import perform
from rulegen.plan import show
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.cli.wiring.apply_in_parts import ApartWriter
    from rulegen.host.dataplane.kernel import KernelDataplane
    from rulegen.plan.plan import Plan
    from rulegen.plan.show import Report

    EngineWork = Callable[[], list[str]]
    """Executes the ingress engine's part of a plan; returns the completed actions, one line each."""


def write(
    plan: Plan,
    report: Report,
    dataplane: KernelDataplane | None,
    *,
    output: str,
    yes: bool,
    verbose: bool = False,
    stdin_is_input: bool = False,
    engine_before: EngineWork | None = None,
    engine_after: EngineWork | None = None,
    apart: ApartWriter | None = None,
    refuse: Callable[[], None] | None = None,
) -> None:
    """Show a plan, ask whether to write it, and write it. An empty plan causes no question and no write.

    Args:
        plan: The changes.
        report: The report for the plan.
        dataplane: Writes the changes; None if no rules of Services are planned.
        output: `text` or `json`.
        yes: Whether to skip the question; then only the summary of the plan is shown.
        verbose: Whether to list all changed objects.
        stdin_is_input: Whether objects were read from standard input.
        engine_before: Action on the ingress engine before the rules are written, such as stopping it.
        engine_after: Action after that, such as starting it: addresses of Services then work.
        apart: Writes the rest if the kernel rejects some Services; None to fail as a whole.
        refuse: Raises an error if the plan that was shown must not be written; None to write every plan.

    Raises:
        NotAsWrittenError: `refuse` raised it; nothing was written.
        NoConsentError: There are changes, and no terminal for the question.
        ApplyError: A write failed; the message says what was written and what was not.
        LeftOutError: Some Services were rejected; all others were written.
    """
    _show(plan, report, output=output, yes=yes, verbose=verbose, stdin_is_input=stdin_is_input)
    if refuse is not None:
        _refuse(plan, report, refuse, output=output)
    work = dataplane.steps(plan) if dataplane is not None else ()
    if not plan.is_empty:
        require_consent(yes=yes, stdin_is_input=stdin_is_input)
    name, done, titles = plan.site.engine if plan.site is not None else "", list[str](), [step.title for step in work]
    left_out: dict[str, str] = {}
    with Progress() as progress:
        if not plan.is_empty or yes:
            done += _engine(engine_before, name, [], titles, progress)
            try:
                perform(work, lambda number, step: progress(f"{number + 1}/{len(work)} {step.title}"))
            except HostError as error:
                if apart is None:
                    raise
                left_out = apart.write(error)
                titles = apart.titles
            done += _engine(engine_after, name, titles, [], progress)
    if output == "json":
        _print_applied(plan, report, titles + done, left_out)
    else:
        print_lines([*_summary(plan, titles, left_out), *done])
    if left_out:
        raise LeftOutError(left_out)


def _print_applied(plan: Plan, report: Report, applied: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Print the plan as JSON, with what was applied and which Services were left out."""
    document = {**show.json_document(plan, report), "applied": applied}
    print_json({**document, "leftOut": left_out} if left_out else document)


def _refuse(plan: Plan, report: Report, refuse: Callable[[], None], *, output: str) -> None:
    """Call `refuse`; if it rejects the plan, show the plan as JSON as well."""
    try:
        refuse()
    except NotAsWrittenError:
        if output == "json":
            print_json({**show.json_document(plan, report), "applied": []})
        raise


def _summary(plan: Plan, titles: Sequence[str], left_out: Mapping[str, str]) -> list[str]:
    """Return what was applied, in one line; nothing for an empty plan."""
    if plan.is_empty:
        return []
    writes_engine = plan.site is not None and plan.site.changes_program
    number = counted_noun(len(titles) + writes_engine, "step")
    changes = f"Applied: {counted_noun(len(plan.items), 'change')}"
    written = "Applied all but the rejected Services" if left_out else changes
    return [f"{written} in {number}."]


def _show(plan: Plan, report: Report, *, output: str, yes: bool, verbose: bool, stdin_is_input: bool) -> None:
    """Show the plan as text; with JSON output only before a question, because the user must see what to confirm."""
    small = show.Details.NONE if yes else show.Details.SMALL
    details = show.Details.ALL if verbose else small
    if output == "text":
        lines = show.text(plan, report, colour=has_colour(), details=details)
        print_lines(folded(lines), colour=has_colour())
    elif not (plan.is_empty or yes) and has_terminal(stdin_is_input=stdin_is_input):
        for line in show.text(plan, report, colour=False, details=details):
            note(line)


def _engine(
    work: EngineWork | None, name: str, written: Sequence[str], pending: Sequence[str], progress: Progress
) -> list[str]:
    """Change the ingress engine; an error also says which rules were written."""
    if work is None:
        return []
    progress(f"{name} …")
    try:
        return work()
    except HostError as error:
        applied, unwritten = (error.applied, error.pending) if isinstance(error, ApplyError) else ((), (name,))
        raise ApplyError(
            error.message,
            applied=(*written, *applied),
            pending=(*unwritten, *pending),
            hint=error.hint,
        ) from None
