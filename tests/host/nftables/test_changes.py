"""Objects of the language, written to a real kernel by netlink: nft lists exactly these objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.diff.changes import diff
from rulegen.host.commands.runner import Command, run
from rulegen.host.nftables.changes import transactions
from rulegen.host.nftables.kernel.dump import KernelTable, read_table
from rulegen.host.nftables.kernel.expressions import ByteorderExpr
from rulegen.host.nftables.kernel.objects import TableName, delete_table
from rulegen.host.nftables.kernel.transaction import NftSocket, TransactionError
from rulegen.languages.nftables.expressions import Literal, Meta, Numgen, Payload, SetReference, VerdictCode
from rulegen.languages.nftables.read_json import read_json
from rulegen.languages.nftables.state import (
    BaseChain,
    ElementValue,
    NamedSet,
    NftChain,
    NftObjects,
    TableValue,
    chain_key,
    element_key,
    set_key,
    table_key,
)
from rulegen.languages.nftables.statements import Assign, Compare, NftRule, OtherStatement
from rulegen.net import Family
from tests.shared import each, worlds
from tests.sizes import examples, sampled
from tests.strategies.nftables import TABLE, tables

pytestmark = pytest.mark.usefixtures("namespace")

NUMBERS = {Family.IPV4: 2, Family.IPV6: 10}
WORLDS = worlds("nftables.json", "nftables6.json")


@contextmanager
def connected() -> Iterator[NftSocket]:
    link = NftSocket()
    try:
        yield link
    finally:
        link.close()


def write(link: NftSocket, family: Family, before: NftObjects, after: NftObjects) -> int:
    written = transactions(family, diff(before, after), after)
    for step in written:
        link.commit(step.requests)
    return len(written)


def listed(family: Family, table: str = TABLE) -> NftObjects:
    """Return what both listings of nft have, which must not fail."""
    ended = run(Command(("nft", "list", "ruleset")))
    assert (ended.code, ended.stderr) == (0, "")
    ended = run(Command(("nft", "-j", "list", "ruleset")))
    assert (ended.code, ended.stderr) == (0, "")
    return normal(read_json(ended.stdout, "nft", frozenset({table})).get(family, {}))


def normal(objects: NftObjects) -> NftObjects:
    """Return objects with marks as texts of nft print them; the JSON of nft 1.0.6 has numbers."""
    marks = {
        key.name: [part == "mark" for part in value.key]
        for key, value in objects.items()
        if isinstance(value, NamedSet)
    }
    changed: NftObjects = {}
    for key, value in objects.items():
        if isinstance(value, NamedSet):
            data = tuple(part for each in value.data for part in each.split(" . "))
            changed[key] = replace(value, data=data)
        elif isinstance(value, ElementValue):
            parts = [
                mark(text) if is_mark else text for text, is_mark in zip(key.element, marks[key.name], strict=True)
            ]
            is_mark = isinstance(value.data, tuple) and len(value.data) == 1
            changed[key._replace(element=tuple(parts))] = ElementValue((mark(value.data[0]),)) if is_mark else value
        else:
            changed[key] = value
    return changed


def mark(text: str) -> str:
    return f"0x{int(text, 0):08x}"


def without_names(table: KernelTable) -> object:
    """Return the content of a table without the numbers of anonymous sets."""
    names: dict[str, str] = {}
    rules = []
    for chain in sorted(table.rules):
        for rule in table.rules[chain]:
            for part in rule.expressions:
                name = getattr(part, "set_name", "")
                if name.startswith("__"):
                    names[name] = f"anonymous {len(names)}"
            parts = [
                (type(part).__name__, *(names.get(field, field) for field in part))
                for part in rule.expressions
                if not (isinstance(part, ByteorderExpr) and part.length == 1)  # nft swaps the order of one byte
            ]
            rules.append((chain, parts))
    sets = {
        names.get(name, name): each._replace(name="", user_data=b"") for name, each in table.sets.items()
    }  # nft adds what it never reads again
    elements = {
        names.get(name, name): sorted(
            (each.key, each.key_end or b"", each.flags, repr(each.data))
            for each in content
            if each.key.strip(b"\0") or not each.flags  # nft writes the end of an interval before the first one, too
        )
        for name, content in table.elements.items()
    }
    return table.chains, rules, sets, elements


ON_KERNEL = settings(
    max_examples=examples(6),
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # each example starts nft several times: shrinking would take minutes
)


@contextmanager
def emptied(link: NftSocket, family: Family) -> Iterator[None]:
    """Delete the table afterwards: the next example of a property test starts without it."""
    try:
        yield
    finally:
        ended = run(Command(("nft", "flush ruleset")))
        assert ended.code == 0


@pytest.mark.parametrize("family", list(Family))
class TestRandomTables:
    @ON_KERNEL
    @given(data=st.data())
    def test_nft_lists_what_was_written(self, family, data):
        objects = data.draw(tables(family))
        with connected() as link, emptied(link, family):
            assert write(link, family, {}, objects) == 1
            assert diff(listed(family), objects) == ()

    @ON_KERNEL
    @given(data=st.data())
    def test_the_kernel_holds_what_nft_writes(self, family, data):
        """nft loads the listing of what we wrote, and the kernel then reports the same expressions and elements."""
        objects = data.draw(tables(family, is_loadable=True))
        table = TableName(NUMBERS[family], TABLE)
        with connected() as link, emptied(link, family):
            write(link, family, {}, objects)
            ours, text = read_table(link, table), run(Command(("nft", "list", "ruleset"))).stdout
            link.commit([delete_table(table)])
            ended = run(Command(("nft", "-f", "-"), stdin=text))
            assert (ended.code, ended.stderr) == (0, "")
            assert without_names(read_table(link, table)) == without_names(ours)

    @ON_KERNEL
    @given(data=st.data())
    def test_any_change_is_one_transaction(self, family, data):
        before, after = data.draw(tables(family, most=2)), data.draw(tables(family, most=2))
        with connected() as link, emptied(link, family):
            write(link, family, {}, before)
            generation = link.generation()
            write(link, family, before, after)
            assert link.generation() <= generation + 1
            assert diff(listed(family), after) == ()
            write(link, family, after, {})
            assert listed(family) == {}


@pytest.mark.parametrize("world", each(sampled(WORLDS), "parity worlds"), ids=lambda path: path and path.name)
def test_what_kube_proxy_writes(world: Path):
    with connected() as link:
        for family, name in ((Family.IPV4, "nftables.json"), (Family.IPV6, "nftables6.json")):
            objects = read_json((world / name).read_text(), name, frozenset({"kube-proxy"})).get(family, {})
            write(link, family, {}, objects)
            assert listed(family, "kube-proxy") == objects


RULE = NftRule((VerdictCode("goto", "x"),))
BASE = BaseChain("nat", "prerouting", -100)


def small() -> NftObjects:
    address = Payload("ip", "saddr")
    from_set = NftRule((Compare(address, SetReference("s")), VerdictCode("accept")))
    return {
        table_key(TABLE): TableValue(),
        set_key(TABLE, "s"): NamedSet(("ipv4_addr",)),
        set_key(TABLE, "v"): NamedSet(("ipv4_addr",), ("verdict",)),
        element_key(TABLE, "s", ("10.0.0.1",)): ElementValue(),
        element_key(TABLE, "v", ("10.0.0.2",)): ElementValue(VerdictCode("goto", "x")),
        chain_key(TABLE, "base"): NftChain((from_set, RULE), BASE),
        chain_key(TABLE, "x"): NftChain((NftRule((VerdictCode("drop"),)),)),
    }


class TestChanges:
    def test_a_set_of_another_type_is_made_anew_with_its_elements_and_rules(self):
        """The kernel cannot change a set. Rules that refer to it are deleted before it and written after it."""
        before, after = small(), small() | {set_key(TABLE, "s"): NamedSet(("ipv4_addr",), size=99)}
        with connected() as link:
            write(link, Family.IPV4, {}, before)
            assert write(link, Family.IPV4, before, after) == 1
            assert listed(Family.IPV4) == after

    def test_a_chain_that_becomes_a_base_chain(self):
        before = small()
        del before[element_key(TABLE, "v", ("10.0.0.2",))]
        before[chain_key(TABLE, "base")] = NftChain()
        after = before | {chain_key(TABLE, "x"): NftChain((RULE,), BASE), chain_key(TABLE, "base"): NftChain()}
        after[chain_key(TABLE, "x")] = NftChain((NftRule((VerdictCode("goto", "base"),)),), BASE)
        with connected() as link:
            write(link, Family.IPV4, {}, before)
            write(link, Family.IPV4, before, after)
            assert listed(Family.IPV4) == after

    def test_a_table_that_gets_an_owner_is_made_anew(self):
        before = small()
        after = before | {table_key(TABLE): TableValue(frozenset({"owner", "persist"}))}
        with connected() as link:
            write(link, Family.IPV4, {}, before)
            assert write(link, Family.IPV4, before, after) == 1
            shown = listed(Family.IPV4)
            assert {key: value for key, value in shown.items() if key != table_key(TABLE)} == {
                key: value for key, value in after.items() if key != table_key(TABLE)
            }
            assert run(Command(("nft", f"flush table {TABLE}"))).code != 0

    def test_new_data_for_a_key_is_one_transaction(self):
        key = element_key(TABLE, "v", ("10.0.0.2",))
        before, after = small(), small() | {key: ElementValue(VerdictCode("drop"))}
        with connected() as link:
            write(link, Family.IPV4, {}, before)
            generation = link.generation()
            write(link, Family.IPV4, before, after)
            assert (listed(Family.IPV4), link.generation()) == (after, generation + 1)

    def test_very_many_chains_are_made_in_steps_and_switched_last(self):
        """After each step but the last, no packet reaches a new chain."""
        objects = small()
        for number in range(50):
            objects[chain_key(TABLE, f"n{number}")] = NftChain((RULE,) if number % 2 else ())
            objects[element_key(TABLE, "v", (f"10.1.0.{number}",))] = ElementValue(VerdictCode("goto", f"n{number}"))
        written = transactions(Family.IPV4, diff({}, objects), objects, chains_per_transaction=20)
        assert len(written) == 5
        with connected() as link:
            for step in written[:-1]:
                link.commit(step.requests)
                shown = listed(Family.IPV4)
                assert not [key for key in shown if key.is_element]
                assert chain_key(TABLE, "base") not in shown
            link.commit(written[-1].requests)
            assert listed(Family.IPV4) == objects
            assert transactions(Family.IPV4, diff(listed(Family.IPV4), objects), objects) == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (element_key(TABLE, "v", ("10.0.0.2",)), "element 10.0.0.2 of v: "),
            (chain_key(TABLE, "x"), "chain x: "),
            (set_key(TABLE, "s"), "set s: "),
        ],
    )
    def test_a_refused_object_is_named(self, change, words):
        """Here: what somebody else has deleted cannot be deleted again."""
        objects = small()
        after = {key: value for key, value in objects.items() if key != change}
        with connected() as link:
            write(
                link,
                Family.IPV4,
                {},
                {table_key(TABLE): TableValue(), set_key(TABLE, "v"): objects[set_key(TABLE, "v")]},
            )
            with pytest.raises(TransactionError, match=words) as caught:
                write(link, Family.IPV4, objects, after)
            assert change in {
                refusal.subject.elements[0] if change.is_element else refusal.subject
                for refusal in caught.value.refusals
            }


class TestUnwritable:
    """What rulegen does not write is an error before anything is sent."""

    @pytest.mark.parametrize(
        "statements",
        [
            (OtherStatement("quota over 25 mbytes"),),
            (Compare(Payload("ip", "ttl"), Literal("1")),),
            (Compare(Payload("ip", "saddr"), Literal("fd00::1")),),
            (Compare(Payload("ip", "saddr"), Literal("10.0.0.1"), "<"),),
            (Compare(Payload("ip", "saddr"), SetReference("missing")),),
            (Compare(Payload("ip", "saddr"), SetReference("ports")),),
            (Compare(Meta("l4proto"), Literal("no-protocol")),),
            (Compare(Meta("iifname"), Literal('"a-name-that-is-too-long"')),),
            (Assign(Meta("priority"), Literal("1")),),
            (Assign(Meta("mark"), Numgen("once", 3)),),
            (VerdictCode("jump"),),
            (VerdictCode("leave"),),
        ],
        ids=lambda statements: str(statements[0])[:40],
    )
    def test_a_statement(self, statements):
        objects = {
            table_key(TABLE): TableValue(),
            set_key(TABLE, "ports"): NamedSet(("inet_service",)),
            chain_key(TABLE, "c"): NftChain((NftRule(statements),)),
        }
        with pytest.raises(ValueError):
            transactions(Family.IPV4, diff({}, objects), objects)

    @pytest.mark.parametrize(
        ("name", "key", "data"),
        [
            ("s", ("fd00::1",), None),
            ("s", ("10.0.0.1", "80"), None),
            ("v", ("10.0.0.1",), None),
            ("v", ("10.0.0.1",), ("10.0.0.2",)),
            ("v", ("10.0.0.1",), VerdictCode("goto")),
            ("m", ("10.0.0.1", "65536"), ("1",)),
            ("m", ("10.0.0.1", "-1"), ("1",)),
            ("m", ("10.0.0.1", "80"), ("1", "2")),
            ("m", ("10.0.0.1", "80"), None),
            ("missing", ("10.0.0.1",), None),
            ("r", ("10.0.0.9-10.0.0.1",), None),
            ("r", ("fd00::/64",), None),
        ],
        ids=lambda value: None if value is None else str(value)[:30],
    )
    def test_an_element(self, name, key, data):
        objects = small() | {
            set_key(TABLE, "m"): NamedSet(("ipv4_addr", "inet_service"), ("mark",)),
            set_key(TABLE, "r"): NamedSet(("ipv4_addr",), flags=frozenset({"interval"})),
            element_key(TABLE, name, key): ElementValue(data),
        }
        with pytest.raises(ValueError):
            transactions(Family.IPV4, diff({}, objects), objects)
