"""Memory is not given back in these tests: it costs more than what they are about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.hosts import listening_ports
from tests.agent.talking import Place
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi


@pytest.fixture(autouse=True)
def _keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rulegen.agent.services.checks.trim", lambda: None)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def place(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[Place]:
    """An API server that speaks TLS, and nothing in it."""
    with FakeApi(certificate=certificate, token="t", is_prompt=True) as api:
        made = Place.of(api, tmp_path, certificate)
        yield made
        made.cut()


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """Return where servers listen: one that asks for an address that the host has not is refused."""
    return listening_ports(monkeypatch)
