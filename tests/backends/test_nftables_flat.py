"""In layout `flat`, connections end where they end in layout `kube-proxy`, and a Service is nothing but elements."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from rulegen.cli.options.common import CliOptions
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.services.compile import Compiled
from rulegen.languages.nftables.language import NAME
from rulegen.languages.nftables.state import NftObjects, ObjectKind
from rulegen.net import Family
from rulegen.ownership import nftables as names
from tests.backends.nft_packets import NftPackets, Packet
from tests.parity.test_parity import name_of
from tests.shared import each, worlds
from tests.sizes import sampled, sized

WORLDS = worlds("nftables.json", "objects.yaml")
MOST = sized(quick=20, usual=40, full=10_000)
"""How many packets of a world are sent."""
LAYOUTS = ("kube-proxy", "flat")
OUTSIDE = {Family.IPV4: ("198.51.100.7", "203.0.113.99"), Family.IPV6: ("2001:db8::7", "fd00:99::99")}


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
