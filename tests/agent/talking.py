"""Nodes that write to a fake API server over TLS, each with clocks that move when a test says so."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rulegen.agent.status.changes import StatusSource
from rulegen.agent.status.ingresses import IngressPublication
from rulegen.agent.status.leases import LeaseGroup
from rulegen.agent.status.publisher import Publisher
from rulegen.agent.status.services import ServicePublication
from rulegen.agent.telemetry.events import Recorder
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.apiserver.objects import ApiObjects
from rulegen.apiserver.transport.connection import ApiConnection
from rulegen.kube.objects.events import Changed
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.objects.structs import EndpointSlice, Ingress, Service
from rulegen.kube.reading.decode import decode_object
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.kube.snapshot.world import ServiceInput
from tests.agent.stage import Clock
from tests.servers.fakeapi import FakeApi

BEGIN = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
NAMESPACE = "rulegen"


@dataclass
class Place:
    """An API server, and the time."""

    api: FakeApi
    kubeconfig: str
    clock: Clock = field(default_factory=Clock)
    links: list[ApiConnection] = field(default_factory=list)

    @classmethod
    def of(cls, api: FakeApi, folder: Path, certificate: tuple[Path, Path]) -> Place:
        return cls(api, api.kubeconfig(folder, **{"certificate-authority": str(certificate[0])}))

    def now(self) -> dt.datetime:
        return BEGIN + dt.timedelta(seconds=self.clock.now - 100)

    def objects(self) -> ApiObjects:
        link = ApiConnection(self.kubeconfig)
        self.links.append(link)
        return ApiObjects(link)

    def cut(self) -> None:
        for link in self.links:
            link.cut()

    def recorder(self, node: str = "node1") -> Recorder:
        state = AgentState(self.clock)
        return Recorder(self.objects(), node, state, AgentLog(out=io.StringIO()), self.clock, self.now, rate_s=0.0)

    def cluster(self) -> Cluster:
        """Return the cluster as a node that watches has it now."""
        cluster = Cluster()
        for noun, kind in (("services", Service), ("endpointslices", EndpointSlice), ("ingresses", Ingress)):
            for name, document in self.api.kept(noun).items():
                decoded = decode_object(_json(document), kind)
                assert isinstance(decoded, Decoded), decoded
                cluster.apply_event(Changed(kind, decoded, ObjectName(*name)))
        return cluster

    def ingresses(self) -> dict[ObjectName, Ingress]:
        return self.cluster().of_kind(Ingress)

    def services(self) -> dict[ObjectName, ServiceInput]:
        cluster = self.cluster()
        return {name: cluster.service(name) for name in cluster.names()}

    def node(
        self,
        name: str,
        *addresses: str,
        publication: StatusSource | None = None,
        group: str = "ingress-rulegen",
        served: Callable[[], dict[ObjectName, bool] | None] | None = None,
        **settings,
    ) -> Publisher:
        """Return what publishes the addresses of a node; those of Ingresses by default, all of which it serves."""

        def all_served() -> dict[ObjectName, bool]:
            return dict.fromkeys(self.ingresses(), True)

        return Publisher(
            members=LeaseGroup(self.objects(), NAMESPACE, group, name, self.clock, now=self.now),
            publications=(publication or IngressPublication(self.ingresses, served or all_served),),
            addresses=lambda: addresses or None,
            node_uid=lambda: f"uid-of-{name}",
            log=AgentLog(out=io.StringIO()),
            state=AgentState(self.clock),
            clock=self.clock,
            **settings,
        )

    def service_publication(self, *taken: tuple[str, int]) -> ServicePublication:
        self.refused: dict[ObjectName, str] = {}

        def refused(services: dict[ObjectName, str]) -> None:
            self.refused = dict(services)

        return ServicePublication(self.services, lambda: frozenset(taken), refused, self.now)

    def published(self, collection: str, name: str) -> list[str]:
        """Return the addresses in the status of an object, as they stand there."""
        status = self.api.kept(collection)["shop", name].get("status", {})
        return [entry.get("ip") or entry["hostname"] for entry in status.get("loadBalancer", {}).get("ingress", [])]


def _json(document: dict) -> bytes:
    return msgspec.json.encode(document)


def ingress(name: str, *, uid: str = "") -> dict:
    backend = {"service": {"name": name, "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    return {
        "metadata": {"namespace": "shop", "name": name, "uid": uid or f"uid-{name}"},
        "spec": {"ingressClassName": "rulegen", "rules": [{"host": f"{name}.example", "http": {"paths": paths}}]},
    }


def balanced(name: str, *ports: int, number: int = 1, created: str = "2026-01-01T00:00:00Z", **spec) -> dict:
    """Return a Service of type LoadBalancer."""
    return {
        "metadata": {"namespace": "shop", "name": name, "uid": f"uid-{name}", "creationTimestamp": created},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": f"10.96.0.{number}",
            "clusterIPs": [f"10.96.0.{number}"],
            "ipFamilies": ["IPv4"],
            "ports": [
                {"name": f"p{port}", "port": port, "protocol": "TCP", "nodePort": 30000 + port} for port in ports
            ],
            **spec,
        },
        "status": {"loadBalancer": {}},
    }


def slice_on(name: str, *nodes: str) -> dict:
    """Return the endpoints of a Service: one on each node that is named."""
    return {
        "metadata": {"namespace": "shop", "name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [f"10.244.1.{at}"], "conditions": {"ready": True}, "nodeName": node}
            for at, node in enumerate(nodes, 1)
        ],
        "ports": [{"name": "p80", "port": 8080, "protocol": "TCP"}],
    }
