"""Changes in folders are noticed, whatever they are; reading changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rulegen.host.files.notices import FolderNotices

DEEDS: dict[str, Callable[[Path], object]] = {
    "edited": lambda home: (home / "inner" / "file").write_text("other"),
    "added": lambda home: (home / "inner" / "new").touch(),
    "removed": lambda home: (home / "inner" / "file").unlink(),
    "renamed": lambda home: (home / "inner" / "file").rename(home / "inner" / "moved"),
    "moved in": lambda home: (home / "loose").rename(home / "inner" / "file"),
    "the folder is gone": lambda home: shutil.rmtree(home / "inner"),
    "the link is gone": lambda home: (home / "current").unlink(),
    "the link leads elsewhere": lambda home: (home / "new").rename(home / "current"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("text")
    (tmp_path / "loose").touch()
    (tmp_path / "current").symlink_to("inner")
    (tmp_path / "new").symlink_to("other")
    return tmp_path


@pytest.mark.parametrize("deed", DEEDS)
def test_each_change_is_noticed_once(home: Path, deed: str) -> None:
    notices = FolderNotices()
    notices.follow({home: frozenset({"current"}), home / "inner": frozenset()})
    assert not notices.have_changed()
    DEEDS[deed](home)
    assert notices.have_changed()
    assert not notices.have_changed()
    notices.close()


def test_what_is_read_linked_or_elsewhere_is_no_change(home: Path) -> None:
    notices = FolderNotices()
    notices.follow({home: frozenset({"current"}), home / "inner": frozenset(), home / "missing": frozenset()})
    (home / "inner" / "file").read_text()
    os.link(home / "inner" / "file", home / "linked")
    (home / "current").readlink()
    (home / "loose").write_text("text")
    assert not notices.have_changed()
    notices.close()
    (home / "inner" / "file").unlink()
    assert not notices.have_changed()
