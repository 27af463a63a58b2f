"""In nftables mode, what we compile is what kube-proxy's nftables mode wrote, and nothing that differs goes unseen."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from rulegen.cli.options.common import CliOptions
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.services.compile import Compiled
from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.plan import plan_node
from rulegen.host.files.dumps import read_dumps
from rulegen.languages.nftables.language import NAME
from rulegen.languages.nftables.read_json import read_json
from rulegen.net import Family
from rulegen.ownership.nftables import TABLES
from rulegen.plan.plan import Plan
from tests.parity.test_parity import name_of, run
from tests.shared import each, some, worlds
from tests.sizes import sampled, sized

DUMPS = {Family.IPV4: "nftables.json", Family.IPV6: "nftables6.json"}
TEXT = "nftables.txt"
WORLDS = worlds(*DUMPS.values(), TEXT, "objects.yaml")
MOST = sized(quick=3, usual=5, full=10_000)
CHANGES = 2
NO_CHANGES = "No changes. The node matches the objects."


def options(world: Path) -> tuple[str, ...]:
    files = {"-f": "objects.yaml", "--config": "config.yaml", "--host": "world.yaml"}
    words = (word for flag, name in files.items() for word in (flag, str(world / name)))
    return ("--mode", "nftables", "--nftables-layout", "kube-proxy", *words)


@pytest.mark.parametrize("dumps", [tuple(DUMPS.values()), (TEXT,)], ids=["json", "text"])
@pytest.mark.parametrize("world", each(WORLDS, "world of nftables mode"), ids=name_of)
def test_a_node_of_kube_proxy_needs_no_changes(world: Path, dumps: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    observed = (word for name in dumps for word in ("--observed", str(world / name)))
    code, text = run(capsys, "plan", *options(world), *observed, "--detailed-exitcode")
    assert (code, text.splitlines()[-1]) == (0, NO_CHANGES), text
    assert "not observed" not in text


@pytest.mark.parametrize("world", each(sampled(WORLDS[::7]), "world of nftables mode"), ids=name_of)
def test_an_export_is_the_table_of_kube_proxy(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "export", *options(world), "-o", str(tmp_path))[0] == 0
    code, text = run(capsys, "plan", *options(world), "--observed", str(tmp_path), "--detailed-exitcode")
    assert code == 0, text
    ours, theirs = (
        read_dumps([str(file)], needs_rules=False).others for file in (tmp_path / "nftables.nft", world / TEXT)
    )
    assert ours == theirs


@lru_cache(maxsize=2)
def inputs_of(world: Path) -> Inputs:
    files = {"files": (str(world / "objects.yaml"),), "config": str(world / "config.yaml")}
    layout = {"mode": "nftables", "nftables_layout": "kube-proxy"}
    return Inputs(CliOptions(**files, **layout, host=str(world / "world.yaml")))  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def compiled_of(world: Path) -> Compiled:
    return inputs_of(world).compiled(None, is_live=False)


def planned(world: Path, family: Family, entries: list[Any]) -> Plan:
    """Return the plan against an edited dump of one family."""
    objects = read_json(json.dumps({"nftables": entries}), "edited", TABLES)[family]
    observed = Observed(families=(family,), states={(NAME, family): objects})
    return plan_node(compiled_of(world), observed, inputs_of(world).facts)


def shown(plan: Plan) -> list[str]:
    return [f"{item.action} {item.kind} {item.name}" for item in plan.items]


def chosen(values: list[Any], world: Path) -> list[Any]:
    return values if len(values) <= MOST else random.Random(world.name).sample(values, MOST)


def with_entry(entries: list[Any], index: int, *changed: Any) -> list[Any]:
    return [*entries[:index], *changed, *entries[index + 1 :]]


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("world", each(sampled(WORLDS[::3]), "world of nftables mode"), ids=name_of)
def test_one_rule_or_element_too_few_or_many_is_shown(world: Path, family: Family):
    entries = json.loads((world / DUMPS[family]).read_text())["nftables"]
    assert shown(planned(world, family, entries)) == []
    rules = [index for index, entry in enumerate(entries) if "rule" in entry]
    for index in chosen(rules, world):
        rule = entries[index]
        chain = rule["rule"]["chain"]
        foreign = {"rule": {**rule["rule"], "expr": [{"accept": None}]}}
        for edited in ((), (rule, rule), (foreign, rule)):
            assert shown(planned(world, family, with_entry(entries, index, *edited))) == [f"~ chain {chain}"]
    for index, entry in enumerate(entries):
        (kind,) = entry
        elements = entry[kind].get("elem", []) if kind in {"set", "map"} else []
        for at in chosen(list(range(len(elements))), world):
            fewer = {kind: {**entry[kind], "elem": [*elements[:at], *elements[at + 1 :]]}}
            (line,) = shown(planned(world, family, with_entry(entries, index, fewer)))
            assert line.startswith(f"+ element {entry[kind]['name']} ")


STRANGE = {"nodeport-ips": "192.0.2.1", "cluster-ips": "192.0.2.1", "service-nodeports": ("tcp", 9)}


@pytest.mark.parametrize("world", each(sampled(WORLDS[:20]), "world of nftables mode"), ids=name_of)
def test_an_object_too_many_is_shown(world: Path):
    entries = json.loads((world / DUMPS[Family.IPV4]).read_text())["nftables"]
    at = {"family": "ip", "table": "kube-proxy"}
    accept = {"rule": {**at, "chain": "theirs", "expr": [{"accept": None}]}}
    for added, line in (
        (({"chain": {**at, "name": "theirs"}}, accept), "- chain theirs"),
        (({"set": {**at, "name": "theirs", "type": "ipv4_addr"}},), "- set theirs"),
        (({"counter": {**at, "name": "theirs", "packets": 1, "bytes": 2}},), "- counter theirs"),
    ):
        assert shown(planned(world, Family.IPV4, [*entries, *added])) == [line]
    for index, entry in enumerate(entries):
        (kind,) = entry
        name = entry[kind].get("name")
        if kind in {"set", "map"} and name in STRANGE:
            key = STRANGE[name]
            element: Any = key if isinstance(key, str) else [{"concat": list(key)}, {"drop": None}]
            more = {kind: {**entry[kind], "elem": [*entry[kind].get("elem", []), element]}}
            key_text = key if isinstance(key, str) else " . ".join(map(str, key))
            plan = planned(world, Family.IPV4, with_entry(entries, index, more))
            assert shown(plan) == [f"- element {name} {key_text}"]


@pytest.mark.parametrize("world", each(sampled(WORLDS[:30:5]), "world of nftables mode"), ids=name_of)
def test_a_chain_or_set_too_few_is_found(world: Path):
    entries = json.loads((world / DUMPS[Family.IPV4]).read_text())["nftables"]
    for index, entry in enumerate(entries):
        (kind,) = entry
        if kind in {"chain", "set", "map"}:
            name = entry[kind]["name"]
            kept = [
                other for at, other in enumerate(entries) if at != index and other.get("rule", {}).get("chain") != name
            ]
            assert f"+ {kind} {name}" in shown(planned(world, Family.IPV4, kept))


@pytest.mark.parametrize("world", each(sampled(WORLDS[::16]), "world of nftables mode"), ids=name_of)
def test_the_rule_of_unknown_ranges_is_not_judged(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    documents = (world / "objects.yaml").read_text().split("\n---\n")
    objects = tmp_path / "objects.yaml"
    objects.write_text("\n---\n".join(each for each in documents if "kind: ServiceCIDR" not in each))
    given = [str(objects) if word.endswith("objects.yaml") else word for word in options(world)]
    code, text = run(capsys, "plan", *given, "--observed", str(world / TEXT), "--detailed-exitcode")
    assert code == 0, text
    other = ("--service-cidr", "10.64.0.0/12", "--detailed-exitcode")
    code, text = run(capsys, "plan", *given, "--observed", str(world / TEXT), *other)
    assert code == CHANGES, "ranges that are given are compared"
    assert "~ chain cluster-ips-check [IPv4]" in text


def test_a_deleted_service_is_named_by_its_chains_and_elements(capsys: pytest.CaptureFixture[str]):
    for world in (world for world in WORLDS if world.name.startswith("014-")):
        empty = next(other for other in WORLDS if other.name.startswith("001-"))
        given = ("--mode", "nftables", "-f", str(empty / "objects.yaml"), "--config", str(world / "config.yaml"))
        dump = ("--host", str(world / "world.yaml"), "--observed", str(world / TEXT), "-o", "json")
        code, text = run(capsys, "plan", *given, *dump)
        assert code == 0
        gone = [item for item in json.loads(text)["changes"] if item["kind"] == "chain"]
        assert gone
        assert all(str(item["service"]).startswith("default/") for item in gone), gone


def test_a_dump_of_another_tool_is_no_dump_of_this_mode(capsys: pytest.CaptureFixture[str]):
    world = some(WORLDS, "world of nftables mode")
    code, _ = run(capsys, "plan", *options(world), "--observed", str(world / "iptables.save"))
    assert code == 1


def test_a_family_without_a_dump_is_not_planned(capsys: pytest.CaptureFixture[str]):
    world = some(WORLDS, "world of nftables mode")
    code, text = run(capsys, "plan", *options(world), "--observed", str(world / DUMPS[Family.IPV4]))
    assert code == 0
    assert "IPv6 was not observed, so it is not in the plan" in text
