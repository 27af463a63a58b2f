"""What `rulegen plan --ingress -o json` says about objects, whatever its shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def statements(document: Any) -> Iterator[str]:
    """Yield the text of every smallest record of a JSON document.

    That is a string in a list, or a mapping without what is inside of it; with each string of a list of it, if any.
    """
    if isinstance(document, list):
        for element in document:
            if isinstance(element, str):
                yield element
            else:
                yield from statements(element)
    elif isinstance(document, dict):
        own = "\n".join(str(entry) for entry in document.values() if not isinstance(entry, list | dict))
        yield own
        for element in document.values():
            if isinstance(element, list | dict):
                yield from (f"{own}\n{statement}" for statement in statements(element))


def about(document: Any, *texts: str) -> list[str]:
    """Return the statements of a plan that hold all texts."""
    return [statement for statement in statements(document) if all(text in statement for text in texts)]


def shown(document: Any) -> str:
    """Return a plan for a failed test's message, shortened."""
    return json.dumps(document, indent=1)[:6000]
