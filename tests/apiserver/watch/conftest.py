"""An API server of ours, a watch of it, and what the watch says; without any configuration of this user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rulegen.apiserver.watch import Watch
from tests.apiserver.watching import Consumer, fast, soon
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as fake:
        yield fake


@pytest.fixture
def seen() -> Consumer:
    return Consumer()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def watch(api, tmp_path, seen, warnings) -> Iterator[Callable[..., Watch]]:
    """Start to watch, and end that with the test."""
    begun: list[Watch] = []

    def begin(*, is_synced: bool = True, timing: dict[str, Any] | None = None, **options: Any) -> Watch:
        options["kubeconfig"] = options.get("kubeconfig") or api.kubeconfig(tmp_path)
        begun.append(Watch(seen, warn=warnings.append, timing=fast(**(timing or {})), **options))
        begun[-1].start()
        assert not is_synced or soon(lambda: begun[-1].has_synced)
        return begun[-1]

    yield begin
    ends = [each.stop() for each in begun]
    assert all(ends)
