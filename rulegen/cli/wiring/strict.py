"""The error of --strict if something is not served as specified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import RulegenError
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from rulegen.plan.show import Report


class NotAsWrittenError(RulegenError):
    """With --strict: something is not served as specified; the output says what."""


def refuse_not_as_written(report: Report, *, strict: bool) -> None:
    """Reject a plan after it was shown, if something is not served as specified.

    Args:
        report: The report for the plan.
        strict: Whether to reject it; otherwise the plan only reports this.

    Raises:
        NotAsWrittenError: Something is not served as specified.
    """
    if strict and report.deviations:
        reasons = counted_noun(report.deviations, "reason")
        raise NotAsWrittenError(
            f"--strict: Ingresses are not served as specified; the plan lists {reasons}",
            hint="correct the objects, or omit --strict to serve the rest",
        )
