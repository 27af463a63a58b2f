"""The option --strict: an error if something is not served as written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import RulegenError
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from rulegen.plan.show import Report


class NotAsWrittenError(RulegenError):
    """Something is not served as written, with --strict; the plan says what."""


def refuse_deviations(report: Report, *, strict: bool) -> None:
    """Reject a plan, once it is shown, if --strict is given and something is not served as written.

    Raises:
        NotAsWrittenError: So it is.
    """
    if strict and report.deviations:
        reasons = counted_noun(report.deviations, "reason")
        raise NotAsWrittenError(
            f"Ingresses are not served as written, with --strict: the plan lists {reasons}",
            hint="correct the objects, or omit --strict to serve the rest",
        )
