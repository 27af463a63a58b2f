"""Kubernetes objects for the lab: Services whose endpoints are its pods, and its nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from integration.lab import topology
from integration.lab.hosts import FAMILIES, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from integration.lab.hosts import Address, Family, Transport

Document = dict[str, Any]

ZONES = {topology.NODE: "zone-a", topology.OTHER_NODE: "zone-b"}
PORT = 80
"""The port of every Service here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A Service and where its endpoints are. All addresses and node ports follow from `number`.

    Attributes:
        number: From 1 to 60000, different for each App of a world.
        ready: Hosts (pods, or nodes for pods in the host's network) that are ready endpoints.
        terminating: Hosts that are serving and terminating.
        unready: Hosts that are neither ready nor serving.
        target: The port that endpoints listen on.
        targets: Other target ports of some hosts, as named target ports have.
        hints: Zones that each host's endpoint is hinted to.
        ranges: Load balancer source ranges.
        annotations: Of the Service.
    """

    name: str
    number: int
    ready: tuple[str, ...] = ()
    terminating: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    protocols: tuple[Transport, ...] = TRANSPORTS
    families: tuple[Family, ...] = FAMILIES
    type: str = "ClusterIP"
    external: str = "Cluster"
    internal: str = "Cluster"
    external_ip: bool = False
    affinity_s: int = 0
    health_check_port: int = 0
    ranges: tuple[str, ...] = ()
    target: int = topology.PORTS[0]
    targets: Mapping[str, int] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def node_port(self) -> int:
        """The node port, the same in all protocols."""
        return 30000 + self.number

    def cluster_ip(self, family: Family) -> Address:
        """Return the ClusterIP."""
        return self._address(family, "10.96.0.0", "fd00:10:96::")

    def lb_ip(self, family: Family) -> Address:
        """Return the load balancer's address."""
        return self._address(family, "10.113.0.0", "fd00:113::")

    def outer_ip(self, family: Family) -> Address:
        """Return the external IP."""
        return self._address(family, "10.114.0.0", "fd00:114::")

    def _address(self, family: Family, base4: str, base6: str) -> Address:
        return ip_address(base4 if family == 4 else base6) + self.number

    def documents(self) -> list[Document]:
        """Return the Service and its EndpointSlices."""
        return [self._service(), *self._slices()]

    def _service(self) -> Document:
        has_node_port = self.type in {"NodePort", "LoadBalancer"}
        ports = [
            {"name": protocol.lower(), "protocol": protocol, "port": PORT, "targetPort": self.target}
            | ({"nodePort": self.node_port} if has_node_port else {})
            for protocol in self.protocols
        ]
        spec: Document = {
            "type": self.type,
            "clusterIP": str(self.cluster_ip(self.families[0])),
            "clusterIPs": [str(self.cluster_ip(family)) for family in self.families],
            "ipFamilies": [f"IPv{family}" for family in self.families],
            "ipFamilyPolicy": "PreferDualStack" if len(self.families) > 1 else "SingleStack",
            "ports": ports,
            "selector": {"app": self.name},
            "internalTrafficPolicy": self.internal,
            "sessionAffinity": "ClientIP" if self.affinity_s else "None",
        }
        if self.affinity_s:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": self.affinity_s}}
        if has_node_port or self.external_ip:
            spec["externalTrafficPolicy"] = self.external
        if self.external_ip:
            spec["externalIPs"] = [str(self.outer_ip(family)) for family in self.families]
        if self.health_check_port:
            spec["healthCheckNodePort"] = self.health_check_port
        if self.ranges:
            spec["loadBalancerSourceRanges"] = list(self.ranges)
        status = {}
        if self.type == "LoadBalancer":
            given = [{"ip": str(self.lb_ip(family)), "ipMode": "VIP"} for family in self.families]
            status = {"loadBalancer": {"ingress": given}}
        metadata: Document = {"name": self.name, "namespace": "lab"}
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status}

    def _slices(self) -> list[Document]:
        """Return one slice for each family and each set of target ports, as the controller makes them."""
        hosts = (*self.ready, *self.terminating, *self.unready)
        targets = sorted({self.targets.get(host, self.target) for host in hosts})
        return [
            self._slice(family, target, [host for host in hosts if self.targets.get(host, self.target) == target])
            for family in self.families
            for target in targets
        ]

    def _slice(self, family: Family, target: int, hosts: list[str]) -> Document:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{self.name}-v{family}-{target}",
                "namespace": "lab",
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": f"IPv{family}",
            "endpoints": [self._endpoint(family, host) for host in hosts],
            "ports": [{"name": p.lower(), "protocol": p, "port": target} for p in self.protocols],
        }

    def _endpoint(self, family: Family, host: str) -> Document:
        node = topology.PODS.get(host, host)
        endpoint: Document = {
            "addresses": [str(topology.address(host, family))],
            "conditions": {
                "ready": host in self.ready,
                "serving": host not in self.unready,
                "terminating": host in self.terminating,
            },
            "nodeName": node,
            "zone": ZONES[node],
        }
        if host in self.hints:
            endpoint["hints"] = {"forZones": [{"name": self.hints[host]}]}
        return endpoint


def nodes() -> list[Document]:
    """Return the Node objects of the lab."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": node,
                "labels": {"kubernetes.io/hostname": node, "topology.kubernetes.io/zone": ZONES[node]},
            },
            "spec": {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)},
            "status": {
                "addresses": [
                    *({"type": "InternalIP", "address": str(topology.address(node, family))} for family in FAMILIES),
                    {"type": "Hostname", "address": node},
                ],
            },
        }
        for node, cidrs in topology.POD_CIDRS.items()
    ]


def world(apps: Iterable[App]) -> str:
    """Return one text with the nodes and all that `apps` consist of."""
    documents = [*nodes(), *(document for app in apps for document in app.documents())]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})


def configuration(**options: object) -> str:
    """Return a KubeProxyConfiguration that fits the lab, with some fields set otherwise (None takes one away)."""
    fields: dict[str, object] = {"clusterCIDR": ",".join(topology.CLUSTER_CIDRS), **options}
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(
        {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}
        | {"hostnameOverride": topology.NODE}
        | given
    )
