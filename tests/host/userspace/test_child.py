"""A program of the supervisor that cannot be started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rulegen.host.userspace import child
from tests.rights import needs_root

pytestmark = needs_root


def test_a_copy_that_cannot_say_why_it_fails_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(child, "log", fail)
    with Path("/dev/null").open("w") as output:
        release = os.open(tmp_path, os.O_PATH)
        pid = child.spawn([str(tmp_path / "missing")], os.getuid(), release, output.fileno(), {})
    os.close(release)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127
