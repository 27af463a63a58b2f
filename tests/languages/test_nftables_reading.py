"""Dumps of nft give the same objects from JSON and from text; a bad dump is an error with its place."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rulegen.errors import InputError
from rulegen.languages.nftables import state
from rulegen.languages.nftables.read_json import is_json_dump, read_json
from rulegen.languages.nftables.read_text import is_text_dump, read_text
from rulegen.languages.nftables.state import NftChain, NftObjects, OtherObject
from rulegen.languages.nftables.statements import OtherStatement
from rulegen.net import Family
from tests.shared import each, some, worlds
from tests.sizes import sized

OURS = frozenset({"kube-proxy"})
WORLDS = worlds("nftables.json", "nftables6.json", "nftables.txt")
CUTS = sized(quick=10, usual=60, full=2000)

TEXT = """\
table inet filter {
	chain input { # handle 1
		type filter hook input priority filter; policy drop;
		iifname "lo; }" xt match "comment" accept comment "a } brace"
	}
}
table ip kube-proxy { # handle 7
	comment "rules for kube-proxy"

	counter hits {
		comment "theirs"
		packets 3 bytes 180
	}

	set cluster-ips { # handle 2
		type ipv4_addr
		comment "Active ClusterIPs"
		elements = { 10.96.0.1 comment "a, b : c", 10.96.0.2 }
	}

	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.1 . tcp . 443 comment "x" : goto "service-A/b/tcp/",
				10.96.0.2 . 17 . 53 : drop }
	}

	set affinity-A/b {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 1h30m
		elements = { 10.0.0.9 timeout 1h30m expires 5m2s }
	}

	chain services {
		type nat hook output priority dstnat - 10
		policy accept
		ip daddr . meta l4proto . th dport vmap @service-ips comment "all; services" # handle 9
		ct state established,new counter packets 5 bytes 300 log prefix "x" accept
		ip saddr != { 192.0.2.8/29, 192.0.2.0/29, 192.0.2.16-192.0.2.18 } meta mark set mark or 0x4000
	}
}
"""


def of_both(text: str, json_text: str) -> tuple[NftObjects, NftObjects]:
    return read_text(text, "text", OURS)[Family.IPV4], read_json(json_text, "json", OURS)[Family.IPV4]


@pytest.mark.parametrize("world", each(WORLDS, "world of nftables mode"), ids=lambda world: world.name)
def test_text_and_json_of_a_node_are_the_same_objects(world: Path):
    text = (world / "nftables.txt").read_text()
    states = {}
    for name in ("nftables.json", "nftables6.json"):
        dump = (world / name).read_text()
        assert is_json_dump(dump)
        states |= read_json(dump, name, OURS)
    assert is_text_dump(text)
    assert read_text(text, "nftables.txt", OURS) == states
    assert set(states) == set(Family)
    for objects in states.values():
        chains = [value for value in objects.values() if isinstance(value, NftChain)]
        assert not [s for chain in chains for rule in chain.rules for s in rule.statements if type(s) is OtherStatement]


def test_what_nft_may_add_does_not_change_the_objects():
    objects = read_text(TEXT, "dump", OURS)
    assert set(objects) == {Family.IPV4}
    (ours,) = objects.values()
    assert {key.element for key in ours if key.name == "cluster-ips"} == {(), ("10.96.0.1",), ("10.96.0.2",)}
    values = {key.element: str(value) for key, value in ours.items() if key.name == "service-ips" and key.element}
    assert values == {("10.96.0.1", "tcp", "443"): "goto service-A/b/tcp/", ("10.96.0.2", "udp", "53"): "drop"}
    affinity = ours[state.set_key("kube-proxy", "affinity-A/b")]
    assert affinity == state.NamedSet(("ipv4_addr",), (), frozenset({"timeout"}), 5400, 65535)
    assert not any(key.element for key in ours if key.name == "affinity-A/b"), "packets add these elements"


def test_what_rulegen_never_writes_is_kept_as_it_is():
    ours = read_text(TEXT, "dump", OURS)[Family.IPV4]
    assert isinstance(ours[state.other_key("kube-proxy", "counter", "hits")], OtherObject)
    chain = ours[state.chain_key("kube-proxy", "services")]
    assert isinstance(chain, NftChain)
    assert chain.base == state.BaseChain("nat", "output", -110)
    assert [str(rule) for rule in chain.rules] == [
        "ip daddr . meta l4proto . th dport vmap @service-ips",
        'ct state established,new counter log prefix "x" accept',
        "ip saddr != 192.0.2.0-192.0.2.18 meta mark set mark or 0x4000",
    ]
    assert type(chain.rules[1].statements[-1]) is OtherStatement


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("table ip kube-proxy {\n\tset a {\n\t}\n}\n", "line 3: a set without a type"),
        ("table ip kube-proxy {\n\tmap a {\n\t\ttype x : verdict\n\t\telements = { a }\n\t}\n}\n", "an element of 'a'"),
        ("table ip kube-proxy {\n\tset a {\n\t\ttype x\n\t\ttimeout soon\n\t}\n}\n", "'soon' is not a time"),
        ("table ip kube-proxy {\n\tchain a {\n\t\ttype nat hook x\n\t}\n}\n", "a hook without a type or a priority"),
        ("table ip kube-proxy {\n\tchain a {\n\t}\n\tchain a {\n\t}\n}\n", "'a' appears twice"),
        ("table ip kube-proxy {\n\tchain a {\n", "the dump ends within a table"),
        ('table ip kube-proxy {\n\tchain a {\n\t\taccept comment "x\n\t}\n}\n', "line 3: a quote without an end"),
        ("table ip kube-proxy {\n\twhat\n}\n", "'what' in place of a set, map or chain"),
        ("table ip kube-proxy {\n}\nmore\n", "line 3: 'more' in place of 'table'"),
    ],
)
def test_bad_text_is_an_error_with_its_line(text: str, place: str):
    with pytest.raises(InputError, match=r"line [0-9]+: ") as error:
        read_text(text, "dump", OURS)
    assert place in error.value.message


TABLE = {"table": {"family": "ip", "name": "kube-proxy"}}


@pytest.mark.parametrize(
    ("entries", "place"),
    [
        ({}, "no list"),
        ([1], "nftables[0]: not an object"),
        ([{"set": []}], "nftables[0]: set is not an object"),
        ([{"set": {"family": "ip", "table": "kube-proxy", "type": "x"}}], "nftables[0].set: no text in the field name"),
        ([{"chain": {"family": "ip", "name": "x"}}], "nftables[0].chain: no text in the field table"),
        ([{"rule": {"family": "ip", "table": "kube-proxy", "chain": "x"}}], "a rule of the chain 'x'"),
        ([{"set": {"family": "ip", "table": "kube-proxy", "name": "x", "type": "y", "elem": 1}}], "no list"),
        ([{"set": {"family": "ip", "table": "kube-proxy", "name": "x", "type": "y", "elem": [{}]}}], "an element of"),
        ([{"set": {"family": "ip", "table": "kube-proxy", "name": "x", "type": "y", "size": "1"}}], "field size"),
        ([TABLE, TABLE], "appears twice"),
    ],
)
def test_bad_json_is_an_error_with_its_place(entries: object, place: str):
    with pytest.raises(InputError) as error:
        read_json(json.dumps({"nftables": entries}), "dump", OURS)
    assert place in error.value.message


@pytest.mark.parametrize("name", ["nftables.txt", "nftables.json"])
def test_a_dump_that_is_cut_anywhere_is_an_error(name: str):
    world = some(WORLDS, "world of nftables mode")
    text = (world / name).read_text().strip()
    read = read_text if name.endswith("txt") else read_json
    ends = text.rfind("\ntable ip6") if name.endswith("txt") else len(text)
    for at in random.Random(1).sample(range(1, ends), CUTS):
        with pytest.raises(InputError):
            read(text[:at], "dump", OURS)


def test_statements_of_any_shape_are_no_crash():
    shapes = [None, 1, [], {}, "x", {"match": {}}, {"dnat": 3}, {"vmap": {"key": [], "data": "@x"}}, {"a": {"b": []}}]
    shapes += [{"match": {"left": {"meta": {"key": "mark"}}, "right": "x", "op": "=="}}, {"goto": None}]
    chain = {"family": "ip", "table": "kube-proxy", "name": "a"}
    rule = {"family": "ip", "table": "kube-proxy", "chain": "a", "expr": shapes}
    ours = read_json(json.dumps({"nftables": [TABLE, {"chain": chain}, {"rule": rule}]}), "dump", OURS)[Family.IPV4]
    (chain_there,) = (value for value in ours.values() if isinstance(value, NftChain))
    assert [type(statement) for statement in chain_there.rules[0].statements] == [OtherStatement] * len(shapes)


def test_deep_nesting_is_an_error():
    with pytest.raises(InputError):
        read_json('{"nftables": ' + "[" * 100_000 + "]" * 100_000 + "}", "dump", OURS)
