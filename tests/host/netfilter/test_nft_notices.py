"""What the kernel tells of writes to its rules: those of others, never ours, and that it could not tell."""

from __future__ import annotations

import errno
import queue
import socket
import struct
import time
from contextlib import closing

import pytest

from rulegen.host.commands.runner import Command, run
from rulegen.host.netfilter import nft_commits
from rulegen.host.netfilter.iptables import restore
from rulegen.host.netfilter.nft_commits import NftCommit, NftCommits, Writers, read_notice
from rulegen.host.netfilter.variant import Variant
from rulegen.host.nftables.kernel.objects import TableName, new_table
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.net import Family

SO_RCVBUF = 8
FOREIGN = Command(("iptables-nft", "-t", "nat", "-N", "FOREIGN"))


@pytest.fixture
def commits(namespace):
    return queue.SimpleQueue()


def all_told(commits: queue.SimpleQueue, *, within_s: float = 0.3) -> list[NftCommit | None]:
    received, until = [], time.monotonic() + within_s
    while True:
        try:
            received.append(commits.get(timeout=max(until - time.monotonic(), 0)))
        except queue.Empty:
            return received


class TestKernel:
    def test_a_foreign_write_is_reported_with_its_program(self, commits):
        notices = NftCommits(Writers().has, commits.put)
        try:
            assert run(FOREIGN).code == 0
            notice = commits.get(timeout=2)
        finally:
            notices.stop()
        assert notice.pid > 0
        assert "iptables" in notice.name or "xtables" in notice.name
        assert notice.generation == nft_commits.generation()

    def test_only_foreign_writes_are_reported(self, commits):
        writers = Writers()
        notices = NftCommits(writers.has, commits.put)
        try:
            for number in range(3):
                restore(writers, Variant.NFT, Family.IPV4, f"*nat\n:OWN-{number} - [0:0]\nCOMMIT\n")
            with closing(NftSocket()) as link:
                link.commit([new_table(TableName(socket.AF_INET, "own"))])
            assert all_told(commits) == []
            assert run(FOREIGN).code == 0
            assert isinstance(commits.get(timeout=3), NftCommit)
            assert all_told(commits) == []
            restore(writers, Variant.NFT, Family.IPV4, "*nat\n:OWN-9 - [0:0]\nCOMMIT\n")
            assert all_told(commits) == []
        finally:
            notices.stop()

    def test_reading_is_no_write(self, commits):
        assert run(FOREIGN).code == 0
        notices = NftCommits(Writers().has, commits.put)
        try:
            before = nft_commits.generation()
            for tool in ("iptables-nft-save", "ip6tables-nft-save"):
                assert run(Command((tool,))).code == 0
            assert run(Command(("nft", "list", "ruleset"))).code == 0
            assert all_told(commits) == []
            assert nft_commits.generation() == before
        finally:
            notices.stop()

    def test_a_large_own_write_reports_nothing_foreign(self, commits):
        chains = "".join(f":OWN-{number} - [0:0]\n" for number in range(2000))
        rules = "".join(f"-A OWN-{number} -s 10.0.0.1/32 -j RETURN\n" for number in range(2000))
        writers = Writers()
        notices = NftCommits(writers.has, commits.put)
        try:
            restore(writers, Variant.NFT, Family.IPV4, f"*nat\n{chains}{rules}COMMIT\n")
            assert all_told(commits) == []
            assert run(FOREIGN).code == 0
            assert isinstance(commits.get(timeout=3), NftCommit)
            assert all_told(commits) == []
        finally:
            notices.stop()

    def test_lost_messages_are_reported(self, commits, monkeypatch):
        """A receiver that is held up, with the smallest buffer that the kernel gives."""
        held = queue.SimpleQueue()

        def take(notice):
            commits.put(notice)
            held.get(timeout=10)

        notices = NftCommits(lambda _: False, take)
        try:
            notices._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUF, 1)
            for number in range(40):
                assert run(Command(("iptables-nft", "-t", "nat", "-N", f"FOREIGN-{number}"))).code == 0
            for _ in range(60):
                held.put(None)
            received = all_told(commits, within_s=1)
        finally:
            notices.stop()
        assert None in received
        assert len(received) < 40

    def test_it_ends_at_once(self, commits):
        notices = NftCommits(Writers().has, commits.put)
        began = time.monotonic()
        notices.stop()
        assert time.monotonic() - began < 1


class TestWriters:
    def test_a_process_is_known_while_it_runs_and_behind_it(self):
        writers = Writers()
        ended = writers(Command(("sh", "-c", "echo $$")))
        assert writers.has(NftCommit(1, int(ended.stdout), "sh"))
        assert not writers.has(NftCommit(1, 1, "init"))

    def test_in_a_pid_namespace_of_our_own_time_tells(self, monkeypatch):
        monkeypatch.setattr(nft_commits, "_is_initial_pid_namespace", lambda: False)
        answers = []

        def seen(command, note):
            note(7)
            answers.append(writers.has(NftCommit(1, 0, "")))
            raise OSError(errno.ENOENT, "gone")

        writers = Writers(seen)
        assert not writers.has(NftCommit(1, 0, ""))
        with pytest.raises(OSError, match="gone"):
            writers(Command(("iptables-nft-save",)))
        assert answers == [False]
        with pytest.raises(OSError, match="gone"):
            writers(Command(("iptables-nft-restore",)))
        assert answers == [False, True]
        assert not writers.has(NftCommit(1, 0, ""))


def message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    packed = b""
    for number, content in attributes:
        length = 4 + len(content)
        packed += struct.pack("=HH", length, number) + content + b"\0" * (-length % 4)
    body = b"\0\0\0\0" + packed
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


NEWGEN = (10 << 8) | 15


@pytest.mark.parametrize(
    ("packet", "notice"),
    [
        (message(NEWGEN, (1, b"\0\0\0\x07"), (2, b"\0\0\x01\0"), (3, b"nft\0")), NftCommit(7, 256, "nft")),
        (message(NEWGEN, (1, b"\0\0\0\x07")), NftCommit(7, 0, "")),
        (message(NEWGEN, (3, b"\xff\n\0")), NftCommit(0, 0, "\ufffd\n")),
        (message((10 << 8) | 0, (1, b"\0\0\0\x07")), None),
        (b"", None),
        (b"\0" * 19, None),
    ],
)
def test_messages(packet, notice):
    assert read_notice(packet) == notice
