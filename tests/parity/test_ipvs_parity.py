"""In ipvs mode, what we compile is what kube-proxy's ipvs mode wrote: servers, sets, addresses and rules."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from rulegen.cli.inputs import Inputs
from rulegen.cli.options import Chosen
from rulegen.host.dumps import Dumps, read_dumps
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipvs import state as ipvs
from rulegen.languages.links.state import BOUND, AddressKey, Links
from rulegen.net import Protocol, parse_address
from rulegen.plan.plan import Plan
from rulegen.road import Observed, plan_node
from tests.parity.test_parity import name_of, run
from tests.shared import SHARED, shared, worlds


def told_of(world: Path) -> dict[str, Any]:
    """Return what a world's file tells beside the host."""
    told: dict[str, Any] = yaml.safe_load((world / "world.yaml").read_text(encoding="utf-8"))
    return told


def has_others(world: Path) -> bool:
    """Return whether somebody else's virtual servers were there before."""
    return bool((told_of(world).get("ipvs") or {}).get("preexisting"))


# Where kube-proxy's answer depends on the order of a map, only one of the right ones was recorded.
WORLDS = [world for world in worlds("ipvs/ipvsadm.save", "objects.yaml") if told_of(world).get("kind") != "ambiguous"]
MOST = 12


def options(world: Path) -> tuple[str, ...]:
    files = {"-f": "objects.yaml", "--config": "config.yaml", "--host": "world.yaml"}
    return ("--mode", "ipvs", *(word for flag, name in files.items() for word in (flag, str(world / name))))


def test_there_are_worlds():
    shared("parity")
    assert WORLDS


@pytest.mark.parametrize("world", WORLDS, ids=name_of)
def test_a_node_that_kube_proxy_has_programmed_needs_no_changes(world: Path, capsys: pytest.CaptureFixture[str]):
    code, text = run(capsys, "plan", *options(world), "--observed", str(world / "ipvs"), "--detailed-exitcode")
    assert (code, text.splitlines()[-1]) == (0, "No changes. The node matches the objects."), text
    assert "not observed" not in text


@pytest.mark.parametrize("world", WORLDS[::7], ids=name_of)
def test_what_is_exported_is_what_kube_proxy_wrote(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "export", *options(world), "-o", str(tmp_path))[0] == 0
    code, text = run(capsys, "plan", *options(world), "--observed", str(tmp_path), "--detailed-exitcode")
    assert code == 0, text
    for name in ("ipvsadm.save", "ipset.save"):
        ours, theirs = (sorted(_bare(folder / name)) for folder in (tmp_path, world / "ipvs"))
        if not has_others(world):
            assert ours == theirs


def _bare(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if not line.startswith("create")]


def planned(world: Path, dumps: Dumps) -> Plan:
    chosen = Chosen(
        files=(str(world / "objects.yaml"),),
        config=str(world / "config.yaml"),
        host=str(world / "world.yaml"),
        mode="ipvs",
    )
    inputs = Inputs(chosen)
    observed = Observed(rulesets=dumps.rulesets, sets=dumps.sets, servers=dumps.servers, links=dumps.links)
    return plan_node(inputs.compiled(dumps.rulesets, is_live=False), observed, inputs.facts)


def shown(plan: Plan) -> list[str]:
    return [f"{item.action} {item.kind} {item.name}" for item in plan.items if item.language != "iptables"]


@pytest.mark.parametrize("world", WORLDS[::3], ids=name_of)
def test_any_one_object_removed_or_added_is_found_and_shown(world: Path):
    dumps = read_dumps([str(world / "ipvs")])
    sets, servers, links = dumps.sets or {}, dumps.servers or {}, dumps.links or Links()
    chance = random.Random(world.name)
    assert planned(world, dumps).is_empty

    kept = [key for key in servers if str(key.frontend.address) != "10.200.0.5"]
    for key in chance.sample(kept, min(MOST, len(kept))):
        if isinstance(key, ipvs.RealServerKey):
            dumps.servers = {other: value for other, value in servers.items() if other != key}
            (line,) = shown(planned(world, dumps))
            assert line.startswith("+ real server ")
            assert str(key.frontend) in line
    for key in chance.sample(sorted(sets), min(MOST, len(sets))):
        if isinstance(key, ipset.EntryKey):
            dumps.servers, dumps.sets = servers, {other: value for other, value in sets.items() if other != key}
            assert shown(planned(world, dumps)) == [f"+ entry {key.name} {key.entry}"]
    dumps.sets, dumps.servers = sets, servers
    for key in list(links.addresses)[:MOST]:
        others = {other: BOUND for other in links.addresses if other != key}
        dumps.links = Links(links.devices, others)
        assert shown(planned(world, dumps)) == [f"+ address {key} on kube-ipvs0"]

    stray = AddressKey.whole("kube-ipvs0", parse_address("203.0.113.250"))
    dumps.links = Links(links.devices, {**links.addresses, stray: BOUND})
    frontend = ipvs.Frontend.of(Protocol.TCP, stray.address, 80)
    dumps.servers = {**servers, ipvs.VirtualServerKey(frontend): ipvs.VirtualServer("rr")}
    dumps.sets = {**sets, ipset.EntryKey("KUBE-NODE-PORT-TCP", "31999"): ipset.PLAIN}
    assert sorted(shown(planned(world, dumps))) == [
        "- address 203.0.113.250/32 on kube-ipvs0",
        "- entry KUBE-NODE-PORT-TCP 31999",
        "- virtual server TCP 203.0.113.250:80",
    ]


def test_virtual_servers_of_others_are_no_concern_of_ours():
    world = next((world for world in WORLDS if has_others(world)), None)
    if world is None:
        pytest.skip(f"no world in {SHARED} with virtual servers that were there before")
    dumps = read_dumps([str(world / "ipvs")])
    servers = dumps.servers or {}
    for address, port in (("10.201.0.5", 80), ("192.168.50.10", 9443), ("10.200.0.9", 30600)):
        frontend = ipvs.Frontend.of(Protocol.TCP, parse_address(address), port)
        dumps.servers = {**servers, ipvs.VirtualServerKey(frontend): ipvs.VirtualServer("rr")}
        assert planned(world, dumps).is_empty
