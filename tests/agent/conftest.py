"""Memory is not given back in these tests: it costs more than what they are about."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rulegen.agent.loop.give_back", lambda: None)
