"""Services and slices as an API server answers them, and the names of what was read."""

from __future__ import annotations


def service(name: str, *, labels: dict[str, str] | None = None, cluster_ip: str = "10.96.0.10", port: int = 80) -> dict:
    return {
        "metadata": {"namespace": "shop", "name": name, "labels": labels or {}},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{"port": port, "protocol": "TCP"}]},
    }


def endpoint_slice(name: str, owner: str, *, labels: dict[str, str] | None = None) -> dict:
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "labels": {"kubernetes.io/service-name": owner, **(labels or {})},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.5"]}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


def names(objects: list) -> list[str]:
    return [each.object.metadata.name for each in objects]
