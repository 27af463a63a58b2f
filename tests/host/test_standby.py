"""Tools that wait for work do it as those do that are started for it, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.prestarted import Standby
from rulegen.host.commands.runner import Command, MissingToolError
from tests.apiserver.watching import soon

ROOT = Path(__file__).parents[2]
SAYS_WHO = "#!/bin/sh\nread told\necho $told $$ {mark}\n"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool that prints what it has read, its number, and which tool it is."""
    path = tmp_path / "a-nft-restore"
    write(path, "first")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return path


@pytest.fixture
def standby() -> Iterator[Standby]:
    started = Standby(lambda command: "once" not in command.argv)
    yield started
    started.stop()


def write(path: Path, mark: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(SAYS_WHO.format(mark=mark))
    other.chmod(0o755)
    other.replace(path)


def answer_of(standby: Standby, text: str, *arguments: str) -> tuple[str, int, str]:
    """Return what the tool has read, its number and its mark; it was noted before it had read."""
    pids: list[int] = []
    ended = standby.run_noting(Command(("a-nft-restore", *arguments), stdin=f"{text}\n"), pids.append)
    said, pid, mark = ended.stdout.split()
    assert (ended.code, pids) == (0, [int(pid)])
    return said, int(pid), mark


def waiting(standby: Standby) -> list[int]:
    return [process.pid for _, process in standby._waiting.values()]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_next_call_uses_a_waiting_process(standby, tool):
    assert answer_of(standby, "one")[0] == "one"
    (next_one,) = waiting(standby)
    assert answer_of(standby, "two") == ("two", next_one, "first")
    assert waiting(standby) != [next_one]


def test_other_arguments_are_another_process(standby, tool):
    answer_of(standby, "one", "-4")
    answer_of(standby, "two", "-6")
    four, six = waiting(standby)
    assert answer_of(standby, "three", "-6")[1] == six
    assert answer_of(standby, "four", "-4")[1] == four


def test_for_what_comes_once_nobody_waits(standby, tool):
    answer_of(standby, "one", "once")
    assert waiting(standby) == []


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_was_killed_while_it_waited_is_replaced(standby, tool, harm):
    answer_of(standby, "one")
    (pid,) = waiting(standby)
    os.kill(pid, harm)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert answer_of(standby, "two")[1] != pid


def test_after_an_update_the_new_program_is_run(standby, tool):
    answer_of(standby, "one")
    (pid,) = waiting(standby)
    write(tool, "second")
    assert answer_of(standby, "two")[2] == "second"
    assert is_gone(pid)


def test_a_tool_that_was_taken_away_is_missing_at_once(standby, tool):
    answer_of(standby, "one")
    (pid,) = waiting(standby)
    tool.rename(tool.with_name("away"))
    with pytest.raises(MissingToolError):
        answer_of(standby, "two")
    shutil.move(tool.with_name("away"), tool)
    assert answer_of(standby, "three")[0] == "three"
    assert is_gone(pid)


def test_a_failed_start_is_reported_by_the_next_call(standby, tool):
    answer_of(standby, "one")
    tool.write_text("\0")
    with pytest.raises(HostError, match="could not be started"):
        answer_of(standby, "two")


def test_the_end_leaves_no_process(standby, tool):
    answer_of(standby, "one")
    (pid,) = waiting(standby)
    standby.stop()
    assert is_gone(pid)
    answer_of(standby, "two")
    assert waiting(standby) == []


@pytest.mark.not_quick
def test_nobody_waits_for_one_that_was_killed(tool):
    program = (
        "import os, signal\n"
        "from rulegen.host.commands.runner import Command\n"
        "from rulegen.host.commands.prestarted import Standby\n"
        "standby = Standby(lambda _: True)\n"
        "standby.run_noting(Command(('a-nft-restore',), stdin='one\\n'), lambda _: None)\n"
        "print(*(process.pid for _, process in standby._waiting.values()), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert soon(lambda: is_gone(int(ended.stdout)))
