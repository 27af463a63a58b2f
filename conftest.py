"""For all tests: the machine that they run on stays as it is."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.sizes import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# No example fails for the time that it takes: other tests take the processor meanwhile. The second try of a test in a
# class has another instance of that class.
settings.register_profile(
    "rulegen",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("rulegen")

# Collection makes nothing that it drops again: looking for garbage would take a fifth of its time.
gc.disable()

_WATCHED = ("/proc/sys/net/ipv4/conf/all/route_localnet", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")

_NEEDS = {"namespace", "isolated"}
"""Fixtures that need root."""


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `kernel` what is skipped where a right or a program is missing, so that `scripts/quick` leaves it out."""
    for item in items:
        needs = (mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif"))
        if any(reason.startswith("needs ") for reason in needs) or _NEEDS.intersection(item.fixturenames):
            item.add_marker(pytest.mark.kernel)


@pytest.hookimpl(trylast=True)  # after pytest-rerunfailures
def pytest_configure(config: pytest.Config) -> None:
    """Let no worker ask its controller, before each test, how often it has failed: a worker knows.

    The controller would know better only where a worker crashed, and such a test has no second try.
    """
    if hasattr(config, "workerinput") and hasattr(config, "failures_db"):
        from pytest_rerunfailures import StatusDB  # noqa: PLC0415 - it is optional

        config.failures_db.sock.close()
        config.failures_db = StatusDB()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., None]) -> object | None:
    """Spread tests over workers file by file."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.scheduling import FileScheduling  # noqa: PLC0415 - only a process that spreads tests has xdist's part

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


def pytest_collection_finish() -> None:
    """Leave what was collected out of garbage collection: ten thousand tests, which all stay to the end."""
    gc.enable()
    gc.freeze()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:  # not this user's to read, or not of this kernel
        return ""


@pytest.fixture(autouse=True, scope="session")
def _machine() -> Iterator[None]:
    """Fail the last test where rules or kernel parameters of the machine itself were written by any of them."""
    before = [_read(path) for path in _WATCHED]
    yield
    if [_read(path) for path in _WATCHED] != before:
        pytest.fail("a test wrote outside its network namespace")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why a test had a second try: the summary has its name alone."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"first try of {report.nodeid}", sep="_")
        terminalreporter.write_line(report.longreprtext)
