"""What a test needs of the user who runs it. Each right is tried: a program that is there may still be refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest

SANDBOX = ("unshare", "--net")
"""Runs a program in a network namespace of its own."""


@cache
def can_run(*argv: str) -> bool:
    """Whether a program is there and may do what it is asked."""
    return shutil.which(argv[0]) is not None and (
        subprocess.run((*argv,), check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None or not can_run(*SANDBOX, "true"),
    reason="needs nginx and the right to make a network namespace",
)
needs_mounts = pytest.mark.skipif(
    not can_run("unshare", "--mount", "true"), reason="needs the right to make a mount namespace"
)
needs_sandbox = pytest.mark.skipif(
    os.geteuid() != 0 or not can_run("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "true"),
    reason="needs root and namespaces of all kinds, as the sandbox of nginx does",
)
