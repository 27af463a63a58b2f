"""A stage on a host whose addresses and Node object change."""

from __future__ import annotations

import dataclasses

import msgspec
from msgspec import structs

from rulegen.agent.inbox import Wake
from rulegen.agent.pages_server import health
from rulegen.agent.pages_server.health import EVERYWHERE
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.errors import HostError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.ipvs.state import VirtualServerKey
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Semantics
from rulegen.model.services.options import DetectLocalMode, Options
from rulegen.net import Family, parse_address, parse_network
from tests.agent.stage import NODE, Stage, WholeWriter, changed, endpoints, service

HEALTH_PORT = 31999
NAME = ObjectName("", NODE)
POOL = ("192.168.50.10", "192.168.50.77", "10.77.0.10", "fd00:50::10", "fd00:50::77")
PRIMARY = Options(node_port_primary=True)
OPTIONS = {
    "all": Options(),
    "primary": PRIMARY,
    "network": Options(node_port_networks=(parse_network("192.168.50.0/24"), parse_network("fd00:50::/64"))),
    "loopback": Options(node_port_networks=(parse_network("127.0.0.0/8"), parse_network("10.77.0.0/16"))),
    "node-cidr": Options(detect_local_mode=DetectLocalMode.NODE_CIDR),
    "node-cidr-primary": Options(detect_local_mode=DetectLocalMode.NODE_CIDR, node_port_primary=True),
    "strict": Options(external_ip_semantics=Semantics.STRICT),
    "bridge": Options(detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cni0"),
}
MODES = ("iptables", "ipvs")


def host(*addresses: str, **fields) -> HostFacts:
    """Return a host with these addresses beside its loopback ones, and a pod's interface."""
    given_ = tuple((parse_address(address), 24 if "." in address else 64) for address in addresses)
    loopback = Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128)))
    return HostFacts(interfaces=(loopback, Interface("eth0", given_)), **fields)


def node(*addresses: str, cidrs=("10.244.1.0/24", "fd00:10:244:1::/64"), zone="zone-a", uid="u1") -> k.Node:
    published = tuple(k.NodeAddress(type="InternalIP", address=address) for address in addresses)
    return k.Node(
        metadata=k.ObjectMeta(name=NODE, uid=uid, labels={"topology.kubernetes.io/zone": zone}),
        spec=k.NodeSpec(pod_cidrs=tuple(cidrs)),
        status=k.NodeStatus(addresses=published),
    )


HOST = host("192.168.50.10", "10.77.0.10", "fd00:50::10")
THERE = node("192.168.50.10", "fd00:50::10")


def services() -> list[Changed]:
    ports = (k.ServicePort(name="http", port=80, node_port=30080),)
    load_balancer = k.ServiceStatus(
        load_balancer=k.LoadBalancerStatus(ingress=(k.LoadBalancerIngress(ip="203.0.113.9"),))
    )
    guarded = service(
        "lb",
        2,
        type="LoadBalancer",
        ports=(k.ServicePort(name="http", port=80, node_port=30081),),
        external_traffic_policy="Local",
        health_check_node_port=HEALTH_PORT,
        load_balancer_source_ranges=("192.168.50.10/32",),
        external_ips=("10.77.0.10",),
    )
    return [
        changed(service("web", type="NodePort", ports=ports)),
        changed(endpoints("web", 1, 2, zones=("zone-a", "zone-b"))),
        changed(structs.replace(guarded, status=load_balancer)),
        changed(endpoints("lb", 3, node=NODE)),
    ]


def listening_ports(monkeypatch) -> set[tuple[str, int]]:
    open_: set[tuple[str, int]] = set()

    class FakeServer:
        def __init__(self, address: str, port: int, _pages, **_options) -> None:
            self.place = (address, port)
            if self.place in open_:
                raise HostError(f"{self.place} is taken")
            open_.add(self.place)

        def stop(self) -> None:
            open_.remove(self.place)

    monkeypatch.setattr(health, "PageServer", FakeServer)
    return open_


def staged(mode: str, options: Options, facts: HostFacts = HOST) -> Stage:
    stage = Stage(mode=mode, min_sync_s=1.0, has_health=True)
    stage.options = stage.desired.options = msgspec.structs.replace(
        options, mode=mode, node_name=NODE, cluster_cidrs=(parse_network("10.244.0.0/16"),)
    )
    stage.writer.facts = stage.writer.host = facts
    return stage


def becomes(stage: Stage, facts: HostFacts) -> None:
    """Have the host be so, and the kernel say so."""
    stage.writer.host = facts
    stage.signals.put(Wake("host"))


def differences(stage: Stage, listening: set[tuple[str, int]]) -> list[object]:
    """Return in what the node differs from what a new process would make of it, after looking at everything."""
    writer = stage.writer
    ever = writer.facts.former | {address for family in Family for address in writer.facts.addresses(family)}
    new = ServiceRules(stage.cluster.objects, stage.options, writer.host, counts=False)
    saved, writer.facts = writer.facts, dataclasses.replace(writer.host, former=ever)
    plan = writer.look(new.compiled())
    writer.facts = saved
    differing: list[object] = list(plan.items)
    has = stage.desired.compiled()
    differing += [] if has.model.sysctls == new.sysctls else [(has.model.sysctls, new.sysctls)]
    places = {
        (address, HEALTH_PORT)
        for family, here in new.nodes.items()
        for address in (
            [EVERYWHERE[family]] if here.node_port_addresses is None else map(str, here.node_port_addresses)
        )
    }
    differing += [] if listening == places else [(listening, places)]
    if isinstance(writer, WholeWriter):
        ours = {
            key
            for key in writer.node.servers
            if isinstance(key, VirtualServerKey) and key.frontend.family in new.nodes  # the other one is left alone
        }
        wanted = {key for unions in new.compiled().unions.values() for key in unions["ipvs"].objects()}
        differing += sorted(map(str, ours ^ {key for key in wanted if isinstance(key, VirtualServerKey)}))
    return differing


def happening(stage: Stage, change: object) -> object:
    if isinstance(change, HostFacts):
        return lambda: becomes(stage, change)
    return changed(change) if isinstance(change, k.Node) else change
