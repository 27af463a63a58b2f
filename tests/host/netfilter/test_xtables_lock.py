"""The xtables lock is for those who write rules: no other user can hold it and so keep them waiting."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rulegen.host.commands.runner import run
from rulegen.host.netfilter.iptables import restore
from rulegen.host.netfilter.variant import Variant
from rulegen.host.netfilter.xtables_lock import close_to_others
from rulegen.net import Family
from tests.otheruser import NOBODY, as_user, reachable_folder
from tests.rights import needs_root

SCRIPT = "*nat\n:KUBE-A - [0:0]\n-A KUBE-A -j RETURN\nCOMMIT\n"


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with reachable_folder() as folder:
        path = folder / "a.lock"
        monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
        yield path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@needs_root
@pytest.mark.parametrize("before", [None, 0o644, 0o666, 0o600])
def test_after_a_write_no_other_user_can_hold_the_lock(namespace, lock, before):
    if before is not None:
        lock.touch()
        lock.chmod(before)
    old = os.umask(0)
    try:
        restore(run, Variant.LEGACY, Family.IPV4, SCRIPT)
    finally:
        os.umask(old)

    def hold() -> str:
        fcntl.flock(os.open(lock, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "held"

    assert isinstance(as_user(NOBODY, hold), PermissionError)
    assert mode(lock) == 0o600


def test_a_missing_lock_is_made_for_us_alone(lock):
    old = os.umask(0)
    try:
        assert close_to_others() == ""
    finally:
        os.umask(old)

    assert mode(lock) == 0o600


def test_a_missing_lock_is_left_missing_where_nothing_needs_it(lock):
    assert close_to_others(make=False) == ""
    assert not lock.exists()


def test_a_link_is_not_followed(lock, tmp_path):
    other = tmp_path / "other"
    other.touch()
    other.chmod(0o644)
    lock.symlink_to(other)

    assert "cannot be opened" in close_to_others()
    assert mode(other) == 0o644


def test_what_is_no_lock_keeps_its_mode(lock):
    lock.write_text("hosts\n")
    lock.chmod(0o644)

    assert "not empty" in close_to_others()
    assert mode(lock) == 0o644


def test_nobody_waits_for_a_fifo(lock):
    os.mkfifo(lock, 0o644)

    assert "is not a file" in close_to_others()


@needs_root
def test_the_lock_of_another_user_is_reported(lock):
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)

    assert f"belongs to user {NOBODY}" in close_to_others()
