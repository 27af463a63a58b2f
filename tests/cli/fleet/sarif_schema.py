"""Two JSON Schemas of SARIF 2.1.0: one of ours for the part that rulegen writes, and the one that its makers published.

No package of Python contains the published one, but one of npm does. It is fetched, and not kept here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest

from tests.cli.fleet.sarif_subset import SARIF

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE: Final = "@microsoft/jest-sarif@1.0.0-beta.0"
MEMBER: Final = "package/lib/schemas/sarif-2.1.0-rtm.5.json"
SHA256: Final = "2d99159ae54a3eea97f81781cff48780548657c35949f4b7f25e99a2ba4de4f8"
WITHIN_S: Final = 60


def check_sarif(log: Any) -> None:
    """Check a document against our schema: a property that rulegen does not write is an error."""
    jsonschema.Draft202012Validator(SARIF).validate(log)


def published(folder: Path) -> dict[str, Any]:
    """Return the published schema; the test is skipped where it cannot be fetched.

    Args:
        folder: Where the package may be unpacked.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed: the published schema of SARIF is in {PACKAGE}")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), "--cache", str(folder / "cache"), PACKAGE]
    try:
        fetched = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm does not answer: the published schema of SARIF is in {PACKAGE}")
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch {PACKAGE}: {fetched.stderr.strip()[:200]}")
    with tarfile.open(folder / fetched.stdout.strip().splitlines()[-1]) as package:
        member = package.extractfile(MEMBER)
        assert member is not None
        content = member.read()
    assert hashlib.sha256(content).hexdigest() == SHA256
    schema: dict[str, Any] = json.loads(content)
    return schema


def check_published(log: Any, schema: dict[str, Any]) -> None:
    """Check a document against the published schema, with the forms of URIs and times."""
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(log)
