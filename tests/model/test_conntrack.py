"""UDP flows to endpoints that do not serve them any more are deleted from conntrack, and no others."""

from __future__ import annotations

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.model.services.stale_flows import Flow, FlowFrontend, StaleUdpPolicy, answering, stale_flows
from rulegen.net import Protocol, parse_address, parse_network

NODE = parse_address("192.168.50.10")


def model(*endpoints, mode="iptables"):
    spec = k.ServiceSpec(
        type="NodePort",
        cluster_ip="10.96.0.10",
        ports=(k.ServicePort(name="dns", port=53, protocol="UDP", node_port=30053),),
        external_ips=("203.0.113.5",),
    )
    slice_ = k.EndpointSlice(
        metadata=k.ObjectMeta(name="dns-1", namespace="kube-system", labels={"kubernetes.io/service-name": "dns"}),
        address_type="IPv4",
        endpoints=tuple(endpoints),
        ports=(k.SlicePort(name="dns", port=5353, protocol="UDP"),),
    )
    service = k.Service(metadata=k.ObjectMeta(name="dns", namespace="kube-system"), spec=spec)
    given = ServiceInput(service=service, slices=(slice_,))
    return resolve(
        ClusterSnapshot(services={ObjectName("kube-system", "dns"): given}),
        Options(node_name="node1", mode=mode),
        HostFacts(),
    )


def endpoint(address, **conditions):
    return k.SliceEndpoint(addresses=(address,), conditions=k.EndpointConditions(**conditions))


def flow(to, port, at, at_port=5353, protocol=Protocol.UDP):
    return Flow(
        protocol=protocol,
        orig_src=parse_address("10.244.1.9"),
        orig_dst=parse_address(to),
        orig_sport=4000,
        orig_dport=port,
        reply_src=parse_address(at),
        reply_dst=parse_address("10.244.1.9"),
        reply_sport=at_port,
        reply_dport=4000,
    )


SERVED = endpoint("10.244.2.1")
CASES = [
    ("to an endpoint that serves", [SERVED], flow("10.96.0.10", 53, "10.244.2.1"), False),
    ("to one that is gone", [SERVED], flow("10.96.0.10", 53, "10.244.2.9"), True),
    ("to the right address, wrong port", [SERVED], flow("10.96.0.10", 53, "10.244.2.1", 5354), True),
    (
        "to one that terminates but serves",
        [endpoint("10.244.2.1", ready=False, serving=True, terminating=True)],
        flow("10.96.0.10", 53, "10.244.2.1"),
        False,
    ),
    (
        "to one that serves no more",
        [endpoint("10.244.2.1", ready=False, serving=False)],
        flow("10.96.0.10", 53, "10.244.2.1"),
        True,
    ),
    ("no endpoints at all", [], flow("10.96.0.10", 53, "10.244.2.1"), True),
    ("sent to nobody before there were rules", [SERVED], flow("10.96.0.10", 53, "10.96.0.10", 53), True),
    ("external IP", [SERVED], flow("203.0.113.5", 53, "10.244.2.9"), True),
    ("node port of this node", [SERVED], flow("192.168.50.10", 30053, "10.244.2.9"), True),
    ("the same port elsewhere is not ours", [SERVED], flow("8.8.8.8", 30053, "8.8.8.8", 30053), False),
    ("another port of the ClusterIP", [SERVED], flow("10.96.0.10", 54, "10.96.0.10", 54), False),
    ("TCP is never touched", [SERVED], flow("10.96.0.10", 53, "10.244.2.9", protocol=Protocol.TCP), False),
    ("SCTP neither", [SERVED], flow("10.96.0.10", 53, "10.244.2.9", protocol=Protocol.SCTP), False),
]


