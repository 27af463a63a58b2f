"""Errors if something is not served as written: with --strict, or if it is unknown what an Ingress restricts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import RulegenError
from rulegen.text import counted_noun, listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.errors import Rejected
    from rulegen.plan.show import Report


class NotAsWrittenError(RulegenError):
    """Something is not served as written: with --strict, or an Ingress could not be read; the output says what."""


def refuse_not_as_written(report: Report, *, strict: bool, has_ingresses: bool) -> None:
    """Reject a plan after it was shown.

    Args:
        report: The report for the plan.
        strict: Whether to reject it if anything is not served as written.
        has_ingresses: Whether it serves Ingresses; see `refuse_hidden_hosts`.

    Raises:
        NotAsWrittenError: Something is not served as written, with `strict`; or hosts of an Ingress are unknown.
    """
    if strict and report.deviations:
        reasons = counted_noun(report.deviations, "reason")
        raise NotAsWrittenError(
            f"Ingresses are not served as written, with --strict: the plan lists {reasons}",
            hint="correct the objects, or omit --strict to serve the rest",
        )
    if has_ingresses:
        refuse_hidden_hosts(report.rejected)


def refuse_hidden_hosts(rejected: Iterable[Rejected]) -> None:
    """Raise an error if an Ingress has, or may have, hosts that could not be read.

    Nothing closes these hosts, so requests that the Ingress restricts may reach other Ingresses.

    Raises:
        NotAsWrittenError: There is such an Ingress.
    """
    hiding = [each.object for each in rejected if each.may_hide_hosts]
    if hiding:
        raise NotAsWrittenError(
            f"hosts of Ingresses could not be read, so what they restrict may be open: {listed(hiding)}",
            hint="correct these objects or files",
        )
