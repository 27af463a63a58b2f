"""When a plan has colours: on a terminal that has them, or if FORCE_COLOR asks for them; never with NO_COLOR."""

from __future__ import annotations

import sys

import pytest

from tests.cli.test_plan import folder, run  # noqa: F401 - fixtures

PLAN = ("plan", "-f", "blog.yaml", "--observed", "none", "--host", "host", "--no-pager")


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize(
    ("variables", "on_terminal", "in_pipe"),
    [
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
        ({"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
    ids=str,
)
def test_colours(run, monkeypatch, is_terminal, variables, on_terminal, in_pipe):  # noqa: F811 - the fixture
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    code, out, _ = run(*PLAN)
    assert (code, "\033[" in out) == (0, on_terminal if is_terminal else in_pipe)
