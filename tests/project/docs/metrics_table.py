"""Writes the table of metrics in docs/run.md from their declarations."""

from __future__ import annotations

import re
import time
from typing import Final

from rulegen.agent.telemetry.metrics import metrics_table
from rulegen.agent.telemetry.state import AgentState
from tests.project.places import ROOT

PAGE: Final = ROOT / "docs/run.md"
_TABLE: Final = re.compile(r"(?<=\n)\| metric \|.*\n(?:\|.*\n)+")


def with_table(page: str) -> str:
    """Return the page with the table as the declarations have it."""
    table = metrics_table(AgentState(time.monotonic).metrics)
    written, count = _TABLE.subn(lambda _: table, page)
    assert count == 1, "docs/run.md has no table of metrics, or several"
    return written


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
