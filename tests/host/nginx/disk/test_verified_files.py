"""Files that were read once are not read for the next release; one that somebody changed since is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rulegen.host.proxy.disk import verified_files
from rulegen.host.proxy.disk.release_files import WantedFile
from rulegen.host.proxy.disk.verified_files import VerifiedFiles
from rulegen.host.proxy.disk.writing import write_new

NAME = "hosts/0123456789abcdef.conf"
LONG_AGO_NS = 10**18


class Stage:
    """A folder with one file of a release, written long ago, and how often it is read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / NAME.partition("/")[2]
        self.file = WantedFile(b"server {}", 0o600, os.getegid())
        self.verified, self.read = VerifiedFiles(), 0
        self.write(self.file.content)
        self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        held = verified_files.holds

        def holds(*arguments: object, **named: object) -> os.stat_result | None:
            self.read += 1
            return held(*arguments, **named)

        monkeypatch.setattr(verified_files, "holds", holds)

    def write(self, content: bytes) -> None:
        self.path.unlink(missing_ok=True)
        write_new(self.path, content, 0o600, os.getegid())
        os.utime(self.path, ns=(LONG_AGO_NS, LONG_AGO_NS))

    def holds(self, **changes: object) -> bool:
        return self.verified.holds(NAME, self.file._replace(**changes), {"hosts": self.descriptor})


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    os.close(stage.descriptor)


def test_a_file_that_nobody_touched_is_read_once(stage):
    assert [stage.holds(), stage.holds(), stage.holds()] == [True] * 3
    assert stage.read == 1


def test_a_link_more_or_less_means_nothing(stage, tmp_path):
    assert stage.holds()
    os.link(stage.path, tmp_path / "other")
    assert stage.holds()
    assert stage.read == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"server []"),
        lambda path: path.write_bytes(b"server"),
        lambda path: path.chmod(0o644),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), os.mkfifo(path, 0o600)),
    ],
    ids=["same size", "another size", "other rights", "gone", "a link", "a FIFO"],
)
def test_a_file_that_somebody_changed_does_not_hold(stage, spoil: Callable[[Path], object]):
    assert stage.holds()
    spoil(stage.path)
    assert not stage.holds()


def test_a_file_that_was_read_with_other_bytes_is_read_again(stage):
    """Its status alone says nothing any more: bytes may change without it (`touch -r`, a disk that fails)."""
    assert stage.holds()
    stage.path.write_bytes(b"server []")
    os.utime(stage.path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert not stage.verified.reads(NAME, stage.file, {"hosts": stage.descriptor})
    assert not stage.holds()


def test_another_file_with_the_same_bytes_and_time_is_read(stage):
    assert stage.holds()
    stage.path.rename(stage.path.with_suffix(".old"))
    stage.write(stage.file.content)
    assert stage.holds()
    assert stage.read == 2


def test_other_bytes_are_wanted_and_the_file_does_not_hold_them(stage):
    assert stage.holds()
    assert not stage.holds(written=b"server []")
    assert not stage.holds(mode=0o640)


def test_a_file_written_only_now_is_read_again(stage):
    """Its time may stand still while other bytes are written."""
    os.utime(stage.path)
    assert [stage.holds(), stage.holds()] == [True, True]
    assert stage.read == 2


def test_names_of_no_release_are_forgotten(stage):
    assert stage.holds()
    stage.verified.keep([])
    assert stage.holds()
    assert stage.read == 2
