"""What `rulegen plan --ingress -o json` says about objects, whatever its shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def statements(document: Any) -> Iterator[str]:
    """Yield the text of every smallest record of a JSON document: a string in a list, or a mapping without mappings."""
    if isinstance(document, list):
        for one in document:
            if isinstance(one, str):
                yield one
            else:
                yield from statements(one)
    elif isinstance(document, dict):
        inner = [one for one in document.values() if _holds_mappings(one)]
        for one in inner:
            yield from statements(one)
        plain = {key: one for key, one in document.items() if not _holds_mappings(one)}
        if plain:
            yield "\n".join(str(one) for one in plain.values())


def _holds_mappings(document: Any) -> bool:
    if isinstance(document, list):
        return any(_holds_mappings(one) for one in document)
    return isinstance(document, dict) and bool(document)


def about(document: Any, *texts: str) -> list[str]:
    """Return the statements of a plan that hold all texts."""
    return [told for told in statements(document) if all(text in told for text in texts)]


def shown(document: Any) -> str:
    """Return a plan for a failed test's message, shortened."""
    return json.dumps(document, indent=1)[:6000]
