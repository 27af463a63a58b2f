"""Worlds of any size for measuring: Services of one port with three ready endpoints each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ENDPOINTS = 3


def objects(services: int) -> Iterator[dict[str, Any]]:
    """Yield the objects of a world: a node, the Services, a slice for each."""
    yield {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.50.10"}]},
    }
    for number in range(services):
        yield service(number)
        yield endpoint_slice(number)


def service(number: int) -> dict[str, Any]:
    """Return one Service, as an API server prints it."""
    address = f"10.{96 + (number + 256 >> 16)}.{number + 256 >> 8 & 255}.{number & 255}"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"svc-{number}", "namespace": "bench", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app": f"svc-{number}"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    }


def endpoint_slice(number: int, endpoints: int = ENDPOINTS) -> dict[str, Any]:
    """Return the slice of one Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"svc-{number}-abcde",
            "namespace": "bench",
            "labels": {"kubernetes.io/service-name": f"svc-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [_pod_address(number * ENDPOINTS + index)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node{index + 1}",
            }
            for index in range(endpoints)
        ],
    }


def write(folder: Path, services: int) -> tuple[Path, Path]:
    """Write a world as YAML and as JSON, and return the two files."""
    reported = list(objects(services))
    as_yaml, as_json = folder / f"{services}.yaml", folder / f"{services}.json"
    with as_yaml.open("w") as file:
        yaml.dump_all(reported, file, Dumper=yaml.CSafeDumper)
    as_json.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": reported}))
    return as_yaml, as_json


def _pod_address(number: int) -> str:
    return f"10.{244 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
