"""A full disk is named with its file system, and what is needed, wherever nginx first meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rulegen.host.proxy.disk.space import Space, shortage, space

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SCRIPT = """
import ctypes, sys
from pathlib import Path
from rulegen.errors import HostError
from rulegen.host.commands.runner import run
from rulegen.host.nginx.service import NginxService
from tests.host.nginx.examples import configuration

libc = ctypes.CDLL(None, use_errno=True)
for inodes in map(int, sys.argv[2:]):
    disk = Path(sys.argv[1]) / f"disk{inodes}"
    disk.mkdir()
    options = f"size=1m,mode=755,nr_inodes={inodes}".encode()
    assert libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, options) == 0
    service = NginxService(disk / "nginx", run)
    try:
        print(inodes, service.apply(configuration()).action.name)
    except HostError as error:
        print(inodes, error.message, "| hint", error.hint)
    service.drain(5, remove=True)
"""


@needs_root
def test_inodes_that_run_out_at_any_step_are_named(tmp_path):
    """12: while the release is written; 16 to 22: at the start of the supervisor, of nginx, of its logs and folders."""
    sizes = (12, 16, 18, 22)
    argv = ["unshare", "--mount", "--net", sys.executable, "-c", SCRIPT, str(tmp_path), *map(str, sizes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=100)

    lines = ended.stdout.splitlines()
    assert len(lines) == len(sizes), ended.stderr
    for size, line in zip(sizes, lines, strict=True):
        assert f"the file system {tmp_path}/disk{size} (tmpfs) has" in line
        assert f"of {size} inodes free" in line
        assert "apply again" not in line
    assert "a release needs about 0.1 MB and" in lines[0]


def test_a_disk_with_space_lacks_nothing(tmp_path):
    room = space(tmp_path)

    assert room is not None
    assert room.free
    assert str(tmp_path).startswith(room.mount)
    assert (shortage(tmp_path), shortage(tmp_path / "nowhere")) == ("", "")


@pytest.mark.parametrize(
    ("free", "free_inodes", "inodes", "is_full"),
    [(10**6, 5, 10, False), (10**6, 0, 10, True), (0, 5, 10, True), (10**6, 0, 0, False)],
)
def test_a_disk_is_full_without_bytes_or_inodes(free, free_inodes, inodes, is_full):
    assert Space("/", "ext4", free, 10**9, free_inodes, inodes).is_full == is_full
