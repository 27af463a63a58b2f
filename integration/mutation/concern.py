"""What is mutated, and which tests a mutant of it concerns."""

from __future__ import annotations

import random
from pathlib import Path

from integration.mutation.mutants import Mutant, mutants

PARTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "compiler": (40, ("rulegen/compiler", "rulegen/road")),
    "backends": (40, ("rulegen/backends",)),
    "diff": (20, ("rulegen/diff", "rulegen/diff.py", "rulegen/plan", "rulegen/languages")),
}
"""Share of all mutants in percent, and the folders, by all names that they have had."""

LAWS = ("tests/test_laws.py", "tests/test_ipvs_laws.py", "tests/test_guards.py")
SERVICES = (
    "tests/backends/test_ipvs.py",
    "tests/compiler/services",
    "tests/compiler/test_services.py",
    "tests/compiler/test_rule_text.py",
)
EVERYWHERE = ("tests/plan", "tests/compiler", "tests/road", "tests/cli/test_plan.py", "tests/cli/test_export_folder.py")
AGENT = (
    "tests/agent/services/test_ipvs_loop.py",
    "tests/agent/services/test_writer.py",
    "tests/agent/services/test_left_out.py",
)
NEAR: dict[str, tuple[str, ...]] = {
    "ingress": (
        "tests/host/nginx/test_quarantine.py",
        "tests/compiler",
        "tests/road",
        "tests/backends",
        "tests/model/ingress",
        "tests/cli/ingress/test_ingress.py",
        "tests/cli/test_ingress.py",
        "tests/cli/ingress/test_engine.py",
    ),
    "nginx": ("tests/backends", "tests/languages", "tests/compiler", "tests/road", "tests/plan"),
}
"""Tests by a word of the path of what is mutated; all else is of Services."""


def sample(root: Path, number: int, seed: int) -> list[Mutant]:
    """Return so many mutants, the same ones for the same code and seed."""
    chosen: list[Mutant] = []
    for part, (share, names) in PARTS.items():
        files = sorted({file for name in names for file in _files(root / name)})
        if part == "diff":  # nginx's language has no diff: it is written as a whole
            files = [file for file in files if "nginx" not in file.parts]
        every = [m for file in files for m in mutants(str(file.relative_to(root)), file.read_bytes())]
        wanted = round(number * share / 100)
        chosen += random.Random(seed).sample(every, min(wanted, len(every)))
    return chosen


def concerned_tests(root: Path, mutant: Mutant) -> list[str]:
    """Return the tests that a mutant concerns, the nearest first, by what is there."""
    words = Path(mutant.path).parts
    near = next((paths for word, paths in NEAR.items() if word in words), None)
    paths = near or (*SERVICES, *EVERYWHERE, *LAWS, "tests/languages", "tests/parity", "tests/flows", *AGENT)
    return [path for path in dict.fromkeys(paths) if (root / path).exists()]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return list(path.rglob("*.py"))
    return [path] if path.exists() else []
