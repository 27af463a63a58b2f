"""The rules do what the specification says: for random worlds, nodes and packets, odds included."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.net import family_of
from tests.flows.packets import agree, outcome
from tests.flows.scenes import known_connections, packets, rich_worlds, simulators, sites
from tests.flows.specification import counted, expected, stays_s
from tests.sizes import examples
from tests.strategies.services import worlds

HERE = Path(__file__).parent
HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.not_quick
@settings(max_examples=examples(40), deadline=None, suppress_health_check=HEALTH)
@given(st.one_of(worlds(), rich_worlds()), sites(), st.booleans())
def test_every_packet_ends_where_kubernetes_says(world, site, counts):
    rules = simulators(world, site, counts=counts)
    for packet in (*packets(world, site), *known_connections(site)):
        ways = rules[family_of(packet.destination)].ways(packet)
        results, wanted = outcome(ways), expected(world, site, packet)
        assert agree(results, wanted), f"{packet}\n  rules: {results}\n  specification: {wanted}"
        names = counted(world, site, packet) if counts else set()
        for way in ways:
            assert way.packet.counted == names, packet
            assert not (way.packet.masqueraded and way.packet.mark), f"{packet}: leaves with the mark"


@pytest.mark.not_quick
@settings(max_examples=examples(20), deadline=None, suppress_health_check=HEALTH)
@given(rich_worlds(), sites())
def test_clients_keep_their_endpoint_until_the_timeout(world, site):
    rules = simulators(world, site)
    for packet in packets(world, site):
        simulator, seconds = rules[family_of(packet.destination)], stays_s(world, site, packet)
        ways = simulator.ways(packet)
        for way in ways:
            assert bool(way.packet.seen) == (seconds is not None and way.packet.rewritten is not None)
            if way.packet.seen:
                for away, wanted in ((seconds, {way.disposition: 1}), (seconds + 1, outcome(ways))):
                    again = replace(packet, seen=dict.fromkeys(way.packet.seen, away))
                    assert agree(simulator.outcome(again), wanted), (packet, away)


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return froms | {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}


OBJECTS = {"rulegen.kube.objects.structs", "rulegen.kube.snapshot.world", "rulegen.net"}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("saved.py", set()),
        ("packets.py", {"tests.flows.saved"}),
        ("endpoints.py", OBJECTS),
        ("specification.py", OBJECTS | {"tests.flows.endpoints", "tests.flows.packets"}),
    ],
)
def test_judges_share_no_code_with_the_judged(name, allowed):
    ours = {module for module in imports(HERE / name) if module.split(".")[0] in {"rulegen", "tests", "integration"}}
    assert ours <= allowed
