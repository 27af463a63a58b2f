"""Interfaces and addresses as the kernel has them, and what it says when they change."""

from __future__ import annotations

import errno
import os
import queue
import socket
import struct
import subprocess
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from rulegen.errors import HostError
from rulegen.host.netlink import messages
from rulegen.host.node.interfaces import AddressNotices, interfaces
from rulegen.model.host.facts import SERVICE_DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

SO_RCVBUF = 8


def ip(*arguments: str, batch: str | None = None) -> None:
    subprocess.run(["ip", *arguments], input=batch, text=True, check=True, timeout=10)


@pytest.fixture
def notices(namespace):
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    times: queue.SimpleQueue[float] = queue.SimpleQueue()
    listening = AddressNotices(lambda: times.put(time.monotonic()))
    yield times
    listening.stop()


def is_told(times: queue.SimpleQueue[float], *, within_s: float) -> bool:
    try:
        times.get(timeout=within_s)
    except queue.Empty:
        return False
    while not times.empty():
        times.get()
    return True


@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8::7/64"])
def test_added_and_removed_addresses_are_reported(address, notices):
    for verb in ("add", "del"):
        ip("addr", verb, address, "dev", "eth0", *(["nodad"] if ":" in address and verb == "add" else []))
        assert is_told(notices, within_s=3), verb


def test_addresses_go_with_their_interface(notices):
    ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
    assert is_told(notices, within_s=3)
    ip("link", "del", "eth0")
    assert is_told(notices, within_s=3)


def test_addresses_of_services_are_not_reported(notices):
    ip("link", "add", SERVICE_DEVICE, "type", "veth", "peer", "name", "peer1")
    ip("addr", "add", "10.96.0.1/32", "dev", SERVICE_DEVICE)
    assert not is_told(notices, within_s=0.2)
    ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
    assert is_told(notices, within_s=3)


def test_too_many_changes_are_reported_as_one(namespace):
    """A receiver that is held up, with the smallest buffer that the kernel gives."""
    calls: queue.SimpleQueue[None] = queue.SimpleQueue()
    held: queue.SimpleQueue[None] = queue.SimpleQueue()

    def changed() -> None:
        calls.put(None)
        held.get(timeout=10)

    listening = AddressNotices(changed)
    try:
        listening._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUF, 1)
        ip("-batch", "-", batch="".join(f"addr add 192.0.2.{number}/32 dev lo\n" for number in range(1, 200)))
        for _ in range(300):
            held.put(None)
        ends = time.monotonic() + 1
        while time.monotonic() < ends and calls.qsize() < 2:
            time.sleep(0.02)
    finally:
        listening.stop()
    assert 2 <= calls.qsize() < 199


def test_a_kernel_that_does_not_say_is_an_error(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(messages, "connect", refused)
    with pytest.raises(HostError, match="the kernel does not report changes of addresses: Operation not permitted"):
        AddressNotices(lambda: None)
    with pytest.raises(HostError, match="reading the network interfaces: Operation not permitted"):
        interfaces()


def test_many_interfaces_and_addresses_are_all_read(namespace):
    links = "".join(f"link add v{number} type veth peer name w{number}\n" for number in range(60))
    addresses = "".join(f"addr add 10.9.{n // 200}.{n % 200 + 1}/32 dev v0\n" for n in range(1500))
    ip("-batch", "-", batch=links + addresses + "addr add 192.0.2.1 peer 192.0.2.2/31 dev v1\n")
    addresses = {interface.name: interface.addresses for interface in interfaces()}
    assert {f"{letter}{number}" for letter in "vw" for number in range(60)} <= addresses.keys()
    assert len(addresses["v0"]) == 1500
    assert addresses["v1"] == ((ip_address("192.0.2.1"), 31),)


def test_an_answer_that_was_interrupted_is_asked_for_again(monkeypatch):
    """Else an address that is there all the time may be missing in it, and node ports would close there."""
    asked: list[int] = []
    dump = messages.dump

    def interrupted(link: socket.socket, request: bytes, *, is_whole: bool) -> Iterator[bytes]:
        asked.append(1)
        bodies = list(dump(link, request, is_whole=is_whole))
        if len(asked) == 2:
            yield from bodies[1:]
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        yield from bodies

    before = interfaces()
    monkeypatch.setattr(messages, "dump", interrupted)
    assert interfaces() == before
    assert len(asked) == 4


def test_the_kernel_says_that_an_answer_was_interrupted():
    def answer(kind: int, flags: int) -> bytes:
        return struct.pack("=IHHII", 20, kind, flags, 1, 0) + b"abcd"

    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, kernel:
        for is_whole in (False, True):
            kernel.send(answer(20, 0x2 | 0x10))
            kernel.send(answer(3, 0x2))
            bodies = messages.dump(ours, b"request", is_whole=is_whole)
            assert next(bodies) == b"abcd"
            if is_whole:
                with pytest.raises(InterruptedError):
                    next(bodies)
            else:
                assert list(bodies) == []
