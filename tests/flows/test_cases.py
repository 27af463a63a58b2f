"""Packets of kube-proxy's own tests end where they end there: objects in, rules out, packets through their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import pytest
import yaml

from rulegen.compiler.services.compile import compile_model
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Document
from rulegen.kube.snapshot.build import build_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.iptables.ruleset import format_ruleset
from rulegen.languages.iptables.state import ruleset_of
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_address, parse_network
from tests.flows.packets import Disposition, Outcome, Packet, Simulator, Way, agree, outcome
from tests.flows.saved import read
from tests.flows.specification import Site, expected
from tests.shared import SHARED, each, shared

TOLD_PATH = (
    # what the file's conventions walk: whole chains, whatever leads to them, and masquerading at the end
    ("nat", "PREROUTING"),
    ("filter", "KUBE-SERVICES"),
    ("filter", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "KUBE-NODEPORTS"),
    ("filter", "KUBE-PROXY-FIREWALL"),
    ("nat", "POSTROUTING"),
)

DIFFERENT: Mapping[tuple[str, str], str] = {
    # (case, flow) that ends elsewhere on purpose: why
}


class Case(NamedTuple):
    """One case of the file: objects, the configuration they meet, and packets."""

    given: dict[str, Any]

    @property
    def family(self) -> Family:
        return Family(self.given["config"]["ipFamily"])

    @property
    def world(self) -> ClusterSnapshot:
        documents = (Document(self.given["id"], o["apiVersion"], o["kind"], o) for o in self.given["objects"])
        return build_world(decode(document) for document in documents)

    @property
    def local(self) -> frozenset[Any]:
        return frozenset(map(parse_address, (*self.given["config"]["localIPs"], "127.0.0.1", "::1")))

    @property
    def pod_networks(self) -> tuple[Any, ...]:
        reported = self.given["config"]["detectLocal"]
        assert reported["mode"] in {"ClusterCIDR", "none"}
        return (parse_network(reported["clusterCIDR"]),) if reported["mode"] == "ClusterCIDR" else ()

    @property
    def options(self) -> Options:
        config = self.given["config"]
        return Options(
            node_name=config["nodeName"],
            bind_address=parse_address(config["nodeIP"]),
            masquerade_bit=int(config["masqueradeMark"], 16).bit_length() - 1,
            masquerade_all=config["masqueradeAll"],
            localhost_node_ports=config["localhostNodePorts"],
            conntrack_be_liberal=config["conntrackTCPLiberal"],
            cluster_cidrs=self.pod_networks,
            node_port_networks=tuple(map(parse_network, config["nodePortAddresses"])),
            external_ips=config["featureGates"]["AllowServiceExternalIPs"],
        )

    @property
    def facts(self) -> HostFacts:
        reported = (address.split("/") for address in self.given["config"]["interfaceAddrs"])
        return HostFacts(interfaces=(Interface("eth0", tuple((parse_address(a), int(bits)) for a, bits in reported)),))

    @property
    def site(self) -> Site:
        options = self.options
        return Site(
            node=options.node_name,
            local=self.local,
            pod_networks=self.pod_networks,
            masquerade_all=options.masquerade_all,
            localhost_node_ports=options.localhost_node_ports,
            node_port_networks=options.node_port_networks,
            external_ips=options.external_ips,
            drops_invalid=not options.conntrack_be_liberal,
        )

    def simulator(self, *, counts: bool) -> Simulator:
        """Return the case's rules, read from the very text that a kernel would be given."""
        model = resolve(self.world, self.options, self.facts, (self.family,))
        compiled = compile_model(model, "iptables", counts=counts)
        return Simulator(read(format_ruleset(ruleset_of(compiled.rules(self.family)))), self.local)


@cache
def document() -> dict[str, Any]:
    return yaml.load(shared("flows/iptables.yaml").read_text(), yaml.CSafeLoader)


def cases() -> list[Case]:
    """Return all cases for parametrising; none where the file is absent, which one test says."""
    return [Case(case) for case in document()["cases"]] if (SHARED / "flows/iptables.yaml").exists() else []


