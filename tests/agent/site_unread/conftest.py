"""No wait between two looks at what the API server answers."""

from __future__ import annotations

import pytest

from rulegen.agent.ingress import references


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "LOOK_S", 0.0)
