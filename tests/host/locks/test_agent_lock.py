"""The lock of an agent: another process is refused and named, and whoever is killed holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.locks.agent_lock import AgentLock, AgentTwiceError
from rulegen.host.locks.file_locks import locked_or_not

HOLD = """
import sys, pathlib
from rulegen.host.locks.agent_lock import AgentLock
AgentLock(pathlib.Path(sys.argv[1]), "agent.lock", "it").take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[AgentLock]:
    lock = AgentLock(tmp_path / "run", "agent.lock", "the nginx of a folder")
    yield lock
    lock.release()


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that has the lock."""
    argv = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_process_is_named_and_once_killed_holds_nothing(lock, tmp_path, monkeypatch):
    monkeypatch.setattr("rulegen.host.locks.agent_lock._PATIENCE_S", 0.0)
    with holder(tmp_path / "run") as process:
        with pytest.raises(
            AgentTwiceError, match=f"another agent, process {process.pid}, already manages the nginx of a folder"
        ):
            lock.take()
        assert not lock.is_held
    lock.take()
    assert lock.is_held


@pytest.mark.not_quick
def test_one_that_ends_within_a_moment_is_waited_for(lock, tmp_path):
    with holder(tmp_path / "run") as process:
        assert process.stdin is not None
        process.stdin.close()
        lock.take()
    assert lock.is_held


def test_a_folder_that_was_deleted_is_locked_again(lock, tmp_path, monkeypatch):
    monkeypatch.setattr("rulegen.host.locks.agent_lock._PATIENCE_S", 0.0)
    lock.take()
    (tmp_path / "run" / "agent.lock").unlink()
    lock.take()
    other = AgentLock(tmp_path / "run", "agent.lock", "it")
    with pytest.raises(AgentTwiceError, match=f"process {os.getpid()}"):
        other.take()


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_in_a_folder_that_others_can_write_to_nothing_is_locked(lock, tmp_path, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(HostError, match="may be written to by others"):
        lock.take()
    assert not lock.is_held


def test_other_users_cannot_open_it(lock, tmp_path):
    lock.take()
    assert (tmp_path / "run" / "agent.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.not_quick
def test_locks_of_killed_agents_are_deleted_and_those_of_others_are_not(tmp_path):
    folder = tmp_path / "run"
    with holder(folder):
        for name in ("services-1.lock", "services-2.lock", "other-1.lock"):
            (folder / name).write_text("4711\n")
        with locked_or_not(folder / "services-2.lock"):
            lock = AgentLock(folder, "services-3.lock", "it", similar="services-[0-9]*.lock")
            lock.take()
            names = {path.name for path in folder.iterdir()}
        lock.release()
    assert names == {"services-2.lock", "services-3.lock", "other-1.lock", "agent.lock"}
