"""A plan as text: what stands behind its changes."""

from __future__ import annotations

import pytest

from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.plan import show


def test_notes_on_ingresses_have_their_own_heading() -> None:
    reasons = (
        Reason(None, Verdict.IGNORED, "a", "not a number"),
        Reason(None, Verdict.SKIPPED, "c", "another class"),
        Reason(None, Verdict.NOTE, "b", "expires soon"),
    )
    report = show.Report(node="n", mode="iptables", observed="kernel", reasons=reasons, warnings=("disk full",))
    lines = [line for line in show.notes(report) if line]
    assert lines == [
        "Ingresses that are not served as specified:",
        "  a: not a number",
        "Ingresses that are not selected:",
        "  c: another class",
        "Notes on Ingresses:",
        "  b: expires soon",
        "Warnings:",
        "  disk full",
    ]


@pytest.mark.parametrize("verdict", Verdict)
def test_a_reason_fails_with_strict_if_and_only_if_the_text_says_not_as_written(verdict: Verdict) -> None:
    report = show.Report(node="n", mode="iptables", observed="kernel", reasons=(Reason(None, verdict, "a", "b"),))
    assert ("Ingresses that are not served as specified:" in show.notes(report)) is bool(report.deviations)
    assert "  a: b" in show.notes(report)
