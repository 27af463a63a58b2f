"""Where things are, and how the project's own programs are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rulegen"


def run(*argv: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code, with some variables set; an empty one is unset."""
    variables = {**os.environ, **environment}
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={name: value for name, value in variables.items() if value},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def rulegen(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command of this checkout."""
    return run(sys.executable, "-W", "error", "-m", "rulegen", *arguments, **environment)
