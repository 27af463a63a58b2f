"""An HAProxy of its own for each test, in a network namespace of its own, gone afterwards whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.host.commands.runner import find, run
from rulegen.host.haproxy.engine import HaproxyEngine
from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.service import ProxyService
from rulegen.kube.objects.kinds import KubeObject
from rulegen.model.ingress.defaults import HttpHost
from tests.host.haproxy.running import BACKEND, HTTP, HTTPS, Pod, Pods, Serve
from tests.strategies.ingresses import options, world


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for HAProxy; every process that runs in it at the end is ended, by its id."""
    if find("haproxy") is None:
        pytest.skip("not installed: haproxy")
    path = tmp_path / "haproxy"
    yield path
    supervisor = supervision.supervisor_pid(path)
    if supervisor:
        os.kill(supervisor, signal.SIGKILL)
    for _ in range(100):
        left = HAPROXY.processes(path)
        if not left:
            break
        for process in left:
            process_list.send(process, signal.SIGKILL)
        time.sleep(0.02)
    assert HAPROXY.processes(path) == ()


@pytest.fixture
def service(folder: Path, namespace: None) -> ProxyService:
    return ProxyService(folder, run, HAPROXY, confirm_s=10)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return a function that waits until a question is answered with yes."""

    def wait(question: Callable[[], object], within_s: float = 10.0) -> None:
        until = time.monotonic() + within_s
        while not question():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def pods(namespace: None) -> Iterator[None]:
    """Have an HTTP server at every address of 10.244.0.0/16."""
    subprocess.run(["ip", "addr", "add", "10.244.0.1/16", "dev", "lo"], check=True)
    with Pods(("0.0.0.0", BACKEND), Pod) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.fixture
def engine(service, pods) -> HaproxyEngine:
    host = HttpHost(user="haproxy haproxy", http_port=HTTP, https_port=HTTPS, ipv6=False)
    return HaproxyEngine(service, options(host=host))


@pytest.fixture
def serve(engine) -> Serve:
    """Return a function that serves objects as the agent does."""
    last = []

    def call(*objects: KubeObject) -> DeployAction:
        chosen = engine.check(world(*objects), engine.observe(), last[-1] if last else None)
        last.append(chosen)
        return engine.deploy(chosen).action

    return call
