"""`python -m integration.uml.inside PATH ...`: pytest that runs the tests that it is told, one by one, and reports.

It is told and it reports in lines of JSON: `{"run": NODEID, "next": NODEID}` makes it answer `{"report": …}` for each
phase and then `{"done": NODEID}`. All that it prints goes to standard error.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

OUTSIDE = Path("/run/outside")
_LOOK_S = 0.01


def report_lines() -> Iterator[str]:
    """Yield what is told from outside, as it comes. For ever: who tells ends the machine."""
    for number in itertools.count(1):
        path = OUTSIDE / f"told-{number}"
        while not path.exists():
            time.sleep(_LOOK_S)
        yield path.read_text()


class Serving:
    """A loop over tests whose order is told from outside."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._config: pytest.Config | None = None

    def _tell(self, **what: object) -> None:
        line = json.dumps(what).encode() + b"\n"
        while line:
            line = line[os.write(self._reports, line) :]
        os.fsync(self._reports)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Keep what encodes reports."""
        self._config = config

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell what could not be imported: the tests of it will be missing."""
        if report.failed:
            self._tell(broken=report.longreprtext)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what is told until there is no more."""
        items = {item.nodeid: item for item in session.items}
        self._tell(ready=len(items))
        for line in report_lines():
            asked = json.loads(line)
            item = items.get(asked["run"])
            if item is not None:
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=items.get(asked["next"]))
            self._tell(done=asked["run"], known=item is not None)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell the outcome of a phase."""
        assert self._config is not None
        self._tell(report=self._config.hook.pytest_report_to_serializable(config=self._config, report=report))


def main(arguments: list[str]) -> int:
    """Serve; what pytest and the tests print goes to standard error."""
    # A copy: pytest puts another in the place of 1 to capture what tests print.
    reports = os.dup(1)
    os.dup2(2, 1)
    return int(pytest.main([*arguments, "-p", "no:cacheprovider"], plugins=[Serving(reports)]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
