"""`--publish-service`: the status of Ingresses has the addresses of a Service in front of the nodes."""

from __future__ import annotations

import pytest

from rulegen.agent.status.addresses import documents, service_addresses
from rulegen.kube.objects import structs as k

ENTRIES = (k.LoadBalancerIngress(ip="203.0.113.7"), k.LoadBalancerIngress(hostname="lb.example"))
OUTSIDE = ("198.51.100.1",)


@pytest.mark.parametrize(
    ("spec", "published"),
    [
        (k.ServiceSpec(type="LoadBalancer", external_ips=OUTSIDE), ["198.51.100.1", "203.0.113.7", "lb.example"]),
        (k.ServiceSpec(type="LoadBalancer"), ["203.0.113.7", "lb.example"]),
        (k.ServiceSpec(type="NodePort", cluster_ip="10.96.0.1", external_ips=OUTSIDE), ["198.51.100.1"]),
        (k.ServiceSpec(type="NodePort", cluster_ip="10.96.0.1"), ["10.96.0.1"]),
        (k.ServiceSpec(type="ClusterIP", cluster_ip="10.96.0.1"), ["10.96.0.1"]),
        (k.ServiceSpec(type="ClusterIP", cluster_ip="None"), []),
        (k.ServiceSpec(type="ExternalName", external_name="edge.example"), ["edge.example"]),
    ],
)
def test_the_addresses_of_a_service(spec: k.ServiceSpec, published: list[str]) -> None:
    status = k.ServiceStatus(load_balancer=k.LoadBalancerStatus(ingress=ENTRIES))
    service = k.Service(metadata=k.ObjectMeta(name="front", namespace="edge"), spec=spec, status=status)
    assert [next(iter(entry.values())) for entry in documents(service_addresses(service))] == published