@pytest.mark.parametrize(
    ("endpoints", "seen", "is_stale"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_flows_of_a_service(endpoints, seen, is_stale):
    stale_ = list(stale_flows([seen], model(*endpoints).services.values(), node_addresses=[NODE]))
    assert [stale.flow for stale in stale_] == ([seen] if is_stale else [])
    assert all(stale.owner == "kube-system/dns" and stale.why for stale in stale_)


@pytest.mark.parametrize(("mode", "kept"), [("userspace", True), ("iptables", False)])
def test_flows_that_the_relay_serves_are_kept(mode, kept):
    served = model(SERVED, mode=mode)
    seen = flow("10.96.0.10", 53, "10.96.0.10", 53)
    assert (not list(stale_flows([seen], served.services.values(), node_addresses=[NODE]))) is kept


def test_flows_of_a_service_that_the_plan_removes():
    seen = flow("10.96.0.77", 53, "10.244.2.9")
    node_port = flow("192.168.50.10", 30077, "10.244.2.9")
    gone = {FlowFrontend(parse_address("10.96.0.77"), 53), FlowFrontend(None, 30077)}
    assert [s.flow for s in stale_flows([seen, node_port], (), node_addresses=[NODE], gone=gone)] == [seen, node_port]
    assert not list(stale_flows([seen, node_port], (), node_addresses=[NODE]))


def test_flows_to_a_cluster_ip_that_no_service_has():
    seen = flow("10.96.0.77", 53, "10.244.2.9")
    unanswered = flow("10.96.0.78", 53, "10.96.0.78", 53)
    networks = [parse_network("10.96.0.0/12")]
    assert [s.flow for s in stale_flows([seen, unanswered], (), node_addresses=[NODE], service_networks=networks)] == [
        seen
    ]


@pytest.mark.parametrize(
    ("stale_udp", "of_gone_endpoint", "of_no_endpoints", "of_gone_service"),
    [
        (StaleUdpPolicy.ALL, True, True, True),
        (StaleUdpPolicy.KUBE_PROXY, True, False, False),
        (StaleUdpPolicy.NONE, False, False, False),
    ],
)
def test_the_policy_selects_which_flows_are_deleted(stale_udp, of_gone_endpoint, of_no_endpoints, of_gone_service):
    seen = flow("10.96.0.10", 53, "10.244.2.9")
    for endpoints, expected in (([SERVED], of_gone_endpoint), ([], of_no_endpoints)):
        services = model(*endpoints).services.values()
        assert bool(list(stale_flows([seen], services, node_addresses=[], stale_udp=stale_udp))) is expected
    gone = {FlowFrontend(parse_address("10.96.0.10"), 53)}
    assert bool(list(stale_flows([seen], (), node_addresses=[], gone=gone, stale_udp=stale_udp))) is of_gone_service


OWN = (("192.168.50.10", 24), ("10.77.0.10", 24), ("fe80::10", 64), ("fd00:50::10", 64), ("127.0.0.1", 8), ("::1", 128))
WHERE_NODE_PORTS_ANSWER = [
    # mode      nodePortAddresses          addresses of the node on which node ports answer
    ("iptables", (), ["192.168.50.10", "10.77.0.10", "fe80::10", "fd00:50::10", "127.0.0.1"]),
    ("iptables", ("192.168.50.0/24",), ["192.168.50.10", "fe80::10", "fd00:50::10"]),
    ("iptables", ("192.168.50.0/24", "fd00:50::/64"), ["192.168.50.10", "fd00:50::10"]),
    ("iptables", ("127.0.0.0/8", "fe80::/10"), ["127.0.0.1", "fe80::10"]),
    ("iptables", ("172.31.0.0/16", "2001:db8::/64"), []),
    ("ipvs", (), ["192.168.50.10", "10.77.0.10", "fd00:50::10"]),
    ("ipvs", ("192.168.50.0/24",), ["192.168.50.10", "fd00:50::10"]),
    ("ipvs", ("127.0.0.0/8", "fe80::/10"), ["fe80::10"]),
]


@pytest.mark.parametrize("gone", [False, True], ids=["served", "service-gone"])
@pytest.mark.parametrize(("mode", "networks", "answers"), WHERE_NODE_PORTS_ANSWER)
def test_flows_count_only_where_node_ports_answer(mode, networks, answers, gone):
    """On another address of the node, the flow belongs to a program: it must stay, and the plan must be empty."""
    facts = HostFacts(interfaces=(Interface("eth0", tuple((parse_address(a), n) for a, n in OWN)),))
    options = Options(node_name="node1", mode=mode, node_port_networks=tuple(map(parse_network, networks)))
    port = k.ServicePort(name="dns", port=53, protocol="UDP", node_port=30053)
    spec = k.ServiceSpec(
        type="NodePort",
        cluster_ip="10.96.0.10",
        cluster_ips=("10.96.0.10", "fd00:10:96::10"),
        ip_families=("IPv4", "IPv6"),
        ports=(port,),
    )
    service = k.Service(metadata=k.ObjectMeta(name="dns", namespace="kube-system"), spec=spec)
    services = {} if gone else {ObjectName("kube-system", "dns"): ServiceInput(service=service)}
    decisions = resolve(ClusterSnapshot(services=services), options, facts)
    own = [address for family in decisions.nodes for address in facts.addresses(family)]
    flows = [flow(address, 30053, address, 30053) for address, _ in OWN]
    stale = stale_flows(
        flows,
        decisions.services.values(),
        node_addresses=answering(decisions.nodes, own),
        gone={FlowFrontend(None, 30053)} if gone else (),
    )
    assert {str(each.flow.orig_dst) for each in stale} == set(answers)
