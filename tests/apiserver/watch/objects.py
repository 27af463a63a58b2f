"""Objects that a server has, and what a watch has asked it for."""

from __future__ import annotations

from rulegen.apiserver.watch import Watch
from rulegen.kube.objects.names import ObjectName
from tests.apiserver.watching import soon
from tests.servers.fakeapi import FakeApi

TLS = ObjectName("shop", "tls")


def service(name: str, *, labels: dict[str, str] | None = None, cluster_ip: str = "10.96.0.10", port: int = 80) -> dict:
    return {
        "metadata": {"namespace": "shop", "name": name, "labels": labels or {}},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{"port": port, "protocol": "TCP"}]},
    }


def secret(name: str = "tls", value: str = "YQ==") -> dict:
    return {"metadata": {"namespace": "shop", "name": name, "uid": value}, "data": {"key": value}}


def asked(api: FakeApi, noun: str, *, watched: bool) -> list[dict[str, str]]:
    return [
        query for path, query in list(api.requests) if path.rpartition("/")[2] == noun and ("watch" in query) == watched
    ]


def is_watching(watcher: Watch, kind: str = "Service", times: int = 1) -> bool:
    return soon(lambda: watcher.counts().watches.get(kind, 0) >= times)
