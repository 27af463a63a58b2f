"""A plan as text: what stands behind its changes."""

from __future__ import annotations

from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.plan import show


def test_notes_on_ingresses_have_their_own_heading() -> None:
    reasons = (Reason(None, Verdict.IGNORED, "a", "not a number"), Reason(None, Verdict.NOTE, "b", "expires soon"))
    report = show.Report(node="n", mode="iptables", observed="kernel", reasons=reasons, warnings=("disk full",))
    lines = [line for line in show.notes(report) if line]
    assert lines == [
        "Ingresses that are not served as written:",
        "  a: not a number",
        "Notes on Ingresses:",
        "  b: expires soon",
        "Warnings:",
        "  disk full",
    ]
