"""What two versions of nft print of one table that an agent protects: read as the same objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.languages.nftables import state
from rulegen.languages.nftables.read_json import read_json
from rulegen.languages.nftables.read_text import read_text
from rulegen.net import Family

TABLE = frozenset({"rulegen"})

FOLDER = Path(__file__).parent / "nft_versions"
"""What `nft list ruleset` and `nft -j list ruleset` printed on one node."""
VERSIONS = ("1.0.6", "1.1.3")


def dump(version: str, kind: str) -> str:
    return (FOLDER / f"{version}.{kind}").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_of_nft_list_the_same_objects(version: str):
    """They differ in flags, in the names of priorities, in types of values, and in the order of objects."""
    objects = read_text(dump(version, "txt"), version, TABLE)
    assert objects == read_json(dump(version, "json"), version, TABLE)
    assert objects == read_text(dump(VERSIONS[0], "txt"), VERSIONS[0], TABLE)
    ours = objects[Family.IPV4]
    assert ours[state.table_key("rulegen")] == state.TableValue()
    endpoints = ours[state.set_key("rulegen", "endpoints-1")]
    assert endpoints == state.NamedSet(
        ("ipv4_addr", "inet_proto", "inet_service", "mark"), ("ipv4_addr", "inet_service")
    )
    chain = ours[state.chain_key("rulegen", "nat-output")]
    assert isinstance(chain, state.NftChain)
    assert chain.base == state.BaseChain("nat", "output", -100)
