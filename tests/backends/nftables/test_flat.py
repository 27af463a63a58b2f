"""In layout `flat`, connections end where they end in layout `kube-proxy`, and a Service is nothing but elements."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from rulegen.backends.nftables import flat
from rulegen.cli.options.common import CliOptions
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.dumped.nftables import table_as_services
from rulegen.compiler.services.compile import Compiled
from rulegen.compiler.tables import LANGUAGES
from rulegen.diff.changes import Change
from rulegen.diff.items import Drift
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.nftables.expressions import VerdictCode
from rulegen.languages.nftables.language import NAME, TablesUnion
from rulegen.languages.nftables.state import ElementValue, NftChain, NftObjects, ObjectKind, chain_key, element_text
from rulegen.languages.nftables.statements import nft_rule
from rulegen.model.services.ir import (
    Delivery,
    Endpoint,
    Masquerade,
    NftExtra,
    ResolvedNode,
    ResolvedPort,
    ResolvedService,
    TrafficPolicy,
)
from rulegen.net import Family, Protocol, parse_address
from rulegen.ownership import nftables as names
from rulegen.plan.dumped.services import DumpedNode
from tests.backends.nftables.nft_packets import NftPackets, Packet
from tests.parity.test_parity import name_of, run
from tests.shared import each, some, worlds
from tests.sizes import sampled, sized

WORLDS = worlds("nftables.json", "objects.yaml")
MOST = sized(quick=20, usual=40, full=10_000)
"""How many packets of a world are sent."""
LAYOUTS = ("kube-proxy", "flat")
OUTSIDE = {Family.IPV4: ("198.51.100.7", "203.0.113.99"), Family.IPV6: ("2001:db8::7", "fd00:99::99")}


def usual() -> Path:
    """Return a world with a node port."""
    return some([world for world in WORLDS if "nodePort:" in (world / "objects.yaml").read_text()], "node port", 8)


@lru_cache(maxsize=4)
def compiled(world: Path, layout: str) -> Compiled:
    inputs = Inputs(
        CliOptions(
            files=(str(world / "objects.yaml"),),
            config=str(world / "config.yaml"),
            host=str(world / "world.yaml"),
            mode="nftables",
            nftables_layout=layout,
        )
    )
    return inputs.compiled(None, is_live=False)


def objects(world: Path, layout: str, family: Family) -> NftObjects:
    return compiled(world, layout).unions[family][NAME].objects()


def packets(world: Path, family: Family) -> Iterator[tuple[Packet, bool]]:
    """Yield packets to each frontend and beside it, from each kind of client; and whether this node sends them."""
    model = compiled(world, "flat").model
    node = model.nodes[family]
    own = sorted(map(str, node.addresses)) or ["192.0.2.250"]
    local = frozenset(own)
    for service in model.services.values():
        for port in (port for port in service.ports if port.family is family):
            frontends = {(str(address), port.port) for address in (*port.external_ips, *port.load_balancer_ips)}
            if port.cluster_ip is not None:
                frontends |= {(str(port.cluster_ip), port.port), (str(port.cluster_ip), port.port + 1)}
            if port.node_port:
                frontends |= {(address, port.node_port) for address in own}
            ranges = [str(network.network_address) for network in port.source_ranges]
            pods = [endpoint.host for endpoint in port.endpoints]
            for target, number in sorted(frontends):
                for source in (*OUTSIDE[family], *ranges, *pods):
                    yield Packet(source, target, port.protocol.lower(), str(number), local), False
                yield Packet(own[0], target, port.protocol.lower(), str(number), local), True


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("world", each(sampled(WORLDS), "worlds"), ids=name_of)
def test_a_dump_shows_the_same_endpoints_in_both_layouts(world: Path, family: Family):
    flat_table, table = (table_as_services(objects(world, layout, family), family) for layout in ("flat", "kube-proxy"))
    assert flat_table.foreign == table.foreign == []
    expected = _served(table)
    for frontend, (pool, local) in _served(flat_table).items():
        # Layout kube-proxy has one chain for each pool of a port: which frontend uses which one is not shown.
        assert not pool or pool == expected[frontend][0], frontend
        assert not local or local == expected[frontend][1], frontend


def _served(node: DumpedNode) -> dict[str, tuple[set[tuple[str, float | None]], set[str]]]:
    """Return, for each served frontend, the endpoints of its cluster pool with their shares, and its local pool."""
    local = "local pool: "
    return {
        frontend.address: (
            {(endpoint.address, endpoint.share) for endpoint in port.endpoints if not endpoint.pool},
            {
                each
                for text in port.policies
                if text.startswith(local)
                for each in text.removeprefix(local).split(", ")
                if each != "empty"
            },
        )
        for port in node.ports
        for frontend in port.frontends
        if not frontend.refusal
    }


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("world", each(sampled(WORLDS), "world of nftables mode"), ids=name_of)
def test_connections_end_where_they_end_in_the_other_layout(world: Path, family: Family):
    if family not in compiled(world, "flat").model.nodes:
        pytest.skip("the node has no such family")
    theirs, ours = (NftPackets(objects(world, layout, family)) for layout in LAYOUTS)
    sent = list(packets(world, family))
    for packet, is_sent_here in random.Random(world.name).sample(sent, min(MOST, len(sent))):
        expected = theirs.outcomes(packet, is_sent_here=is_sent_here)
        assert ours.outcomes(packet, is_sent_here=is_sent_here) == expected, packet


@pytest.mark.parametrize("world", each(sampled(WORLDS), "world of nftables mode"), ids=name_of)
def test_only_affinity_and_source_ranges_make_objects_of_one_service(world: Path):
    compiled_flat = compiled(world, "flat")
    for family, fragments in compiled_flat.fragments.items():
        special = {
            str(service.name)
            for service in compiled_flat.model.services.values()
            for port in service.ports
            if port.family is family and (port.affinity_s is not None or port.source_ranges)
        }
        for fragment in fragments:
            own = {key.name for key in fragment.objects[NAME] if not key.is_element and key.name.count("/") > 1}
            assert not own or fragment.owner in special, own
            assert {key.table for key in fragment.objects[NAME]} <= {names.FLAT_TABLE}


@pytest.mark.parametrize("world", each(sampled(WORLDS[::5]), "world of nftables mode"), ids=name_of)
def test_every_set_is_there_before_a_rule_or_element_needs_it(world: Path):
    for family in compiled(world, "flat").unions:
        content = objects(world, "flat", family)
        sets = {key.name for key in content if key.kind is ObjectKind.SET and not key.element}
        assert {key.name for key in content if key.is_element} <= sets
        rules = " ".join(str(rule) for value in content.values() for rule in getattr(value, "rules", ()))
        assert {word[1:] for word in rules.split() if word.startswith("@")} <= sets


def options(world: Path) -> tuple[str, ...]:
    files = {"-f": "objects.yaml", "--config": "config.yaml", "--host": "world.yaml"}
    words = (word for flag, name in files.items() for word in (flag, str(world / name)))
    return ("--mode", "nftables", "--nftables-layout", "flat", *words)


@pytest.mark.parametrize("world", each(sampled(WORLDS[::16]), "world of nftables mode"), ids=name_of)
def test_a_plan_against_an_export_is_empty(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "export", *options(world), "-o", str(tmp_path))[0] == 0
    code, text = run(capsys, "plan", *options(world), "--observed", str(tmp_path), "--detailed-exitcode")
    assert (code, text.splitlines()[-1]) == (0, "No changes. The node matches the objects."), text


def test_the_table_of_the_other_layout_is_a_leftover(capsys: pytest.CaptureFixture[str]):
    world = usual()
    dump = ("--observed", str(world / "nftables.json"), "-o", "json")
    code, text = run(capsys, "plan", *options(world), *dump)
    assert code == 0, text
    changes = json.loads(text)["changes"]
    tables = {(item["action"], item["name"]) for item in changes if item["kind"] == "table"}
    assert tables == {("add", "rulegen"), ("delete", "kube-proxy")}


@pytest.mark.parametrize("world", each(sampled(WORLDS[::16]), "world of nftables mode"), ids=name_of)
def test_a_plan_against_an_export_with_extra_rules_is_empty(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    extras = [word for extra in NftExtra for word in ("--nftables-extra", extra.value)]
    assert run(capsys, "export", *options(world), *extras, "-o", str(tmp_path))[0] == 0
    dump = ("--observed", str(tmp_path), "--detailed-exitcode")
    assert run(capsys, "plan", *options(world), *extras, *dump)[0] == 0
    assert run(capsys, "plan", *options(world), *dump)[0] == 2


def test_extra_rules_of_iptables_mode():
    extras = tuple(sorted(NftExtra))
    node = msgspec.structs.replace(NODE, drop_invalid=True, nft_extras=extras)
    content = flat.compile_node(node, counts=False, filled=()).objects[NAME]
    (forward, input_) = (content[chain_key(names.FLAT_TABLE, f"filter-{hook}")] for hook in ("forward", "input"))
    assert str(forward.rules[0]) == "ct state invalid drop"
    assert str(input_.rules[0]) == "meta l4proto . th dport vmap @health-check-ports"
    liberal = flat.compile_node(msgspec.structs.replace(node, drop_invalid=False), counts=False, filled=()).objects[
        NAME
    ]
    assert "invalid" not in str(liberal)
    port = replace(PORT, health_check_node_port=32000)
    service = ResolvedService(name=port.service, type="LoadBalancer", ports=(port, replace(port, name="other")))
    elements = [
        element_text(key, value)
        for key, value in flat.compile_service(service, node, counts=False).objects[NAME].items()
        if key.name == names.HEALTH_PORTS
    ]
    assert elements == ["tcp . 32000 : accept"]
    assert not any(
        key.name == names.HEALTH_PORTS for key in flat.compile_node(NODE, counts=False, filled=()).objects[NAME]
    )


def tables_of_plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[tuple[str, str]]:
    """Return the tables that a plan without a chosen layout adds and deletes."""
    world = usual()
    given = [word for word in options(world) if word not in {"--nftables-layout", "flat"}]
    code, text = run(capsys, "plan", *given, *arguments, "-o", "json")
    assert code == 0, text
    return {(item["action"], item["name"]) for item in json.loads(text)["changes"] if item["kind"] == "table"}


def test_flat_is_the_layout_of_a_node_without_the_table_of_kube_proxy(capsys: pytest.CaptureFixture[str]):
    assert tables_of_plan(capsys, "--observed", "none") == {("add", "rulegen")}
    assert tables_of_plan(capsys, "--observed", str(usual() / "nftables.json")) == set()


def test_a_node_with_the_table_of_layout_flat_keeps_it(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    dump = tmp_path / "ruleset.nft"
    dump.write_text("table ip rulegen {\n}\n" + (usual() / "nftables.txt").read_text())
    assert ("delete", "kube-proxy") in tables_of_plan(capsys, "--observed", str(dump))


PORT = ResolvedPort(
    service=ObjectName("shop", "web"),
    name="http",
    protocol=Protocol.TCP,
    family=Family.IPV4,
    port=80,
    cluster_ip=parse_address("10.96.0.9"),
    internal=Delivery.CLUSTER,
    external=Delivery.CLUSTER,
    external_policy=TrafficPolicy.CLUSTER,
    has_endpoints=True,
)
NODE = ResolvedNode(
    family=Family.IPV4,
    masquerade_mark=0x4000,
    masquerade_cluster_ip=Masquerade.NEVER,
    pods=None,
    node_port_addresses=None,
    localhost_node_ports=False,
    drop_invalid=False,
    random_fully=True,
)


def service(*weights: int, name: str = "web") -> ResolvedService:
    pool = tuple(
        Endpoint.of(parse_address(f"10.244.{number // 250}.{number % 250 + 1}"), 8080, weight)
        for number, weight in enumerate(weights)
    )
    port = replace(PORT, cluster=pool, endpoints=pool, service=ObjectName("shop", name))
    return ResolvedService(name=port.service, type="ClusterIP", ports=(port,))


def own(*weights: int) -> NftObjects:
    return flat.compile_service(service(*weights), NODE, counts=False).objects[NAME]


def numbers(content: NftObjects) -> dict[str, str]:
    """Return the endpoint of each number."""
    return {
        key.element[-1]: str(value)
        for key, value in content.items()
        if key.is_element and key.name.startswith("endpoints-")
    }


def test_an_endpoint_has_as_many_numbers_as_its_weight_says():
    content = numbers(own(1, 3))
    assert sorted(content) == [f"0x{number:08x}" for number in range(0x400, 0x404)]
    assert Counter(content.values()) == {"10.244.0.1 . 8080": 1, "10.244.0.2 . 8080": 3}
    assert numbers(own(2, 6)) == content


@pytest.mark.parametrize("weights", [(1,) * (flat.MOST_PLACES + 1), (1, flat.MOST_PLACES)], ids=["many", "heavy"])
def test_a_port_with_too_many_numbers_has_a_chain_of_its_own(weights: tuple[int, ...]):
    content = own(*weights)
    assert not numbers(content)
    chains = [key.name for key in content if key.kind is ObjectKind.CHAIN]
    assert len(chains) == 1
    assert chains[0].startswith("service-")


def test_a_port_with_very_many_elements_has_chains_of_its_own():
    ports = service(*(1,) * 100).ports
    for count, is_flat in ((70, True), (90, False)):
        addresses = tuple(parse_address(f"203.0.113.{number}") for number in range(count))
        many = ResolvedService(name=ports[0].service, type="x", ports=(replace(ports[0], external_ips=addresses),))
        content = flat.compile_service(many, NODE, counts=False).objects[NAME]
        assert bool(numbers(content)) is is_flat
        assert any(key.name.startswith("service-") and "/" in key.name for key in content) is not is_flat


def test_another_endpoint_changes_elements_of_maps_of_endpoints_alone():
    steps = (*range(1, flat.MOST_STEPPED, 7), flat.STEP, flat.MOST_STEPPED)
    for count in steps:
        before, after = own(*(1,) * count), own(*(1,) * (count + 1))
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        frontends = {key.element for key in changed if key.name.startswith("service-ips-")}
        is_led_elsewhere = count % flat.STEP == 0
        assert frontends == ({("10.96.0.9", "tcp", "80")} if is_led_elsewhere else set())
        assert any(key.kind is ObjectKind.CHAIN for key in changed) is is_led_elsewhere
        assert set(numbers(before)).isdisjoint(numbers(after))


def test_a_replaced_endpoint_changes_one_element():
    (port,) = service(*(1,) * 9).ports
    pool = (*port.cluster[:-1], Endpoint.of(parse_address("10.250.0.1"), 8080, 1))
    moved = ResolvedService(name=port.service, type="x", ports=(replace(port, cluster=pool, endpoints=pool),))
    before = own(*(1,) * 9)
    after = flat.compile_service(moved, NODE, counts=False).objects[NAME]
    assert before.keys() == after.keys()
    assert len([key for key in before if before[key] != after[key]]) < 4


def test_a_chain_of_a_shape_stays_until_its_last_service_is_gone():
    union = TablesUnion()
    same = [name for name in map(str, range(400)) if own_shard(name) == own_shard("0")][:2]
    contents = [flat.compile_service(service(1, 1, name=name), NODE, counts=False).objects[NAME] for name in same]
    shape = next(key for key in contents[0] if key.kind is ObjectKind.CHAIN)
    assert shape in contents[1]
    added = [union.changes([(name, None, content)]) for name, content in zip(same, contents, strict=True)]
    assert [shape in {change.key for change in changes} for changes in added] == [True, True]
    for name, content in zip(same, contents, strict=True):
        union.replace(name, None, content)
    assert shape not in {change.key for change in union.changes([(same[0], contents[0], None)])}
    assert union.owners()[shape] == ""
    union.replace(same[0], contents[0], None)
    assert union.owners()[shape] == same[1]
    copied = union.copy()
    (gone,) = [change for change in copied.changes([(same[1], contents[1], {})]) if change.key == shape]
    assert (gone.before, gone.after) == (contents[1][shape], None)
    copied.replace(same[1], contents[1], {})
    assert not copied.objects()
    assert union.wants(shape)


def own_shard(name: str) -> int:
    return names.endpoint_shard(service(1, name=name).ports[0])


def test_what_a_left_out_service_had_stays_with_its_old_shape():
    before, after = own(*(1,) * 9), own(1, 1)
    language = LANGUAGES[NAME]
    holder = language.holder(before, None, {})
    assert holder.held(after, ()) == before
    shared = {key: value for key, value in before.items() if not key.is_element}
    others = language.holder({**before, **own_of("other")}, None, shared)
    assert others.held(after, ()) == {key: value for key, value in before.items() if key.is_element}
    assert holder.held(own_of("other"), ()) is None


def own_of(name: str) -> NftObjects:
    """Return the objects of another Service, with another ClusterIP."""
    other = service(1, 1, 1, name=name)
    (port,) = other.ports
    moved = replace(other, ports=(replace(port, cluster_ip=parse_address("10.96.0.10")),))
    return flat.compile_service(moved, NODE, counts=False).objects[NAME]


def test_objects_of_a_deleted_service_are_leftovers_of_it_and_no_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    world = usual()
    assert run(capsys, "export", *options(world), "-o", str(tmp_path))[0] == 0
    empty = str(some(WORLDS, "world of nftables mode") / "objects.yaml")
    given = [empty if word.endswith("objects.yaml") else word for word in options(world)]
    code, text = run(capsys, "plan", *given, "--observed", str(tmp_path), "-o", "json")
    assert code == 0, text
    changes = json.loads(text)["changes"]
    gone = [item for item in changes if item["kind"] == "chain" and item["name"].startswith("nodeport-")]
    assert gone
    assert {(item["action"], item.get("drift")) for item in gone} == {("delete", None)}


@pytest.mark.parametrize(("before", "after"), [LAYOUTS, LAYOUTS[::-1]])
def test_the_table_of_the_other_layout_is_no_drift(
    before: str, after: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = {layout: [layout if word == "flat" else word for word in options(usual())] for layout in LAYOUTS}
    assert run(capsys, "export", *given[before], "-o", str(tmp_path))[0] == 0
    code, text = run(capsys, "plan", *given[after], "--observed", str(tmp_path), "-o", "json")
    assert code == 0, text
    changes = json.loads(text)["changes"]
    assert {"add", "delete"} <= {item["action"] for item in changes}
    assert [item for item in changes if item.get("drift")] == []


def test_a_service_of_a_known_shape_is_new_and_not_deleted_by_something_else():
    first, second = own(1, 1), own_of("web")
    shape = next(key.name for key in second if key.kind is ObjectKind.CHAIN)
    frontend = next(key for key in second if key.name.startswith("service-ips-"))
    chain = NftChain((nft_rule(VerdictCode("drop")),))
    kept = {**first, chain_key(names.FLAT_TABLE, shape): chain}
    scene = SimpleNamespace(ours={NAME: kept})
    change = Change(frontend, None, second[frontend])
    assert LANGUAGES[NAME].drift(change, scene) is None  # type: ignore[arg-type]
    per_service = ElementValue(VerdictCode("goto", "service-ABCDEFGH-shop/web/tcp/http"))
    kept[chain_key(names.FLAT_TABLE, "service-ABCDEFGH-shop/web/tcp/http")] = chain
    assert LANGUAGES[NAME].drift(Change(frontend, None, per_service), scene) is Drift.MISSING  # type: ignore[arg-type]
