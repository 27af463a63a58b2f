"""Tables of layout `flat` in a real kernel: nft lists what was written, and loads what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.diff.changes import diff
from rulegen.host.commands.runner import Command, run
from rulegen.host.netfilter import nft
from rulegen.host.nftables.write import write
from rulegen.languages.nftables.expressions import Concat, Ct, Literal, MapLookup, Meta, Payload, SetReference
from rulegen.languages.nftables.read_text import read_text
from rulegen.languages.nftables.script import format_tables
from rulegen.languages.nftables.state import (
    BaseChain,
    NamedSet,
    NftChain,
    NftObjects,
    TableValue,
    chain_key,
    set_key,
    table_key,
)
from rulegen.languages.nftables.statements import Compare, Dnat, UpdateSet, nft_rule
from rulegen.net import Family
from rulegen.ownership.nftables import FLAT_TABLE, TABLES
from tests.backends.test_nftables_flat import WORLDS, compiled, objects
from tests.parity.test_parity import name_of
from tests.shared import each
from tests.sizes import sampled

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("world", each(sampled(WORLDS[8::33]), "world of nftables mode"), ids=name_of)
def test_what_is_written_is_listed_again(world: Path, family: Family):
    wanted = objects(world, "flat", family)
    assert write(family, diff({}, wanted)) == 1
    assert nft.observe(run, family, TABLES) == wanted
    assert read_text(format_tables(wanted, family), "export", TABLES)[family] == wanted


@pytest.mark.parametrize(("before", "after"), [("kube-proxy", "flat"), ("flat", "kube-proxy")])
def test_the_table_of_the_other_layout_is_removed(before: str, after: str):
    for world in WORLDS[8:9]:
        first, second = (objects(world, layout, Family.IPV4) for layout in (before, after))
        write(Family.IPV4, diff({}, first))
        changes = diff(first, second)
        write(Family.IPV4, changes)
        write(Family.IPV4, changes, is_removal=True)
        left = nft.observe(run, Family.IPV4, TABLES)
        assert left == second
        assert {key.table for key in left} == {FLAT_TABLE if after == "flat" else "kube-proxy"}


@pytest.mark.parametrize("world", each(sampled(WORLDS[8::50]), "world of nftables mode"), ids=name_of)
def test_an_export_is_loaded_by_nft(world: Path, tmp_path: Path):
    wanted = {family: objects(world, "flat", family) for family in compiled(world, "flat").unions}
    export = tmp_path / "nftables.nft"
    export.write_text("".join(format_tables(content, family) for family, content in wanted.items()))
    ended = run(Command(("nft", "-f", str(export))))
    assert (ended.code, ended.stderr) == (0, "")
    for family, content in wanted.items():
        assert nft.observe(run, family, TABLES) == content


@pytest.mark.parametrize("family", Family)
def test_a_map_that_rules_learn_is_listed_again(family: Family):
    header, kind = ("ip", "ipv4_addr") if family is Family.IPV4 else ("ip6", "ipv6_addr")
    source, target, port = Payload(header, "saddr"), Payload(header, "daddr"), Payload("th", "dport")
    frontend = (Ct(f"{header} daddr", "original"), Meta("l4proto"), Ct("proto-dst", "original"))
    learnt = NamedSet(
        (kind, kind, "inet_proto", "inet_service"), (kind, "inet_service"), frozenset({"timeout"}), 10800, 65535
    )
    hit = Dnat(MapLookup(Concat((source, target, Meta("l4proto"), port)), SetReference("learnt")))
    learn = UpdateSet("update", SetReference("learnt"), Concat((source, *frontend)), Concat((target, port)), 600)
    new = Compare(Ct("state"), Literal("new"), "in")
    wanted: NftObjects = {
        table_key(FLAT_TABLE): TableValue(),
        set_key(FLAT_TABLE, "learnt"): learnt,
        chain_key(FLAT_TABLE, "hit"): NftChain((nft_rule(hit),), BaseChain("nat", "prerouting", -100)),
        chain_key(FLAT_TABLE, "learn"): NftChain((nft_rule(new, learn),), BaseChain("filter", "prerouting", -99)),
    }
    write(family, diff({}, wanted))
    assert nft.observe(run, family, TABLES) == wanted
