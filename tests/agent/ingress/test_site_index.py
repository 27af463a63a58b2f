"""Which changes wake the thread that serves Ingresses: those of what Ingresses refer to, and no others."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.ingress.index import ReferenceIndex
from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.errors import HostError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, scoped
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.snapshot.cluster import Touched
from rulegen.model.ingress.upstreams.reads import ServiceReads
from tests.agent.ingress.test_site import MemorySite, Nothing
from tests.agent.stage import Clock
from tests.strategies.ingresses import WEB, compiled, endpoints, ingress, path, rule, service, site

WEB_NAME, OTHER_NAME = ObjectName("default", "web"), ObjectName("default", "other")
OTHER = (service("other"), endpoints("other", ("10.244.9.9",)))
FIRST = (*WEB, *OTHER, site("a.test"))


class Stage:
    """A cluster whose changes reach the thread as in an agent; the thread is turned by hand."""

    def __init__(self) -> None:
        self.cluster, self.live, self.state = SharedCluster(), MemorySite(), AgentState(Clock())
        self.meanwhile: Callable[[], None] = lambda: None
        self.woken = 0
        self.loop = IngressSync(self.live, self._snapshot, Nothing(), self.state, AgentLog(out=io.StringIO()), Clock())
        self.change(*FIRST)
        self.turn()

    def _snapshot(self) -> Any:
        world = self.cluster.for_ingresses()
        self.meanwhile()
        return world

    def change(self, *objects: KubeObject) -> None:
        for known in objects:
            name = scoped(type(known), known.metadata.namespace, known.metadata.name)
            self.loop.on_change(self.cluster.apply_event(Changed(type(known), Decoded(known, "test"), name)))

    def turn(self) -> None:
        """Do what the thread does when it is woken."""
        if self.loop.is_woken:
            self.woken += 1
            self.loop.serve()

    def wakes(self, *objects: KubeObject) -> bool:
        """Return whether changes wake the thread; all that is served is right afterwards."""
        before = self.woken
        self.change(*objects)
        self.turn()
        world = self.cluster.for_ingresses()
        everything = [
            *(known.service for known in world.services.values()),
            *(known for service in world.services.values() for known in service.slices),
            *world.ingresses.values(),
        ]
        assert self.live.live == compiled(*everything, served=True).configuration
        return self.woken > before


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(
    ("changed", "wakes"),
    [
        (endpoints("web", ("10.244.1.5",)), True),
        (service("web", cluster_ip="10.96.99.99"), True),
        (endpoints("other", ("10.244.9.8",)), False),
        (service("other", cluster_ip="10.96.99.98"), False),
        (service("new", cluster_ip="10.96.99.97"), False),
        (service("new", cluster_ip="10.244.1.5"), True),
        (service("new", external_ips=("10.244.1.5",)), True),
        (site("b.test"), True),
        (k.IngressClass(metadata=k.ObjectMeta(name="x"), spec=k.IngressClassSpec(controller="x.io/x")), True),
    ],
    ids=lambda value: getattr(getattr(value, "metadata", None), "name", str(value)),
)
def test_only_what_ingresses_refer_to_wakes_the_thread(stage, changed, wakes):
    counted = stage.state.metrics.ingress_changes
    before = counted["decided"], counted["ignored"]
    assert stage.wakes(changed) is wakes
    assert (counted["decided"], counted["ignored"]) == (before[0] + wakes, before[1] + (not wakes))


def test_a_service_counts_as_soon_as_an_ingress_refers_to_it(stage):
    assert not stage.wakes(endpoints("other", ("10.244.9.7",)))
    assert stage.wakes(ingress("b", rule("b.test", path(to="other"))))
    assert stage.wakes(endpoints("other", ("10.244.9.6",)))
    assert not stage.wakes(endpoints("third", ("10.244.9.5",)))


def test_a_change_during_the_first_reference_is_not_missed(stage):
    """The change comes between the look at the cluster and the end of the decision that makes it matter."""
    stage.meanwhile = lambda: stage.change(endpoints("other", ("10.244.9.4",)))
    stage.change(ingress("b", rule("b.test", path(to="other"))))
    stage.turn()
    stage.meanwhile = lambda: None
    assert stage.loop.is_woken
    stage.turn()
    assert "10.244.9.4:8080" in "".join(stage.live.live.files.values())


def test_after_a_decision_that_failed_every_change_wakes(stage, monkeypatch):
    def refuse(*_: object) -> None:
        raise HostError("no")

    with monkeypatch.context() as patched:
        patched.setattr(MemorySite, "check", refuse)
        stage.change(site("b.test"))
        with pytest.raises(HostError):
            stage.turn()
    assert stage.wakes(endpoints("other", ("10.244.9.3",)))


def test_with_unknown_reads_every_change_counts():
    index, change = ReferenceIndex(), Touched(services={OTHER_NAME})
    assert index.is_touched(change)
    index.begin()
    assert index.is_touched(change)
    assert not index.end(ServiceReads(frozenset({WEB_NAME})))
    assert not index.is_touched(change)
    index.begin()
    assert not index.is_touched(change)
    assert index.end(None)
    assert index.is_touched(change)
