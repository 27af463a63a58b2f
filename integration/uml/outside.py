"""Tests with the mark `uml` run inside a user-mode Linux; for all who look on, they are tests like any other.

A machine is booted at the first of them, by each worker of xdist, and ends with the session. It runs the same pytest on
the same files, is told which test to run, and reports as that pytest does: each phase with outcome, traceback and time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.lab.lab import Unavailable
from integration.uml.machine import Machine, MachineError, is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "uml"
REQUIRE = "RULEGEN_REQUIRE_UML"
"""Variable: where it is 1, a machine that can run no user-mode Linux is a failure."""

_MEMORY_MB = 1024
_LIFETIME_S = 3000
_BOOT_S = 120
_TEST_S = 300
"""Inside; a little less than what the tests have outside."""
_BOOTS = 3

Report = pytest.TestReport


class Inside:
    """The machine of this session, and what is known about it."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._machine: Machine | None = None
        self._boots = 0
        self._refusal = ""

    def reports(self, item: pytest.Item, following: pytest.Item | None) -> list[Report]:
        """Run a test inside and return the reports of its phases."""
        try:
            return list(self._run(item, following))
        except Unavailable as reason:
            if os.environ.get(REQUIRE) == "1":
                return [_failed(item, f"user-mode Linux is required here ({REQUIRE}=1): {reason}")]
            return [_skipped(item, f"no user-mode Linux: {reason}")]
        except MachineError as error:
            self.close()
            return [_failed(item, f"the machine that it runs in: {error}")]

    def _run(self, item: pytest.Item, following: pytest.Item | None) -> Iterator[Report]:
        machine = self._machine or self._boot()
        after = _name(following) if following is not None and is_for_uml(following) else None
        machine.tell(json.dumps({"run": _name(item), "next": after}))
        deadline = time.monotonic() + _TEST_S + 20
        while "done" not in (reported := self._heard(machine, deadline - time.monotonic())):
            hook = self._session.config.hook
            report: Report = hook.pytest_report_from_serializable(config=self._session.config, data=reported["report"])
            report.nodeid = item.nodeid
            yield report
        if not reported["known"]:
            yield _failed(item, "the pytest inside has not found this test")

    def _boot(self) -> Machine:
        if self._refusal:
            raise MachineError(self._refusal)
        if self._boots == _BOOTS:
            raise MachineError(f"it ended {_BOOTS} times; no further is started")
        paths = sorted({str(item.path) for item in self._session.items if is_for_uml(item)})
        argv = [sys.executable, "-m", "integration.uml.inside", *paths, "-o", f"timeout={_TEST_S}"]
        if reruns := self._session.config.getoption("reruns", 0):
            argv += ["--reruns", str(reruns)]
        argv.append("--rootdir")
        kept = {name: value for name, value in os.environ.items() if name.startswith("RULEGEN_")}
        machine = Machine(
            [*argv, str(self._session.config.rootpath)], kept, memory_mb=_MEMORY_MB, lifetime_s=_LIFETIME_S
        )
        self._boots += 1  # a machine that cannot be had at all is none that ended
        self._machine = machine
        reported = self._heard(machine, _BOOT_S)
        if "broken" in reported:
            self._refusal = str(reported["broken"])
            raise MachineError(self._refusal)
        return machine

    @staticmethod
    def _heard(machine: Machine, within_s: float) -> dict[str, Any]:
        line = machine.listen(within_s)
        if line is None:
            raise MachineError(f"it has ended\n{machine.console()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the machine."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None


_INSIDE = pytest.StashKey[Inside]()


def is_for_uml(item: pytest.Item) -> bool:
    """Tell whether a test belongs inside, and we are outside."""
    return not is_inside() and item.get_closest_marker(MARK) is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that belongs inside there, and hand its reports on."""
    if not is_for_uml(item):
        return None
    stash = item.config.stash
    inside = stash.setdefault(_INSIDE, Inside(item.session))
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in inside.reports(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What tests before this one built here, and those behind it do not use, nobody else takes down.
    item.session._setupstate.teardown_exact(nextitem)  # noqa: SLF001 - pytest tells no other way
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the machine."""
    inside = session.config.stash.get(_INSIDE, None)
    if inside is not None:
        inside.close()


def _name(item: pytest.Item) -> str:
    """Return a test's name as it is without xdist, which adds the groups of its worker to it."""
    groups = {str(mark.args[0]) for mark in item.iter_markers("xdist_group")}
    return item.nodeid.removesuffix(f"@{'_'.join(sorted(groups))}")


def _failed(item: pytest.Item, reason: str) -> Report:
    return Report(item.nodeid, item.location, {}, "failed", reason, "call")


def _skipped(item: pytest.Item, reason: str) -> Report:
    path, line, _ = item.location
    return Report(item.nodeid, item.location, {}, "skipped", (path, (line or 0) + 1, f"Skipped: {reason}"), "setup")
