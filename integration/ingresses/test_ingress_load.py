"""Changes under load: while clients ask without pause, nothing that is applied costs a single request.

`RULEGEN_TEST_SIZE=full` is two minutes of it: 100 changes of endpoints and 20 of Ingresses in two minutes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress import certificates, objects, spaces
from integration.ingress.asking import Request
from integration.ingress.lab import PROGRAMS, PYTHON
from tests.sizes import sized

if TYPE_CHECKING:
    import socket

    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node
    from integration.ingress.objects import Document

pytestmark = pytest.mark.xdist_group("ingress-0")

SECONDS = sized(quick=5.0, usual=10.0, full=120.0)
ENDPOINT_CHANGES = max(10, round(SECONDS * 100 / 120))
INGRESS_CHANGES = max(4, round(SECONDS * 20 / 120))
PAUSE_S = sized(quick=0.04, usual=0.04, full=0.004)
"""Between two requests of one of the nine clients."""
SERVICES = 3
ENDPOINTS = 3


class World:
    """Some hosts with a Service each, and the changes that they go through."""

    def __init__(self, lab: IngressLab) -> None:
        self._lab = lab
        self._numbers = count(ENDPOINTS + 1)
        self._paths = ["/"]
        self._pods = {k: [self._address(k, n) for n in range(1, ENDPOINTS + 1)] for k in range(SERVICES)}
        self._certificate = certificates.certificate("load.test", [self.host(k) for k in range(SERVICES)])

    @staticmethod
    def host(number: int) -> str:
        return f"load-{number}.test"

    @staticmethod
    def _address(service: int, number: int) -> str:
        return f"10.244.{20 + service}.{number % 250 + 1}"

    def hosts(self) -> list[str]:
        """Return each host with how the addresses of its pods begin."""
        return [f"{self.host(k)}=10.244.{20 + k}." for k in range(SERVICES)]

    def documents(self) -> list[Document]:
        """Return all objects as they are now."""
        data = {"tls.crt": self._certificate, "tls.key": certificates.key_pem()}
        world = [objects.ingress_class(), objects.secret("cert", "kubernetes.io/tls", data)]
        for k, pods in self._pods.items():
            annotations = {"ssl-redirect": "false"}
            world += [
                objects.ingress(
                    f"i{k}", self.host(k), f"s{k}", secret="cert", annotations=annotations, paths=self._paths
                ),
                objects.service(f"s{k}", f"10.96.20.{k + 1}"),
                objects.endpoint_slice(f"s{k}", pods),
            ]
        return world

    def change_endpoints(self, number: int) -> None:
        """Replace a pod of one Service: every other time it has died before anybody is told."""
        service = number % SERVICES
        gone = self._pods[service].pop(0)
        self._pods[service].append(self._address(service, next(self._numbers)))
        if number % 2:
            refuse(self._lab, gone)

    def change_ingresses(self, number: int) -> None:
        """Add a path to every Ingress, or take it away."""
        self._paths = ["/"] if len(self._paths) > 1 else ["/", f"/more-{number}"]


def refuse(lab: IngressLab, address: str) -> None:
    """Have a pod refuse connections and break those it has, as one that died."""
    pods = lab.hosts["pods"]
    reject = ["-d", address, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
    pods.run(["iptables-nft", "-I", "INPUT", *reject]).check()


@contextmanager
def loaded(lab: IngressLab, hosts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Ask all the time; what came of it is in the dictionary afterwards."""
    stop = lab.folder / "stop-load"
    stop.unlink(missing_ok=True)
    collected: dict[str, Any] = {}
    running = lab.hosts["client"].popen(
        [*PYTHON, str(PROGRAMS / "load.py"), str(stop), spaces.NODE, str(PAUSE_S), *hosts]
    )
    try:
        yield collected
    finally:
        stop.touch()
        done = running.wait(30)
    collected |= json.loads(done.check().stdout)


@pytest.fixture
def node(ingress_lab: IngressLab) -> Iterator[Node]:
    """Give the node with rules for Services too, as backups of upstreams need them; clean it up afterwards."""
    with ingress_lab.served_apart("load", services=True) as node:
        yield node


