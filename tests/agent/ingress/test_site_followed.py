"""Ingresses that begin and cease to refer to Services, as followed on an API server: served as after a fresh start.

Services and EndpointSlices are kept packed, the server is a real one with the faults of real ones. The thread is turned
only when a change has woken it, so a change that wakes nobody is seen.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.apiserver.lists import read_cluster
from rulegen.apiserver.watch import Watch
from rulegen.errors import Rejected
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Event
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.objects.packed import PackedObject
from tests.agent.ingress.test_site import MemorySite, Nothing
from tests.agent.stage import Clock
from tests.apiserver.watching import fast, soon
from tests.fakes.watches import DROP, FINISH, error_event
from tests.servers.fakeapi import FakeApi
from tests.sizes import sized
from tests.strategies.ingresses import compiled, endpoints, ingress, path, rule, service

NAMES = ("web", "api", "mail", "kubernetes")
NAMESPACES = ("default", "other")
COLLECTIONS = {k.Service: "services", k.EndpointSlice: "endpointslices", k.Ingress: "ingresses"}
STEPS = sized(quick=8, usual=25, full=200)


def document(known: KubeObject) -> dict[str, Any]:
    content = msgspec.to_builtins(known)
    content.pop("status", None)
    return content


class Followed:
    """An agent's part that serves Ingresses, and the watched cluster."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        self.cluster, self.live = SharedCluster(), MemorySite()
        self.events: list[Event] = []
        clock = Clock()
        self.loop = IngressSync(
            self.live, self.cluster.for_ingresses, Nothing(), AgentState(clock), AgentLog(out=io.StringIO()), clock
        )
        self.loop.touch()
        self.watch = Watch(self._apply, kubeconfig=kubeconfig, ingress=True, packs=True, timing=fast())

    def _apply(self, event: Event) -> None:
        self.events.append(event)
        self.loop.on_change(self.cluster.apply_event(event))

    def serves(self, wanted: object) -> bool:
        """Return whether this configuration is served, after everything that has woken the thread."""
        if self.watch.has_synced and self.loop.is_woken:
            self.loop.serve()
        return self.live.live == wanted

    def fresh(self) -> object:
        """Return what an agent that starts now would serve."""
        read = read_cluster(self.kubeconfig, ingress=True)
        return compiled(*(each.object for each in read if not isinstance(each, Rejected)), served=True).configuration


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as fake:
        yield fake


@pytest.fixture
def followed(api: FakeApi, tmp_path: Path) -> Iterator[Followed]:
    agent = Followed(api.kubeconfig(tmp_path))
    agent.watch.start()
    yield agent
    agent.watch.stop()


def put(api: FakeApi, *objects: KubeObject) -> None:
    for each in objects:
        api.put(COLLECTIONS[type(each)], document(each))


def referring(name: str, to: str, namespace: str = "default", **annotations: str) -> k.Ingress:
    texts = {key.replace("_", "-"): text for key, text in annotations.items()}
    return ingress(name, rule(f"{name}.test", path(to=to)), namespace=namespace, annotations=texts)


def any_object(draw: random.Random) -> KubeObject:
    """Return an object that may refer to another one, or be referred to, or neither."""
    name, namespace = draw.choice(NAMES), draw.choice(NAMESPACES)
    match draw.randrange(4):
        case 0:
            return service(name, namespace=namespace, cluster_ip=f"10.96.{draw.randrange(3)}.{draw.randrange(3)}")
        case 1:
            return endpoints(name, (f"10.244.1.{draw.randrange(1, 5)}",), namespace=namespace)
        case 2:
            return referring(draw.choice("abc"), name, namespace)
        case _:
            backend = {"default_backend": draw.choice(NAMES), "custom_http_errors": "502"}
            auth = {"auth_url": f"http://{draw.choice(NAMES)}.{namespace}.svc.cluster.local/check"}
            return referring(draw.choice("abc"), name, namespace, **draw.choice([backend, auth]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.not_quick
def test_references_that_come_and_go_are_served_as_after_a_fresh_start(api, followed, seed):
    draw = random.Random(seed)
    put(api, service("web"), endpoints("web"), referring("a", "web"))
    backup = api.backup()
    for _ in range(STEPS):
        for _ in range(draw.randrange(1, 4)):
            known = any_object(draw)
            if draw.random() < 0.3:
                api.delete(COLLECTIONS[type(known)], known.metadata.namespace, known.metadata.name)
            else:
                put(api, known)
        match draw.randrange(8):
            case 0:
                api.compact()
                api.disturb(draw.choice(["services", "endpointslices"]), DROP)
            case 1:
                api.disturb(draw.choice([*COLLECTIONS.values()]), draw.choice([FINISH, error_event(410)]))
            case 2:
                api.restore(backup)
        wanted = followed.fresh()
        assert soon(lambda wanted=wanted: followed.serves(wanted))
    assert followed.live.live.files


def test_the_first_configuration_with_a_new_reference_has_the_endpoints_of_its_service(api, followed):
    put(api, service("web"), endpoints("web"), referring("b", "web"))
    put(api, service("api"), endpoints("api", ("10.244.3.7",)))
    before = followed.fresh()
    assert soon(lambda: followed.serves(before))
    put(api, referring("a", "api"))
    assert soon(lambda: followed.loop.is_woken)
    followed.loop.serve()
    assert "10.244.3.7:8080" in "".join(followed.live.live.files.values())
    assert not any("/namespaces/" in path for path, _ in api.requests)  # nothing more had to be read


def test_what_no_ingress_refers_to_is_kept_packed(api, followed):
    put(api, service("web"), endpoints("web"), service("api"), referring("a", "web"))
    assert soon(lambda: followed.watch.has_synced)
    put(api, service("mail"))
    assert soon(lambda: ObjectName("default", "mail") in followed.cluster.objects.names())

    def kept() -> list[Decoded]:
        return [each for each in followed.cluster.snapshot() if isinstance(each.object, k.Service | k.EndpointSlice)]

    assert soon(lambda: len(kept()) == 4)
    assert all(isinstance(each, PackedObject) for each in kept())