def name_of(case: Case) -> str:
    return case.given["id"].removeprefix("iptables/")


def packet_of(flow: dict[str, Any], local: frozenset[Any]) -> Packet:
    """Return the packet of a flow: what has an address of the node, or the frontend's own, is sent by the node."""
    source, destination = parse_address(flow["sourceIP"]), parse_address(flow["destIP"])
    is_own = source in local or source == destination
    return Packet(
        protocol=flow["protocol"].lower(),
        source=source,
        destination=destination,
        port=flow["destPort"],
        interface="" if is_own else "eth0",
    )


def wanted(flow: dict[str, Any]) -> Outcome:
    """Return what a flow expects: any of its endpoints, each as likely as the others."""
    if flow["expect"] != "DNAT":
        assert not flow["masquerade"]
        return {Disposition(flow["expect"]): 1}
    ends = flow["endpoints"]
    assert ends == sorted(ends)
    return {Disposition("DNAT", end, flow["masquerade"]): Fraction(1, len(ends)) for end in ends}


def told_path(simulator: Simulator, packet: Packet) -> Outcome:
    """Walk the chains that the file's conventions name."""
    ways = [Way(1, packet)]
    for table, chain in TOLD_PATH:
        ways = simulator.through(table, chain, ways)
    return outcome(ways)


def mismatches(case: Case, results: Mapping[str, Outcome]) -> Iterator[str]:
    for flow in case.given["flows"]:
        if not agree(results[flow["name"]], wanted(flow)) and (case.given["id"], flow["name"]) not in DIFFERENT:
            yield f"{flow['name']}\n  found: {results[flow['name']]}\n  expected: {wanted(flow)}"


def test_the_file_has_all_its_cases():
    meta = document()["meta"]
    flows = [(case.given["id"], flow["name"]) for case in cases() for flow in case.given["flows"]]
    assert (len(cases()), len(flows)) == (meta["cases"], meta["flows"])
    assert len(set(flows)) == len(flows)
    assert not DIFFERENT.keys() - set(flows)


@pytest.mark.parametrize("case", each(cases(), "case in flows/iptables.yaml"), ids=name_of)
def test_objects_of_the_case_are_all_taken(case: Case):
    world = case.world
    kinds = [o["kind"] for o in case.given["objects"]]
    assert (world.rejected, dict(world.unknown_kinds)) == ((), {})
    assert not any(service.assigned for service in world.services.values())
    assert len(world.services) == kinds.count("Service")
    assert sum(len(service.slices) for service in world.services.values()) == kinds.count("EndpointSlice")


@pytest.mark.parametrize("counts", [False, True], ids=["plain", "counting"])
@pytest.mark.parametrize("case", each(cases(), "case in flows/iptables.yaml"), ids=name_of)
def test_packets_end_where_the_file_says(case: Case, counts: bool):
    rules = case.simulator(counts=counts)
    results = {flow["name"]: told_path(rules, packet_of(flow, case.local)) for flow in case.given["flows"]}
    assert not list(mismatches(case, results))


@pytest.mark.parametrize("case", each(cases(), "case in flows/iptables.yaml"), ids=name_of)
def test_so_they_do_on_the_whole_path_of_a_packet(case: Case):
    rules = case.simulator(counts=False)
    results = {flow["name"]: rules.outcome(packet_of(flow, case.local)) for flow in case.given["flows"]}
    assert not list(mismatches(case, results))


@pytest.mark.parametrize("case", each(cases(), "case in flows/iptables.yaml"), ids=name_of)
def test_the_specification_says_the_same(case: Case):
    world, site = case.world, case.site
    results = {flow["name"]: expected(world, site, packet_of(flow, case.local)) for flow in case.given["flows"]}
    assert not list(mismatches(case, results))


@pytest.mark.not_quick
def test_flows_that_end_elsewhere_on_purpose_really_do():
    for case in cases():
        rules = case.simulator(counts=False)
        for flow in case.given["flows"]:
            if (case.given["id"], flow["name"]) in DIFFERENT:
                assert not agree(told_path(rules, packet_of(flow, case.local)), wanted(flow))
