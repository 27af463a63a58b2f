"""Style, format, types and layers are part of the tests."""

from __future__ import annotations

import sys

from tests.project.places import ROOT, run


def test_style_format_types_and_layers_hold() -> None:
    """What `make check` says."""
    done = run("sh", ROOT / "scripts" / "check", RULEGEN_PYTHON=sys.executable)

    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
