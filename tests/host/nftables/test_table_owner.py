"""A table that only its owner may change, on a real kernel, each test in a namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rulegen.host.commands.runner import Command, run
from rulegen.host.nftables.kernel.dump import read_table
from rulegen.host.nftables.kernel.objects import PERSIST, TableName, new_chain, new_table
from rulegen.host.nftables.kernel.table_owner import PROTECTED, TableStatus, Tenure, claim, release, status, supported
from rulegen.host.nftables.kernel.transaction import NftSocket, TransactionError

pytestmark = pytest.mark.usefixtures("namespace")

TABLE = TableName(2, "t")
OWNER_PROCESS = """
import sys, time
from rulegen.host.nftables.kernel.objects import TableName, new_chain, new_table
from rulegen.host.nftables.kernel.transaction import NftSocket
link = NftSocket()
link.commit([new_table(TableName(2, "t"), 6), new_chain(TableName(2, "t"), "c")])
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def link():
    opened = NftSocket()
    try:
        if not supported(opened):
            pytest.skip("this kernel has no tables with owner and persist")
        yield opened
    finally:
        opened.close()


def nft(script):
    return run(Command(("nft", script)))


def owned(link):
    link.commit([*claim(status(link, TABLE), TABLE, is_protected=True).requests, new_chain(TABLE, "c")])


def test_the_probe_writes_nothing(link):
    before = link.generation()
    assert supported(link)
    assert link.generation() == before
    assert nft("list ruleset").stdout == ""


def test_nobody_else_changes_an_owned_table(link):
    owned(link)
    assert status(link, TABLE) == TableStatus(Tenure.OURS, PROTECTED, link.port)
    for change in ("add chain t d", "delete table t", "flush table t", "add set t s { type ipv4_addr; }"):
        assert "Operation not permitted" in nft(change).stderr, change
    assert nft("flush ruleset").code == 0
    assert set(read_table(link, TABLE).chains) == {"c"}
    other = NftSocket()
    try:
        assert status(other, TABLE) == TableStatus(Tenure.FOREIGN, PROTECTED, link.port)
        claimed = claim(status(other, TABLE), TABLE, is_protected=True)
        with pytest.raises(TransactionError, match="table t: Operation not permitted"):
            other.commit(claimed.requests)
    finally:
        other.close()
    link.commit([new_chain(TABLE, "e")])


def test_a_killed_owner_leaves_its_table_to_the_next(link):
    """The table serves on, and the next owner adopts it together with its first change."""
    process = subprocess.Popen([sys.executable, "-c", OWNER_PROCESS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        assert status(link, TABLE).tenure is Tenure.FOREIGN
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert status(link, TABLE) == TableStatus(Tenure.ORPHAN, PERSIST)
    claimed = claim(status(link, TABLE), TABLE, is_protected=True)
    assert claimed.keeps_content
    link.commit([*claimed.requests, new_chain(TABLE, "d")])
    assert status(link, TABLE).tenure is Tenure.OURS
    assert set(read_table(link, TABLE).chains) == {"c", "d"}
    assert "not permitted" in nft("add chain t x").stderr


def test_a_released_table_is_open_to_everybody(link):
    owned(link)
    link.commit([*release(TABLE), new_chain(TABLE, "c")])
    assert status(link, TABLE) == TableStatus(Tenure.OPEN)
    assert nft("add chain t d; delete chain t c").code == 0


def test_an_open_table_is_made_anew_to_be_protected(link):
    nft("add table t; add chain t foreign")
    claimed = claim(status(link, TABLE), TABLE, is_protected=True)
    assert not claimed.keeps_content
    link.commit([*claimed.requests, new_chain(TABLE, "c")])
    assert status(link, TABLE).tenure is Tenure.OURS
    assert set(read_table(link, TABLE).chains) == {"c"}


def test_an_owned_table_is_made_anew_to_be_open(link):
    owned(link)
    claimed = claim(status(link, TABLE), TABLE, is_protected=False)
    assert not claimed.keeps_content
    link.commit(claimed.requests)
    assert status(link, TABLE).tenure is Tenure.OPEN


@pytest.mark.parametrize(("is_protected", "flags"), [(True, PROTECTED), (False, 0)])
def test_a_claim_repeated_changes_nothing(link, is_protected, flags):
    for _ in range(2):
        claimed = claim(status(link, TABLE), TABLE, is_protected=is_protected)
        link.commit(claimed.requests)
        assert status(link, TABLE).flags == flags
    assert claimed.keeps_content
    assert claim(status(link, TABLE), TABLE, is_protected=is_protected).keeps_content


def test_a_forked_child_does_not_keep_the_table(link):
    """A child process without exec closes the socket, so that the table can be adopted although the child lives."""
    owner = NftSocket()
    owner.commit([new_table(TABLE, PROTECTED)])
    stop, stopping = os.pipe()
    started, starting = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        os.close(stopping)
        os.write(starting, b"x")
        os.read(stop, 1)
        os._exit(0)
    os.close(stop)
    try:
        assert os.read(started, 1) == b"x"
        owner.close()
        link.commit(claim(status(link, TABLE), TABLE, is_protected=True).requests)
        assert status(link, TABLE).tenure is Tenure.OURS
    finally:
        for end in (stopping, started, starting):
            os.close(end)
        os.waitpid(child, 0)


def test_a_started_program_does_not_inherit_the_socket(link):
    owned(link)
    listing = run(Command(("ls", "-l", "/proc/self/fd"))).stdout
    assert "socket:" not in listing
