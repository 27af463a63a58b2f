"""The JSON Schema of SARIF 2.1.0, as its makers have published it.

It forbids properties that it does not name, so a misspelled one is an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

FILE = Path(__file__).parent / "sarif-2.1.0-rtm.5.json"


def check_sarif(log: Any) -> None:
    """Check a document against the schema, with the forms of URIs and times."""
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(log)
