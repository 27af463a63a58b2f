"""Two Services that claim one address and port: the older wins, and both are named."""

from __future__ import annotations

import pytest

from rulegen.kube import objects as k
from rulegen.kube.world import ObjectName, ServiceInput, World
from rulegen.model.claims import Claims
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


def balanced(name, *, at, created, health, node_port, protocol="TCP", dual=False):
    """A load balancer whose traffic stays on the node, so that there is a health check."""
    spec = k.ServiceSpec(
        type="LoadBalancer",
        cluster_ip=f"10.96.0.{at}",
        cluster_ips=(f"10.96.0.{at}", f"fd00:10:96::{at}") if dual else (f"10.96.0.{at}",),
        ip_families=("IPv4", "IPv6") if dual else ("IPv4",),
        ports=(k.ServicePort(name="game", port=80, node_port=node_port, protocol=protocol),),
        external_traffic_policy="Local",
        health_check_node_port=health,
    )
    metadata = k.ObjectMeta(name=name, namespace="shop", creation_timestamp=created)
    slice_ = k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"{name}-1", namespace="shop", labels={"kubernetes.io/service-name": name}),
        address_type="IPv4",
        endpoints=(k.SliceEndpoint(addresses=(f"10.244.1.{at}",), node_name="node1"),),
        ports=(k.SlicePort(name="game", port=8080, protocol=protocol),),
    )
    return ObjectName("shop", name), ServiceInput(service=k.Service(metadata=metadata, spec=spec), slices=(slice_,))


OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
HEALTH_CONFLICTS = [
    # what is tried                      old: health, node port  new: health, node port  kept by the old, by the new
    ("health on an older node port", (30901, 30500), (30500, 30501), (30901, 30500), (0, 30501)),
    ("node port on an older health port", (30500, 30501), (30902, 30500), (30500, 30501), (30902, 0)),
    ("health on an older health port", (30500, 30501), (30500, 30502), (30500, 30501), (0, 30502)),
    ("all three", (30500, 30501), (30500, 30500), (30500, 30501), (0, 0)),
    ("nothing", (30901, 30500), (30902, 30501), (30901, 30500), (30902, 30501)),
]


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(("old", "new", "kept_by_old", "kept_by_new"), [c[1:] for c in HEALTH_CONFLICTS])
def test_a_health_check_port_is_claimed_as_a_node_port_is(mode, old, new, kept_by_old, kept_by_new):
    services = dict(
        [
            balanced("zeta", at=1, created=OLD, health=old[0], node_port=old[1]),
            balanced("alpha", at=2, created=NEW, health=new[0], node_port=new[1]),
        ]
    )
    found = resolve(World(services=services), Options(node_name="node1", mode=mode), HostFacts())
    for name, kept in (("zeta", kept_by_old), ("alpha", kept_by_new)):
        port = found.services[ObjectName("shop", name)].ports[0]
        assert (port.health_check_node_port, port.node_port) == kept
    told = [warning for warning in found.warnings if "claimed" in warning]
    assert len(told) == sum(before != after for before, after in zip(new, kept_by_new, strict=True))
    assert all("shop/alpha" in warning and "shop/zeta" in warning for warning in told)
    assert all(("healthCheckNodePort" in warning) for warning in told)


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_a_health_check_port_that_is_the_services_own_node_port_gives_way_to_it(mode):
    services = dict([balanced("web", at=1, created=OLD, health=30500, node_port=30500, dual=True)])
    found = resolve(World(services=services), Options(node_name="node1", mode=mode), HostFacts())
    for port in found.services[ObjectName("shop", "web")].ports:
        assert (port.health_check_node_port, port.node_port) == (0, 30500)
    assert [w for w in found.warnings if "shop/web" in w and "30500/TCP" in w and "its own node port" in w]


def test_a_health_check_is_tcp_so_a_node_port_of_udp_is_no_conflict():
    services = dict([balanced("web", at=1, created=OLD, health=30500, node_port=30500, protocol="UDP")])
    found = resolve(World(services=services), OPTIONS, HostFacts())
    port = found.services[ObjectName("shop", "web")].ports[0]
    assert (port.health_check_node_port, port.node_port) == (30500, 30500)
    assert not [warning for warning in found.warnings if "30500" in warning]


def test_all_keep_their_health_check_ports_if_asked_as_with_kube_proxy_but_all_conflicts_are_told():
    services = dict(
        [
            balanced("a", at=1, created=OLD, health=30500, node_port=30500),
            balanced("b", at=2, created=NEW, health=30500, node_port=30501),
        ]
    )
    found = resolve(World(services=services), Options(node_name="node1", oldest_claim_wins=False), HostFacts())
    assert [found.services[ObjectName("shop", name)].ports[0].health_check_node_port for name in "ab"] == [30500] * 2
    assert sum("30500/TCP" in warning for warning in found.warnings) == 2


def test_a_service_whose_older_rival_goes_gets_its_health_check_back():
    claims = Claims()
    services = dict(
        [
            balanced("zeta", at=1, created=OLD, health=30900, node_port=30500),
            balanced("alpha", at=2, created=NEW, health=30500, node_port=30501),
        ]
    )
    decided = resolve(World(services=services), Options(node_name="node1", oldest_claim_wins=False), HostFacts())
    zeta, alpha = ObjectName("shop", "zeta"), ObjectName("shop", "alpha")
    claims.put(alpha, decided.services[alpha], NEW)
    assert claims.put(zeta, decided.services[zeta], OLD) == {alpha}
    assert claims.settled(alpha, [].append).ports[0].health_check_node_port == 0
    assert claims.put(zeta, None) == {alpha}
    assert claims.settled(alpha, [].append).ports[0].health_check_node_port == 30500
