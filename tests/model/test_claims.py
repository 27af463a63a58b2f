"""Two Services that claim one address and port: the older wins, and both are named."""

from __future__ import annotations

from rulegen.kube import objects as k
from rulegen.kube.world import ObjectName, ServiceInput, World
from rulegen.model.facts import HostFacts
from rulegen.model.options import Options
from rulegen.model.resolve import resolve

OPTIONS = Options(node_name="node1")


def service(name, *, ip, created, external=(), node_port=0, port=80):
    spec = k.ServiceSpec(
        type="NodePort",
        cluster_ip=ip,
        ports=(k.ServicePort(name="http", port=port, node_port=node_port),),
        external_ips=external,
    )
    metadata = k.ObjectMeta(name=name, namespace="shop", creation_timestamp=created)
    return ObjectName("shop", name), ServiceInput(service=k.Service(metadata=metadata, spec=spec))


def model(*services):
    return resolve(World(services=dict(services)), OPTIONS, HostFacts())


def frontends(model, name):
    port = model.services[ObjectName("shop", name)].ports[0]
    return str(port.cluster_ip), [str(a) for a in port.external_ips], port.node_port


def test_the_older_service_keeps_what_both_claim_and_the_rest_stays():
    old = service("zeta", ip="10.96.0.1", created="2026-01-01T00:00:00Z", external=("203.0.113.1",), node_port=30080)
    new = service(
        "alpha",
        ip="10.96.0.2",
        created="2026-02-01T00:00:00Z",
        external=("203.0.113.1", "203.0.113.2"),
        node_port=30080,
    )
    found = model(old, new)
    assert frontends(found, "zeta") == ("10.96.0.1", ["203.0.113.1"], 30080)
    assert frontends(found, "alpha") == ("10.96.0.2", ["203.0.113.2"], 0)
    told = [warning for warning in found.warnings if "claimed" in warning]
    assert len(told) == 2
    assert all("shop/alpha" in warning and "shop/zeta" in warning for warning in told)


def test_a_service_without_age_is_the_youngest_and_names_decide_between_equals():
    found = model(
        service("b", ip="10.96.0.1", created=None),
        service("a", ip="10.96.0.1", created=None),
        service("c", ip="10.96.0.1", created="2026-01-01T00:00:00Z"),
    )
    assert [frontends(found, name)[0] for name in "abc"] == ["None", "None", "10.96.0.1"]


def test_another_port_or_protocol_is_no_conflict():
    found = model(
        service("a", ip="10.96.0.1", created=None, external=("203.0.113.1",), port=80),
        service("b", ip="10.96.0.2", created=None, external=("203.0.113.1",), port=81),
    )
    assert not [warning for warning in found.warnings if "claimed" in warning]


def test_both_keep_what_they_claim_if_asked_as_with_kube_proxy_but_both_are_told():
    services = dict([service("a", ip="10.96.0.1", created=None), service("b", ip="10.96.0.1", created=None)])
    found = resolve(World(services=services), Options(node_name="node1", oldest_claim_wins=False), HostFacts())
    assert [frontends(found, name)[0] for name in "ab"] == ["10.96.0.1", "10.96.0.1"]
    assert [warning for warning in found.warnings if "claimed" in warning]
