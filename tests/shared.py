"""The data that the work is measured with: beside the project, or where RULEGEN_SHARED says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""What reads YAML that is trusted, in C where PyYAML was built with it."""

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


def each(values: Sequence[Any], what: str) -> Sequence[Any]:
    """Return values for parametrising; where there are none, a single one whose test is skipped and says what lacks."""
    reason = f"no {what} in {SHARED}: set RULEGEN_SHARED to a folder that holds some"
    return values or [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]


def some(values: Sequence[Path], what: str, place: int = 0) -> Path:
    """Return a world by its place, or the last one; the test is skipped, and says so, where there is none."""
    if not values:
        pytest.skip(f"no {what} in {SHARED}: set RULEGEN_SHARED to a folder that holds some")
    return values[min(place, len(values) - 1)]
