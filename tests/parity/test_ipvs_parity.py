"""In ipvs mode, what we compile is what kube-proxy's ipvs mode wrote: servers, sets, addresses and rules."""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rulegen.cli.options.common import CliOptions
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.services.plan import plan_node
from rulegen.host.files.dumps import Dumps, read_dumps
from rulegen.languages.addresses.state import BOUND, AddressKey, Links
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipvs import state as ipvs
from rulegen.net import Address, Protocol, parse_address, parse_network
from rulegen.plan.plan import Plan
from tests.kernels.observed import observing
from tests.parity.test_parity import name_of, run
from tests.shared import YamlLoader, each, worlds
from tests.sizes import sized


@cache
def told_of(world: Path) -> dict[str, Any]:
    """Return what a world's file tells beside the host."""
    reported: dict[str, Any] = yaml.load((world / "world.yaml").read_text(encoding="utf-8"), YamlLoader)
    return reported


def before(world: Path) -> list[Address]:
    """Return the addresses of the virtual servers that were there before kube-proxy, in order."""
    lines = " ".join((told_of(world).get("ipvs") or {}).get("preexisting") or ())
    return [parse_address(text.strip("[]")) for text in re.findall(r"-A \S+ (\S+):\d+", lines)]


# Where kube-proxy's answer depends on the order of a map, only one of the right ones was recorded.
FILES = ("ipvsadm.save", "ipset.save", "kube-ipvs0.addr", "iptables.save", "ip6tables.save")
WORLDS = [
    world
    for world in worlds(*(f"ipvs/{name}" for name in FILES), "objects.yaml")
    if told_of(world).get("kind") != "ambiguous"
]
MOST = sized(quick=1, usual=5, full=100)
NODE_PORTS = "KUBE-NODE-PORT-TCP"


def options(world: Path) -> tuple[str, ...]:
    files = {"-f": "objects.yaml", "--config": "config.yaml", "--host": "world.yaml"}
    return ("--mode", "ipvs", *(word for flag, name in files.items() for word in (flag, str(world / name))))


@pytest.mark.parametrize("world", each(WORLDS, "world of ipvs mode"), ids=name_of)
def test_a_node_that_kube_proxy_has_programmed_needs_no_changes(world: Path, capsys: pytest.CaptureFixture[str]):
    code, text = run(capsys, "plan", *options(world), "--observed", str(world / "ipvs"), "--detailed-exitcode")
    assert (code, text.splitlines()[-1]) == (0, "No changes. The node matches the objects."), text
    assert "not observed" not in text


@pytest.mark.parametrize("world", each(WORLDS[::7], "world of ipvs mode"), ids=name_of)
def test_what_is_exported_is_what_kube_proxy_wrote(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "export", *options(world), "-o", str(tmp_path))[0] == 0
    code, text = run(capsys, "plan", *options(world), "--observed", str(tmp_path), "--detailed-exitcode")
    assert code == 0, text
    for name in ("ipvsadm.save", "ipset.save"):
        ours, theirs = (sorted(_bare(folder / name)) for folder in (tmp_path, world / "ipvs"))
        if not before(world):
            assert ours == theirs


def _bare(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if not line.startswith("create")]


def planned(world: Path, dumps: Dumps) -> Plan:
    chosen = CliOptions(
        files=(str(world / "objects.yaml"),),
        config=str(world / "config.yaml"),
        host=str(world / "world.yaml"),
        mode="ipvs",
    )
    inputs = Inputs(chosen)
    observed = observing(rulesets=dumps.rulesets, sets=dumps.sets, servers=dumps.servers, links=dumps.links)
    return plan_node(inputs.compiled(observed, is_live=False), observed, inputs.facts)


def shown(plan: Plan) -> list[str]:
    return [f"{item.action} {item.kind} {item.name}" for item in plan.items if item.language != "iptables"]


@pytest.mark.parametrize("world", each(WORLDS[::3], "world of ipvs mode"), ids=name_of)
def test_any_one_object_removed_or_added_is_found_and_shown(world: Path):
    dumps = read_dumps([str(world / "ipvs")])
    sets, servers, links = dumps.sets or {}, dumps.servers or {}, dumps.links or Links()
    chance = random.Random(world.name)
    assert planned(world, dumps).is_empty

    others = before(world)
    kept = [key for key in servers if key.frontend.address not in others]
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
        dumps.links = Links(links.devices, {other: BOUND for other in links.addresses if other != key})
        assert shown(planned(world, dumps)) == [f"+ address {key} on kube-ipvs0"]

    address = stray(world, {key.frontend.address for key in servers} | {key.address for key in links.addresses})
    bound = AddressKey.whole("kube-ipvs0", address)
    dumps.links = Links(links.devices, {**links.addresses, bound: BOUND})
    frontend = ipvs.Frontend.of(Protocol.TCP, address, 80)
    dumps.servers = {**servers, ipvs.VirtualServerKey(frontend): ipvs.VirtualServer("rr")}
    port = next(port for port in map(str, range(31999, 0, -1)) if ipset.EntryKey(NODE_PORTS, port) not in sets)
    dumps.sets = {**sets, ipset.EntryKey(NODE_PORTS, port): ipset.PLAIN}
    assert sorted(shown(planned(world, dumps))) == [
        f"- address {address}/32 on kube-ipvs0",
        f"- entry {NODE_PORTS} {port}",
        f"- virtual server TCP {address}:80",
    ]


def stray(world: Path, used: Collection[Address]) -> Address:
    """Return an address that nothing uses and that the configuration does not leave to others."""
    config = yaml.load((world / "config.yaml").read_text(encoding="utf-8"), YamlLoader)
    excluded = list(map(parse_network, (config.get("ipvs") or {}).get("excludeCIDRs") or ()))
    free = (parse_address(f"203.0.113.{number}") for number in range(250, 0, -1))
    return next(a for a in free if a not in used and not any(a in network for network in excluded))


@pytest.mark.parametrize(
    "world",
    each([world for world in WORLDS if before(world)], "world with virtual servers that were there before"),
    ids=name_of,
)
def test_virtual_servers_of_others_are_no_concern_of_ours(world: Path):
    dumps = read_dumps([str(world / "ipvs")])
    servers, bound = dumps.servers or {}, {key.address for key in (dumps.links or Links()).addresses}
    (interface, *_) = told_of(world)["host"]["interfaces"]
    node = [parse_address(text.partition("/")[0]) for text in interface["addresses"]]
    for address in {*before(world), *node} - bound:
        for port in (80, 9443):
            frontend = ipvs.VirtualServerKey(ipvs.Frontend.of(Protocol.TCP, address, port))
            if frontend not in servers:
                dumps.servers = {**servers, frontend: ipvs.VirtualServer("rr")}
                assert planned(world, dumps).is_empty, str(frontend)
