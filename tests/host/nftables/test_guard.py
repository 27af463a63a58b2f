"""Tables of layout `flat` that only one process may change, on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rulegen.diff.changes import diff
from rulegen.host.commands.runner import Command, run
from rulegen.host.dataplane.driver import WriteContext
from rulegen.host.dataplane.nftables_driver import NftablesDriver
from rulegen.host.netfilter import nft
from rulegen.host.netfilter.variant import Variant
from rulegen.host.nftables.guard import TableGuard
from rulegen.host.nftables.present import owner_of
from rulegen.host.nftables.write import write
from rulegen.languages.nftables.language import ChangeTables
from rulegen.languages.nftables.read_json import read_json
from rulegen.languages.nftables.read_text import read_text
from rulegen.languages.nftables.state import NftObjects, TableValue, table_key
from rulegen.net import Family
from rulegen.ownership.nftables import FLAT_TABLE, TABLES
from tests.host.nftables.test_affinity import POOL, content

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.fixture
def guard() -> Iterator[TableGuard]:
    opened = TableGuard(run)
    try:
        if not opened.is_possible():
            pytest.skip("this kernel has no tables with owner and persist")
        yield opened
    finally:
        opened.close()


def change(guard: TableGuard | None, before: NftObjects, after: NftObjects) -> None:
    """Write a change with the driver."""
    changes = diff(before, after)
    work = ChangeTables(Family.IPV4, changes)
    NftablesDriver(guard).writes()[ChangeTables](work, WriteContext(run=run, variant=Variant.NFT, wait_s=1))


def listed() -> NftObjects:
    return nft.observe(run, Family.IPV4, TABLES)


def is_open() -> bool:
    """Whether another program can add something to the table."""
    return run(Command(("nft", f"add chain ip {FLAT_TABLE} foreign"))).code == 0


def test_a_new_table_is_protected(guard: TableGuard):
    change(guard, {}, content(*POOL))
    assert listed() == content(*POOL)
    assert (owner_of(Family.IPV4), is_open()) == (guard.link.port, False)
    change(guard, content(*POOL), content(*POOL[:2]))
    assert listed() == content(*POOL[:2])


def test_an_open_table_is_protected_with_its_content(guard: TableGuard):
    write(Family.IPV4, diff({}, content(*POOL)))
    before = guard.link.generation()
    assert guard.take() == (Family.IPV4,)
    assert guard.link.generation() == before + 1
    assert listed() == content(*POOL)
    assert not is_open()
    assert guard.take() == ()


def test_what_nobody_but_nft_can_write_is_removed_from_an_adopted_table(guard: TableGuard):
    earlier = TableGuard(run)
    change(earlier, {}, content(*POOL))
    earlier.close()
    assert run(Command(("nft", f"add counter ip {FLAT_TABLE} c; add table ip kube-proxy"))).code == 0
    assert run(Command(("nft", "add counter ip kube-proxy c"))).code == 0
    assert guard.take() == (Family.IPV4,)
    damaged = listed()
    assert damaged.keys() - content(*POOL).keys()
    kept = {key: value for key, value in damaged.items() if key == table_key("kube-proxy")}
    change(guard, damaged, {**content(*POOL[:2]), **kept})
    assert listed() == {**content(*POOL[:2]), **kept}
    assert not is_open()


def test_a_table_is_released_with_its_content(guard: TableGuard):
    change(guard, {}, content(*POOL))
    guard.close()
    assert run(Command(("nft", f"add table ip {FLAT_TABLE}"))).code != 0, "it has the flag of an owner"
    released = TableGuard(run, is_protected=False)
    assert released.take() == (Family.IPV4,)
    released.close()
    assert listed() == content(*POOL)
    assert run(Command(("nft", f"add table ip {FLAT_TABLE}"))).code == 0


def test_a_table_of_another_process_stays_its_own(guard: TableGuard):
    change(guard, {}, content(*POOL))
    other = TableGuard(run)
    assert other.take() == ()
    other.close()
    with pytest.raises(Exception, match=f"only process {guard.link.port} can change the nftables table rulegen"):
        change(None, content(*POOL), content(*POOL[:2]))
    assert listed() == content(*POOL)


@pytest.mark.parametrize("flags", ['["owner", "unknown"]', '["owner", "persist"]', '"t"', '"owner"'])
def test_who_owns_a_table_is_no_difference_in_json(flags: str):
    listing = (
        f'{{"nftables": [{{"table": {{"family": "ip", "name": "{FLAT_TABLE}", "handle": 1, "flags": {flags}}}}}]}}'
    )
    assert read_json(listing, "dump", TABLES)[Family.IPV4] == {table_key(FLAT_TABLE): TableValue()}


@pytest.mark.parametrize("flags", ["owner", "owner,persist", ""])
def test_who_owns_a_table_is_no_difference_in_text(flags: str):
    listing = f"table ip {FLAT_TABLE} {{ # progname python\n\tflags {flags}\n\n\tchain c {{\n\t}}\n}}\n"
    assert read_text(listing, "dump", TABLES)[Family.IPV4][table_key(FLAT_TABLE)] == TableValue()
