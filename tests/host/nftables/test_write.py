"""Writes of changes to a real kernel: no process is started, and a removal that must wait stops nothing."""

from __future__ import annotations

import pytest

from rulegen.diff.changes import Change, diff
from rulegen.host.commands.runner import Command, run
from rulegen.host.netfilter import nft
from rulegen.host.nftables import write as writing
from rulegen.host.nftables.kernel.dump import read_set
from rulegen.host.nftables.kernel.objects import TableName
from rulegen.host.nftables.kernel.transaction import NftSocket, TransactionError, keys_of
from rulegen.host.nftables.sets import kernel_set, set_of
from rulegen.host.nftables.write import write
from rulegen.languages.nftables.expressions import VerdictCode
from rulegen.languages.nftables.script import script
from rulegen.languages.nftables.state import (
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
from rulegen.languages.nftables.statements import NftRule
from rulegen.net import Family
from tests.host.nftables.test_changes import listed
from tests.strategies.nftables import TABLE, sets

pytestmark = pytest.mark.usefixtures("namespace")

FRONTENDS = NamedSet(("ipv4_addr", "inet_proto", "inet_service"), ("verdict",), size=100)
FIRST = ("10.96.0.1", "tcp", "80")


def table() -> NftObjects:
    drop = NftRule((VerdictCode("drop"),))
    return {
        table_key(TABLE): TableValue(),
        set_key(TABLE, "frontends"): FRONTENDS,
        set_key(TABLE, "other"): NamedSet(("ipv4_addr",)),
        element_key(TABLE, "frontends", FIRST): ElementValue(VerdictCode("goto", "c")),
        chain_key(TABLE, "c"): NftChain((drop,)),
        chain_key(TABLE, "d"): NftChain((drop,)),
    }


def without(objects: NftObjects, *keys: object) -> NftObjects:
    return {key: value for key, value in objects.items() if key not in keys}


@pytest.fixture(params=[True, False], ids=["at once", "later"])
def at_once(request, monkeypatch):
    """Whether removals are in the same transaction, as since Linux 6.2."""
    monkeypatch.setattr(writing, "removes_at_once", lambda: request.param)
    monkeypatch.setattr(writing, "BUSY_S", 0.01)
    return request.param


def apply(before: NftObjects, after: NftObjects) -> list[int]:
    """Write a change as the two tasks of the language do, and return the numbers of transactions."""
    changes = diff(before, after)
    return [write(Family.IPV4, changes), write(Family.IPV4, changes, is_removal=True)]


def test_a_change_of_elements_needs_the_types_of_a_set_that_stays():
    apply({}, table())
    key = element_key(TABLE, "frontends", ("10.96.0.2", "udp", "53"))
    assert write(Family.IPV4, [Change(key, None, ElementValue(VerdictCode("goto", "d")))]) == 1
    assert listed(Family.IPV4) == table() | {key: ElementValue(VerdictCode("goto", "d"))}
    assert write(Family.IPV4, [Change(key, ElementValue(VerdictCode("goto", "d")), None)]) == 1
    assert listed(Family.IPV4) == table()


def test_removals(at_once):
    apply({}, table())
    gone = (chain_key(TABLE, "c"), element_key(TABLE, "frontends", FIRST), set_key(TABLE, "other"))
    after = without(table(), *gone)
    assert apply(table(), after) == ([1, 0] if at_once else [1, 1])
    assert listed(Family.IPV4) == after
    assert apply(after, {})[-1] == (0 if at_once else 1)
    assert listed(Family.IPV4) == {}


@pytest.mark.usefixtures("at_once")
def test_a_chain_that_something_else_refers_to_stays_and_all_else_is_written():
    apply({}, table())
    assert run(Command(("nft", f"add chain {TABLE} foreign; add rule {TABLE} foreign jump c"))).code == 0
    gone = (chain_key(TABLE, "c"), chain_key(TABLE, "d"), element_key(TABLE, "frontends", FIRST))
    after = without(table(), *gone) | {chain_key(TABLE, "new"): NftChain()}
    apply(table(), after)
    chains = {key.name for key in listed(Family.IPV4) if key in {chain_key(TABLE, name) for name in "cd"}}
    assert chains == {"c"}
    assert chain_key(TABLE, "new") in listed(Family.IPV4)
    assert run(Command(("nft", f"delete chain {TABLE} d"))).code != 0


@pytest.mark.usefixtures("at_once")
def test_a_removal_of_what_is_gone_already_is_done():
    apply({}, table())
    changes = [Change(chain_key(TABLE, name), NftChain(), None) for name in ("d", "never-there")]
    write(Family.IPV4, changes, is_removal=True)
    assert chain_key(TABLE, "d") not in listed(Family.IPV4)


@pytest.mark.parametrize("tool", ["netlink", "nft"])
def test_a_foreign_set_is_removed_whatever_its_elements_are(tool: str):
    apply({}, table())
    foreign = f"""
add set ip {TABLE} interfaces {{ type ifname; elements = {{ "a b", "lo" }}; }}
add map ip {TABLE} verdicts {{ type ifname : verdict; elements = {{ "a {{" : goto c }}; }}
"""
    assert run(Command(("nft", "-f", "-"), stdin=foreign)).code == 0
    changes = diff(listed(Family.IPV4), without(table(), chain_key(TABLE, "c"), element_key(TABLE, "frontends", FIRST)))
    commands = script(changes, Family.IPV4)
    if tool == "nft":
        nft.write(run, commands.change)
        nft.write(run, commands.removal, is_removal=True)
    else:
        write(Family.IPV4, changes)
        write(Family.IPV4, changes, is_removal=True)
    assert listed(Family.IPV4) == without(table(), chain_key(TABLE, "c"), element_key(TABLE, "frontends", FIRST))


def test_a_refused_element_is_named_by_its_key():
    apply({}, table())
    keys = [element_key(TABLE, "frontends", (f"10.96.1.{number}", "tcp", "80")) for number in range(200)]
    new = ElementValue(VerdictCode("goto", "d"))
    with pytest.raises(TransactionError) as caught:  # the map has space for 100
        write(Family.IPV4, [Change(key, None, new) for key in keys])
    (named,) = keys_of(caught.value.refusals[0])
    assert named in keys
    assert f"element {' . '.join(named.element)} of frontends: the set or map is full" in str(caught.value)
    assert listed(Family.IPV4) == table()


@pytest.mark.parametrize("family", list(Family))
def test_sets_are_read_back_in_the_terms_of_the_language(family):
    known = sets(family)
    content: NftObjects = {set_key(TABLE, name): each for name, each in known.items()}
    write(family, diff({}, {table_key(TABLE): TableValue(), **content}))
    link = NftSocket()
    try:
        for name, each in known.items():
            read = read_set(link, TableName(2 if family is Family.IPV4 else 10, TABLE), name)
            assert read == kernel_set(name, each)
            assert set_of(read) == each
        assert read_set(link, TableName(2, TABLE), "missing") is None
    finally:
        link.close()
