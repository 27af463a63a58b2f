"""An nginx of its own for each test, in a network namespace of its own, gone afterwards whatever happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rulegen.host.commands.runner import find, run
from rulegen.host.nginx.program import NGINX
from rulegen.host.nginx.service import NginxService
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for nginx; every process that runs in it at the end is ended, by its id."""
    if find("nginx") is None:
        pytest.skip("no nginx")
    path = tmp_path / "nginx"
    yield path
    supervisor = supervision.supervisor_pid(path)
    if supervisor:
        os.kill(supervisor, signal.SIGKILL)
    for _ in range(100):
        left = NGINX.processes(path)
        if not left:
            break
        for process in left:
            process_list.send(process, signal.SIGKILL)
        time.sleep(0.02)
    assert NGINX.processes(path) == ()


@pytest.fixture
def service(folder: Path, namespace: None) -> NginxService:
    return NginxService(folder, run, confirm_s=10)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return a function that waits until a question is answered with yes."""

    def wait(question: Callable[[], object], within_s: float = 10.0) -> None:
        until = time.monotonic() + within_s
        while not question():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.01)

    return wait