def _reloads(node: Node) -> int:
    """Return how often nginx has read its configuration anew, by its own log."""
    return node.log().count("(SIGHUP) received")


def test_no_change_costs_a_request(ingress_lab: IngressLab, node: Node, record_property: Any) -> None:
    world = World(ingress_lab)
    node.apply(world.documents())
    before = _reloads(node)
    changes = [("endpoints", n) for n in range(ENDPOINT_CHANGES)]
    every = len(changes) // INGRESS_CHANGES
    for n in range(INGRESS_CHANGES):
        changes.insert(n * (every + 1), ("ingresses", n))
    websocket = open_websocket(ingress_lab, World.host(0))
    applied_s = []
    with loaded(ingress_lab, world.hosts()) as results:
        time.sleep(0.5)
        start = time.monotonic()
        for done, (what, number) in enumerate(changes, 1):
            (world.change_endpoints if what == "endpoints" else world.change_ingresses)(number)
            began = time.monotonic()
            node.apply(world.documents())
            applied_s.append(time.monotonic() - began)
            # Said now and then, as nginx ends what is silent for proxy-read-timeout.
            assert is_open(websocket), (what, number)
            time.sleep(max(0, start + done * SECONDS / len(changes) - time.monotonic()))
        time.sleep(0.5)
    given = {
        "changes": len(changes),
        "reloads": _reloads(node) - before,
        "counts": results["counts"],
        "slowest_s": round(results["slowest_s"], 3),
        "elapsed_s": round(results["elapsed_s"], 1),
        "apply_s": [round(min(applied_s), 2), round(sum(applied_s) / len(applied_s), 2), round(max(applied_s), 2)],
        "workers": len(node.workers()),
    }
    print(f"under load: {given}")
    record_property("load", given)
    assert results["failures"] == [], given
    assert min(results["counts"][kind] for kind in ("kept", "new", "tls")) > 20 * SECONDS
    assert given["reloads"] <= len(changes)
    assert is_open(websocket)
    websocket.close()


def open_websocket(lab: IngressLab, host: str) -> socket.socket:
    """Open a connection that the pod sends everything back on."""
    connection = lab.client.connect(80)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
    assert connection.recv(1000).startswith(b"HTTP/1.1 101 ")
    return connection


def is_open(connection: socket.socket) -> bool:
    """Tell whether what is sent still comes back."""
    try:
        connection.sendall(b"still there?")
        return connection.recv(100) == b"still there?"
    except OSError:
        return False


def test_a_websocket_lives_until_the_shutdown_timeout(ingress_lab: IngressLab, node: Node) -> None:
    world = [*World(ingress_lab).documents()]
    namespace, name = objects.CONTROLLER_CONFIG.split("/")
    world.append(objects.config_map(name, {"worker-shutdown-timeout": "3s"}, namespace))
    node.apply(world)
    websocket = open_websocket(ingress_lab, World.host(0))

    node.apply([*world, objects.ingress("later", "later.test", "s0")])
    reloaded = time.monotonic()
    assert ingress_lab.client.ask(Request(host="later.test")).status == 200
    while time.monotonic() < reloaded + 2:
        assert is_open(websocket)
        time.sleep(0.2)

    websocket.settimeout(8)
    assert websocket.recv(100) == b""
    assert time.monotonic() < reloaded + 7
    websocket.close()


def test_what_changes_no_byte_reloads_nothing(ingress_lab: IngressLab, node: Node) -> None:
    world = World(ingress_lab).documents()
    node.apply(world)
    masters, workers, reloads = node.masters(), node.workers(), _reloads(node)
    labelled = json.loads(json.dumps(world))
    for document in labelled:
        document["metadata"]["labels"] = document["metadata"].get("labels", {}) | {"noise": "1"}
        document["metadata"].setdefault("annotations", {})["example.com/noise"] = "1"
        document["metadata"]["resourceVersion"] = "7"
    node.apply(labelled)
    assert (node.masters(), node.workers(), _reloads(node)) == (masters, workers, reloads)
