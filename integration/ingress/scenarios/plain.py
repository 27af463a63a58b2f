"""The world of those features that one Ingress has for itself: nearly no settings."""

from __future__ import annotations

import json
from collections.abc import Callable

from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, Stage, World
from integration.ingress.objects import Document

PLAIN = World(name="plain", config={"global-allowed-response-headers": "X-All"})


def plain(
    name: str,
    documents: list[Document],
    *asks: Ask,
    then: Callable[[Stage], object] | None = None,
) -> Scenario:
    """Return a scenario of that world."""
    return Scenario(name=name, world=PLAIN, documents=tuple(documents), asks=asks, then=then)


def answering(headers: dict[str, str]) -> dict[str, str]:
    """Return the header that has a backend answer with these headers."""
    return {"X-Lab-Respond": json.dumps(headers)}
