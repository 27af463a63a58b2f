"""Why something changes: objects and options cause no drift, whatever they were before; and whose each change is."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.tables import LANGUAGES
from rulegen.diff.items import Action
from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.ipset.state import EntryKey
from rulegen.languages.iptables.ruleset import read_rule, target
from rulegen.languages.iptables.state import Block, BlockKey, ChainKey, RulesFragment
from rulegen.languages.ipvs.state import RealServerKey
from rulegen.model.services.ir import Semantics
from rulegen.model.services.node.context import DetectLocalMode
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.model.services.stale_flows import frontends_of
from rulegen.net import Family, parse_network
from rulegen.plan import show
from rulegen.plan.plan import Plan
from tests.kernels.nodekernel import NodeKernel
from tests.sizes import examples
from tests.strategies.services import NODE, slices, worlds
from tests.test_ipvs_laws import FACTS

quick = settings(
    max_examples=examples(30),
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
BASE = Options(node_name=NODE, cluster_cidrs=(parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56")))
CHANGED = {
    "localhost node ports off": msgspec.structs.replace(BASE, localhost_node_ports=False),
    "masquerade all": msgspec.structs.replace(BASE, masquerade_all=True),
    "another mark": msgspec.structs.replace(BASE, masquerade_bit=15),
    "no cluster CIDR": msgspec.structs.replace(BASE, cluster_cidrs=()),
    "another cluster CIDR": msgspec.structs.replace(BASE, cluster_cidrs=(parse_network("10.0.0.0/8"),)),
    "pods by interface": msgspec.structs.replace(
        BASE, detect_local_mode=DetectLocalMode.INTERFACE_NAME_PREFIX, interface_name_prefix="cali"
    ),
    "node ports on one network": msgspec.structs.replace(BASE, node_port_networks=(parse_network("192.168.50.0/24"),)),
    "node ports on no address": msgspec.structs.replace(BASE, node_port_networks=(parse_network("198.51.100.0/24"),)),
    "liberal conntrack": msgspec.structs.replace(BASE, conntrack_be_liberal=True),
    "no external IPs": msgspec.structs.replace(BASE, external_ips=False),
    "both claims": msgspec.structs.replace(BASE, oldest_claim_wins=False),
    "ipvs": msgspec.structs.replace(BASE, mode="ipvs"),
    "strict ipvs": msgspec.structs.replace(BASE, mode="ipvs", ipvs_semantics=Semantics.STRICT),
    "ipvs by least connections": msgspec.structs.replace(BASE, mode="ipvs", ipvs_scheduler="lc"),
    "ipvs without cluster CIDR": msgspec.structs.replace(BASE, mode="ipvs", cluster_cidrs=()),
}
every = st.sampled_from([BASE, *CHANGED.values()])


def compiled(world: ClusterSnapshot, options: Options, *, counts: bool = False) -> Compiled:
    return compile_model(resolve(world, options, FACTS), options.mode, counts=counts)


def written(wants: Compiled, *, comments: bool = True) -> NodeKernel:
    """Return a kernel as one of ours has written it."""
    node = NodeKernel()
    plan = plan_node(wants, node.observed(), FACTS)
    assert {item.drift for item in plan.items} <= {None}
    node.write(plan)
    if not comments:
        for kernel in node.kernels.values():
            for chains in kernel.tables.values():
                for name, rules in chains.items():
                    chains[name] = [read_rule(rule).spec for rule in rules]
    return node


def drifted(plan: Plan) -> list[str]:
    assert len(plan.items) == len(tuple(plan.items))  # counted without making them
    return [f"{item.action} {item.name} {item.lines}" for item in plan.items if item.drift]


@quick
@given(worlds(), every, st.booleans(), worlds(), every, st.booleans())
def test_neither_objects_nor_options_cause_drift(before, old, counted, after, new, counts):
    node = written(compiled(before, old, counts=counted))
    assert drifted(plan_node(compiled(after, new, counts=counts), node.observed(), FACTS)) == []


@st.composite
def histories(draw: st.DrawFn) -> tuple[ClusterSnapshot, ClusterSnapshot]:
    """Return a world, and what it becomes: some Services go, others keep their frontends and change all else."""
    before = draw(worlds())
    after = {}
    for name, entry in before.services.items():
        spec = msgspec.structs.replace(
            entry.service.spec,
            external_traffic_policy=draw(st.sampled_from((None, "Cluster", "Local"))),
            internal_traffic_policy=draw(st.sampled_from((None, "Cluster", "Local"))),
            session_affinity=draw(st.sampled_from(("None", "ClientIP"))),
            load_balancer_source_ranges=tuple(
                draw(st.lists(st.sampled_from(("192.0.2.0/24", "10.0.0.0/8")), max_size=3))
            ),
        )
        fresh = draw(slices(name.name, 0, spec.ports))
        if draw(st.integers(0, 4)):
            service = msgspec.structs.replace(entry.service, spec=spec)
            after[name] = replace(entry, service=service, slices=draw(st.sampled_from(((fresh,), entry.slices, ()))))
    return before, msgspec.structs.replace(before, services=after)


@quick
@given(histories(), every, every)
def test_a_changed_service_causes_no_drift(history, old, new):
    before, after = history
    assert drifted(plan_node(compiled(after, new), written(compiled(before, old)).observed(), FACTS)) == []


@quick
@given(histories(), every, st.booleans())
def test_deletions_belong_to_their_service_while_it_exists(history, options, comments):
    """In all tables, sets and virtual servers, of both modes; where rules have no comments, by their frontends.

    Only comments of rules say whose a thing was. Elsewhere its frontend or endpoint must tell, and another Service may
    have that too: one that takes it over from a Service that is gone, or, where both claims are kept, the older.
    """
    was, wants = (compiled(world, options) for world in history)
    names = {str(name) for name in wants.model.services}
    for item in plan_node(wants, written(was, comments=comments).observed(), FACTS).items:
        had = owners(was, item.key, item.family) if item.family else set()
        if item.action is not Action.DELETE:
            assert not item.is_leftover, item
        elif item.owner:
            assert item.is_leftover == (item.owner not in names), item
            can_differ = had - names or not options.oldest_claim_wins or is_of_endpoint(item.key)
            is_told = comments and item.language == "iptables"
            mine = claims(was, {item.owner}, item.key) | claims(wants, {item.owner}, item.key)
            shares = claims(was, had, item.key) & mine
            assert item.owner in had or (can_differ and not is_told and shares), (item, had)
        elif had and had <= names and not is_nameless(item.key, was, comments=comments):
            raise AssertionError(f"{item.name} was {had}'s")


def owners(wants: Compiled, key: object, family: str) -> set[str]:
    """Return which Services wanted an object, or all that stood in the chain, as a changed chain has no other owner."""
    return {
        fragment.owner
        for fragment in wants.fragments[Family(family)]
        if fragment.owner
        and (
            (isinstance(key, ChainKey) and key.name in fragment.objects["iptables"].exact)
            or (
                isinstance(key, BlockKey)
                and any(key == block_key(block) for block in fragment.objects["iptables"].blocks)
            )
            or any(key in fragment.objects.get(language, {}) for language in LANGUAGES if language != "iptables")
        )
    }


def claims(wants: Compiled, names: set[str], key: object) -> set[object]:
    """Return what tells Services without comments: frontends, and endpoints where those are looked at.

    In ipvs mode what lost its frontend is told by its real servers, which may be another Service's endpoints as well.
    """
    ports = [port for service in wants.model.services.values() if str(service.name) in names for port in service.ports]
    frontends = {(port.family, port.protocol, at.address, at.port) for port in ports for at in frontends_of(port)}
    if isinstance(key, ChainKey | BlockKey) and not is_of_endpoint(key):
        return frontends
    addresses = {address for _, _, address, _ in frontends if address is not None}
    return (
        frontends | addresses | {(port.protocol, end.text) for port in ports for end in (*port.endpoints, *port.here)}
    )


def is_of_endpoint(key: object) -> bool:
    return isinstance(key, EntryKey | ChainKey) and ("LOOP-BACK" in str(key.name) or "KUBE-SEP-" in str(key.name))


def block_key(block: Block) -> BlockKey:
    return BlockKey(block.name, tuple(rule.spec for rule in block.rules))


def is_nameless(key: object, was: Compiled, *, comments: bool) -> bool:
    """Whether nothing tells whose a key was: an endpoint in no pool, a health port, a chain that nothing leads to."""
    if isinstance(key, EntryKey):
        return "LOOP-BACK" in key.name or "HEALTH-CHECK" in key.name
    if isinstance(key, ChainKey) and not comments:
        return not any(
            is_led_to(key, fragment.objects["iptables"]) for part in was.fragments.values() for fragment in part
        )
    return not comments and isinstance(key, BlockKey) and str(key.name) == "filter KUBE-NODEPORTS"


def is_led_to(key: ChainKey, rules: RulesFragment) -> bool:
    """Whether a rule that a Service has in a shared chain jumps to a chain."""
    blocks = (block for block in rules.blocks if block.name.table == key.name.table)
    return any(target(rule) == key.name.chain for block in blocks for rule in block.rules)


POLICY = """\
apiVersion: v1
kind: Service
metadata: {name: game, namespace: shop}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  clusterIP: 10.96.0.10
  ports: [{port: 80, nodePort: 30080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: game-1, namespace: shop, labels: {kubernetes.io/service-name: game}}
addressType: IPv4
endpoints: [{addresses: [10.244.2.1], nodeName: node2}]
ports: [{name: "", port: 80}]
"""
HERE = "endpoints: [{addresses: [10.244.2.1], nodeName: node2}, {addresses: [10.244.1.1], nodeName: node1}]"


SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop, creationTimestamp: "2026-01-0DAYT00:00:00Z"}
spec:
  type: NodePort
  externalTrafficPolicy: POLICY
  clusterIP: 10.96.0.1DAY
  externalIPs: [198.51.100.7]
  ports: [{port: 80, nodePort: 3008DAY}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: NAME-1, namespace: shop, labels: {kubernetes.io/service-name: NAME}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.DAY], nodeName: node1}]
ports: [{name: "", port: 80}]
"""


def shared(day: int, name: str, policy: str) -> Source:
    text = SHARED.replace("DAY", str(day)).replace("NAME", name).replace("POLICY", policy)
    return Source(name, text.encode())


def test_an_entry_belongs_to_the_new_owner_of_a_frontend():
    """Entries have no comments: what the older Service leaves is told by the address and port, now the younger's."""
    before = read_world([shared(1, "old", "Cluster"), shared(2, "young", "Local")])
    was, wants = (compiled(world, CHANGED["ipvs"]) for world in (before, read_world([shared(2, "young", "Local")])))
    gone = {
        item.name: (item.owner, item.is_leftover)
        for item in plan_node(wants, written(was).observed(), FACTS).items
        if item.action is Action.DELETE and item.kind == "entry"
    }
    assert gone["KUBE-EXTERNAL-IP 198.51.100.7,tcp:80"] == ("shop/young", False)


@pytest.mark.parametrize(("comments", "owner"), [(True, "shop/young"), (False, "shop/old")])
def test_a_rule_without_comment_belongs_to_the_older_claim(comments, owner):
    sources = [shared(1, "old", "Cluster"), shared(2, "young", "Cluster")]
    empty = sources[1].content.replace(b"endpoints: [{addresses: [10.244.1.2], nodeName: node1}]", b"endpoints: []")
    refused = [sources[0], Source("young", empty)]
    was, wants = (compiled(read_world(world), CHANGED["both claims"]) for world in (refused, sources))
    items = plan_node(wants, written(was, comments=comments).observed(), FACTS).items
    at = "-d 198.51.100.7/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable"
    gone = [item for item in items if item.action is Action.DELETE and at in [line.text for line in item.lines]]
    assert [(item.owner, item.is_leftover) for item in gone] == [(owner, False)]


@pytest.mark.parametrize("options", [BASE, CHANGED["strict ipvs"]], ids=["iptables", "ipvs"])
@pytest.mark.parametrize("comments", [True, False])
def test_a_refusal_that_goes_as_an_endpoint_comes_is_no_leftover(options, comments):
    after = POLICY.replace("endpoints: [{addresses: [10.244.2.1], nodeName: node2}]", HERE)
    was, wants = (compiled(read_world([Source("f", text.encode())]), options) for text in (POLICY, after))
    items = plan_node(wants, written(was, comments=comments).observed(), FACTS).items
    gone = [item for item in items if item.action is Action.DELETE]
    assert gone
    assert {(item.owner, item.is_leftover) for item in gone} == {("shop/game", False)}
    report = show.Report(node="n", mode=options.mode, observed="kernel")
    assert not any("not served here" in line for line in show.text(Plan(items=tuple(items)), report, colour=False))


TAMPERED = [
    # what is done to the kernel of IPv4, drift of each object that differs
    ("a jump to a Service and a rule of it", ["-X SVC", "rule SVC"], ["missing", "missing"]),
    ("a jump to a Service and its whole chain flushed", ["-X SVC", "flush SVC"], ["missing", "missing"]),
    ("two jumps", ["-X SVC", "-X node port"], ["missing", "missing"]),
    ("an endpoint's address", ["aim SEP"], ["foreign"]),
    ("two foreign rules in one chain of two", ["add SERVICES", "add NODEPORTS"], ["foreign", "foreign"]),
    ("a rule that looks like a refusal", ["accept SERVICES"], ["foreign"]),
]


@pytest.mark.parametrize(("done", "expected"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_each_tampered_place_counts(done, expected):
    wants = compiled(read_world([Source("f", POLICY.replace("Policy: Local", "Policy: Cluster").encode())]), BASE)
    node = written(wants)
    tables = node.kernels[Family.IPV4].tables
    nat = tables["nat"]
    svc, sep = (next(name for name in nat if name.startswith(start)) for start in ("KUBE-SVC-", "KUBE-SEP-"))
    for what in done:
        match what:
            case "-X SVC":
                nat["KUBE-SERVICES"] = [rule for rule in nat["KUBE-SERVICES"] if svc not in rule]
            case "-X node port":
                nat["KUBE-NODEPORTS"].clear()
            case "rule SVC":
                nat[svc].pop()
            case "flush SVC":
                nat[svc].clear()
            case "aim SEP":
                nat[sep] = [rule.replace("10.244.2.1:80", "198.51.100.66:80") for rule in nat[sep]]
            case "add SERVICES":
                nat["KUBE-SERVICES"].insert(0, "-s 198.51.100.66/32 -j ACCEPT")
            case "add NODEPORTS":
                nat["KUBE-NODEPORTS"].insert(0, "-p tcp -m tcp --dport 22 -j RETURN")
            case "accept SERVICES":
                tables["filter"]["KUBE-SERVICES"].append("-p tcp -m tcp --dport 22 -j ACCEPT")
    plan = plan_node(wants, node.observed(Family.IPV4), FACTS)
    assert sorted(item.drift for item in plan.items if item.drift) == sorted(expected)
    assert len(plan.items) == len(expected)
    lines = list(show.text(plan, show.Report(node="n", mode="iptables", observed="kernel"), colour=False))
    assert any(line.startswith(f"Drift: {len(expected)} ") for line in lines)


def test_in_ipvs_mode_missing_parts_count_as_deleted():
    wants = compiled(read_world([Source("f", POLICY.encode())]), CHANGED["ipvs"])
    node = written(wants)
    node.addresses.clear()
    node.sets["KUBE-CLUSTER-IP"][1].clear()
    lost = next(key for key in node.servers if key.frontend.port == 30080 and not isinstance(key, RealServerKey))
    node.servers = {key: value for key, value in node.servers.items() if key.frontend != lost.frontend}
    items = plan_node(wants, node.observed(Family.IPV4), FACTS).items
    assert sorted(item.name for item in items if item.drift) == [
        "10.96.0.10/32 on kube-ipvs0",
        "KUBE-CLUSTER-IP 10.96.0.10,tcp:80",
    ]


@pytest.mark.parametrize("made", ["kubelet", "old kubelet", "nothing"])
@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_a_first_start_is_no_drift(made, mode):
    node = NodeKernel()
    for kernel in node.kernels.values():
        if made != "nothing":
            kernel.tables["mangle"]["KUBE-KUBELET-CANARY"] = []
            kernel.tables["filter"]["KUBE-FIREWALL"] = []
            kernel.tables["filter"]["INPUT"] = ["-j KUBE-FIREWALL"]
        if made == "old kubelet":
            kernel.tables["nat"] |= {"KUBE-MARK-MASQ": ["-j MARK --set-xmark 0x4000/0x4000"], "KUBE-POSTROUTING": []}
    wants = compiled(read_world([Source("f", POLICY.encode())]), msgspec.structs.replace(BASE, mode=mode))
    assert drifted(plan_node(wants, node.observed(), FACTS)) == []


RANGES = POLICY.replace("type: NodePort", "type: LoadBalancer\n  loadBalancerSourceRanges: [192.0.2.0/24]").replace(
    "---\n", "status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}\n---\n", 1
)


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [(POLICY, POLICY), (RANGES, RANGES), (RANGES, POLICY), (POLICY, RANGES)],
    ids=["as it was", "with source ranges", "source ranges go", "source ranges come"],
)
def test_a_changed_option_is_no_drift(name, counts, before, after):
    was, wants = (read_world([Source("f", text.encode())]) for text in (before, after))
    for old, new in ((BASE, CHANGED[name]), (CHANGED[name], BASE)):
        for had in (False, True):
            node = written(compiled(was, old, counts=had))
            assert drifted(plan_node(compiled(wants, new, counts=counts), node.observed(), FACTS)) == []
