"""The data that the work is measured with: beside the project, or where RULEGEN_SHARED says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RULEGEN_SHARED") or Path(__file__).parents[2] / "shared")


def shared(name: str) -> Path:
    """Return a folder or file of it; the test is skipped, and says so, where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no {name} in {SHARED}: set RULEGEN_SHARED to the folder that holds it")
    return path


def worlds(*needed: str) -> list[Path]:
    """Return the folders of parity worlds that have all the needed files, in order; for parametrising."""
    return sorted(path for path in SHARED.glob("parity/*/") if all((path / name).exists() for name in needed))
