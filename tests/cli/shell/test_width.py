"""Long lines of a plan are folded for a terminal, between words; elsewhere they stay whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from rulegen.cli.main import cli
from rulegen.cli.terminal.console import folded
from rulegen.cli.terminal.help_text import HelpContext
from tests.cli.test_plan import BLOG, HOST

COLUMNS = 60
RULE = "-d 10.96.0.10/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)


def on_a_terminal(folder: Path, *words: str) -> str:
    """Return what a command prints on a terminal with so many columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-m", "rulegen", *words],
        cwd=folder,
        env=environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,  # has the progress
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal ends with its last program
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    return shown.decode()


@pytest.mark.not_quick
def test_a_plan_fits_the_terminal_and_no_word_is_broken(tmp_path):
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "host").write_text(HOST)
    words = ("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none", "-v", "--no-pager")
    lines = re.sub(r"\033\[[0-9]*[mK]", "", on_a_terminal(tmp_path, *words)).replace("\r", "").splitlines()
    assert [line for line in lines if len(line) > COLUMNS and " " in line.strip()] == []
    assert RULE in re.sub(r"\n +", " ", "\n".join(lines)), "the rule is there, on several lines"


def test_a_long_line_is_folded_and_indented_further(terminal):
    line = "  - " + "word " * 20 + "end"
    parts = list(folded([line, "short"]))
    assert parts[-1] == "short"
    assert all(len(part) <= COLUMNS for part in parts)
    assert [part[:6] for part in parts[1:-1]] == ["      "] * (len(parts) - 2)
    assert " ".join(part.strip() for part in parts[:-1]) == line.strip()


def test_a_word_that_is_longer_than_the_terminal_stays_whole(terminal):
    long = "x" * 3 * COLUMNS
    assert list(folded([f"a line {long} and more"]))[1].strip() == long


def test_a_colour_ends_with_each_part_and_begins_again(terminal):
    green, none = "\033[32m", "\033[0m"
    first, second = folded([f"{green}{'word ' * 14}{none}".replace(f" {none}", none)])
    assert first.startswith(green)
    assert first.endswith(none)
    assert second.startswith(f"    {green}word")
    assert second.endswith(none)
    assert len(first.replace(green, "").replace(none, "")) <= COLUMNS, "sequences for colours have no width"


@pytest.mark.parametrize("width", [60, 80])
def test_help_breaks_no_word_at_a_hyphen(width):
    group = cli.context_class(cli, info_name="rulegen", terminal_width=width, **cli.context_settings)
    for name in ("", *cli.list_commands(group)):
        command = cli.get_command(group, name) if name else cli
        context = command.context_class(command, parent=group if name else None, info_name=name or "rulegen")
        context.terminal_width = width
        broken = [line for line in command.get_help(context).splitlines() if re.search(r"\w-$", line)]
        assert broken == [], name


def test_help_lists_options_in_groups():
    group = cli.context_class(cli, info_name="rulegen", **cli.context_settings)
    text = cli.get_command(group, "plan").get_help(HelpContext(cli.get_command(group, "plan"), parent=group))
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == ["Options", "Objects", "Node and Services", "Ingresses"]
    parts = dict(zip(headings, re.split(r"^\S.*:$", text, flags=re.MULTILINE)[1:], strict=True))
    for heading, option in (("Options", "--out "), ("Objects", "-f,"), ("Ingresses", "--nginx-dir")):
        assert option in parts[heading]


def test_a_pipe_gets_whole_lines():
    line = "word " * 200
    assert list(folded([line])) == [line]
