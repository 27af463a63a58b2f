"""Under load, changes go over the socket of a running HAProxy: no request fails, and nothing is reloaded.

With RULEGEN_FULL=1, there are 200 changes of endpoints, 20 hosts, 20 paths, 20 certificates, and 10 paths to Service
ports that had no backend.
"""

from __future__ import annotations

import http.client
import os
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.kube.objects.kinds import KubeObject
from tests.host.haproxy.running import POD, PORTS, answers, ask, is_as_on_disk, restart, web, workers
from tests.rights import needs_root
from tests.strategies.ingresses import endpoints, ingress, path, rule, service, site, tls, tls_secret

FULL = bool(os.environ.get("RULEGEN_FULL"))
ENDPOINTS, HOSTS, PATHS, CERTIFICATES, PORTS_ADDED = (200, 20, 20, 20, 10) if FULL else (24, 3, 12, 3, 4)
KINDS = (
    {"rewrite-target": "/new{}"},
    {"temporal-redirect": "https://new{}.test/"},
    {"proxy-read-timeout": "{}"},
    {"enable-cors": "true", "cors-allow-origin": "https://new{}.test"},
    {"whitelist-source-range": "127.0.0.0/8,10.{}.0.0/16"},
    {},
)
STATUS = {"temporal-redirect": 302}
pytestmark = [pytest.mark.slow, needs_root, *([pytest.mark.timeout(1800)] if FULL else [])]


def _of_kind(number: int) -> tuple[list[KubeObject], int]:
    """Return a host with its Ingress, which has an annotation of a kind in use with another value, and its status."""
    annotations = {key: text.format(number + 10) for key, text in KINDS[number % len(KINDS)].items()}
    host = f"kind{number}.test"
    objects = [ingress(host, rule(host), annotations=annotations)]
    if not annotations:
        weight = {"canary": "true", "canary-weight": str(number + 1)}
        objects.append(ingress(f"canary-{host}", rule(host), annotations=weight))
    return objects, next((STATUS[key] for key in annotations if key in STATUS), 200)


def _service(number: int) -> list[KubeObject]:
    name = f"web{number}"
    return [service(name), endpoints(name, [POD.format(100 + number)], ports=PORTS), _site_of(name)]


def _site_of(name: str) -> KubeObject:
    return ingress(name, rule(f"{name}.test", path(to=name)))


class _Load:
    """Clients that ask without a pause, until they are stopped."""

    def __init__(self, *hosts: str) -> None:
        self.results: list[object] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(host,)) for host in hosts]
        for thread in self._threads:
            thread.start()

    def _ask(self, host: str) -> None:
        while not self._ended.is_set():
            try:
                self.results.append(ask(host)[0])
            except (OSError, http.client.HTTPException) as error:
                self.results.append(error)

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_changes_under_load_fail_no_request_and_reload_nothing(serve, engine):
    fixed = [each for number in range(len(KINDS)) for each in _of_kind(number)[0]]
    fixed += [each for number in range(4) for each in _service(number)]
    assert serve(*web(1, 2), site(), *fixed) is DeployAction.STARTED
    before = workers(engine)
    load = _Load("site.test", "kind0.test", "kind3.test", "web1.test")
    actions: list[DeployAction] = []
    times: dict[str, list[float]] = {}
    wrong: list[object] = []

    def change(what: str, *objects: KubeObject) -> None:
        began = time.monotonic()
        actions.append(serve(*objects))
        times.setdefault(what, []).append(time.monotonic() - began)

    objects: list[KubeObject] = list(fixed)
    try:
        for what, host, status, new in _events():
            objects += new
            change(what, *web(1, 2), site(), *objects)
            if host and (got := ask(host)[0]) != status:
                wrong.append((host, got, status))
        for number in range(ENDPOINTS):
            change("endpoints", *web(number % 90 + 2, number % 90 + 3), site(), *objects)
    finally:
        load.stop()
    for what, seconds in times.items():
        print(f"{what}: {len(seconds)} changes, median {1000 * statistics.median(seconds):.0f} ms")

    assert len(load.results) > 50
    assert set(load.results) == {200}
    assert wrong == []
    assert set(actions) == {DeployAction.UPDATED}
    assert workers(engine) == before
    last = (ENDPOINTS - 1) % 90
    assert is_as_on_disk(engine)
    restart(engine)
    assert answers() == {POD.format(last + 2), POD.format(last + 3)}
    assert [host for _, host, status, _ in _events() if host and ask(host)[0] != status] == []
    assert is_as_on_disk(engine)


def _events() -> Iterator[tuple[str, str, int, list[KubeObject]]]:
    """Yield changes: what each is, a host that answers afterwards, its status, and the objects that are added."""
    for number in range(HOSTS):
        yield "host", f"host{number}.test", 200, [ingress(f"host{number}", rule(f"host{number}.test"))]
    for number in range(len(KINDS), len(KINDS) + PATHS):
        objects, status = _of_kind(number)
        yield "path", f"kind{number}.test", status, objects
    for number in range(CERTIFICATES):
        host = f"safe{number}.test"
        secured = ingress(host, rule(host), tls=[tls(f"safe{number}", host)], annotations={"ssl-redirect": "false"})
        yield "certificate", host, 200, [secured, tls_secret(f"safe{number}", host)]
    for number in range(10, 10 + PORTS_ADDED):
        yield "Service port", f"web{number}.test", 200, _service(number)
