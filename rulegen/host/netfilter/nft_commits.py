"""Notices of the kernel about nf_tables commits, which show that other programs write rules on this host.

Each commit ends with a message that has its generation and the id of the writing process (NFT_MSG_NEWGEN, multicast
group NFNLGRP_NFTABLES; linux/netfilter/nf_tables.h). A filter in the kernel drops all other messages, of which a full
load has some hundred thousand.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import HostError
from rulegen.host.commands.runner import run_noting
from rulegen.host.netlink.nfnetlink import Message, ask, attributes_of
from rulegen.host.netlink.ports import is_own_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.host.commands.runner import Command, Completed

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUP_NFTABLES: Final = 7
_NEWGEN: Final = (10 << 8) | 15
_GETGEN: Final = (10 << 8) | 16
_GEN_ID, _PROC_PID, _PROC_NAME = 1, 2, 3
_SO_ATTACH_FILTER: Final = 26
_HEADER: Final = struct.Struct("=IHHII")
_NFGENMSG: Final = 4
_REMEMBERED: Final = 256


class NftCommit(NamedTuple):
    """One commit of rules.

    Attributes:
        generation: A number that increases with each commit.
        pid: The process id in the initial PID namespace; 0 if the kernel reports none.
        name: The name of the process, cut to 15 characters.
        port: The number of the socket that made it.
    """

    generation: int
    pid: int
    name: str
    port: int = 0


class Writers:
    """Records the processes that rulegen starts, to recognise their writes."""

    def __init__(self, run: Callable[[Command, Callable[[int], None]], Completed] = run_noting) -> None:
        """Start without processes. `run` runs a command and records the process id, such as `run_noting`."""
        self._run = run
        self._pids: deque[int] = deque(maxlen=_REMEMBERED)
        self._running = 0
        self._lock = threading.Lock()
        self._sees_pids = _is_initial_pid_namespace()

    def __call__(self, command: Command) -> Completed:
        """Run a command like `rulegen.host.commands.runner.run`, and record the process."""
        writes = command.argv[0].endswith("-restore")
        self._count(writes)
        try:
            return self._run(command, self._pids.append)
        finally:
            self._count(-writes)

    def _count(self, by: int) -> None:
        with self._lock:
            self._running += by

    def has(self, notice: NftCommit) -> bool:
        """Whether a commit is ours: of this process, or of one that it started.

        In another PID namespace, all commits while such a process writes count as ours.
        """
        if is_own_port(notice.port) or notice.pid in self._pids:
            return True
        return not self._sees_pids and self._running > 0


class NftCommits:
    """Reports foreign commits, from a thread of its own."""

    def __init__(self, is_ours: Callable[[NftCommit], bool], on_foreign: Callable[[NftCommit | None], None]) -> None:
        """Start to listen.

        Args:
            is_ours: Whether a commit is ours.
            on_foreign: Called with each foreign commit, and with None if messages were lost.

        Raises:
            HostError: The kernel refused the subscription.
        """
        self._is_ours, self._on_foreign = is_ours, on_foreign
        try:
            self._socket = _listening()
        except OSError as error:
            raise HostError(f"the kernel does not report changes of rules: {error.strerror or error}") from None
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="nft notices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._wake.close()
        self._thread.join()
        self._woken.close()
        self._socket.close()

    def _listen(self) -> None:
        arrivals = select.poll()  # select takes no descriptor beyond 1023, and each Secret has a connection
        for source in (self._socket, self._woken):
            arrivals.register(source, select.POLLIN)
        while True:
            if self._woken.fileno() in dict(arrivals.poll()):
                return
            try:
                packet = self._socket.recv(65536)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._on_foreign(None)
                continue
            notice = read_notice(packet)
            if notice is not None and not self._is_ours(notice):
                self._on_foreign(notice)


def _listening() -> socket.socket:
    """Return a socket that receives the kernel's messages about commits.

    Raises:
        OSError: The kernel refused it, such as without CAP_NET_ADMIN.
    """
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        _filter(opened, _NEWGEN)
        opened.bind((0, 0))
        opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
    except OSError:
        opened.close()
        raise
    return opened


def generation() -> int | None:
    """Return the generation of the rules, which increases with every commit; None if the kernel has no nf_tables."""
    try:
        return _number(ask(Message(_GETGEN, 0)).get(_GEN_ID))
    except OSError:
        return None


def read_notice(packet: bytes) -> NftCommit | None:
    """Return the commit of a message; None for other messages."""
    if len(packet) < _HEADER.size + _NFGENMSG:
        return None
    length, kind, _, _, port = _HEADER.unpack_from(packet)
    if kind != _NEWGEN:
        return None
    attributes = attributes_of(packet[_HEADER.size + _NFGENMSG : length])
    name = attributes.get(_PROC_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    return NftCommit(_number(attributes.get(_GEN_ID)), _number(attributes.get(_PROC_PID)), name, port)


def _number(content: bytes | None) -> int:
    return int.from_bytes(content, "big") if content else 0


def _filter(listening: socket.socket, kind: int) -> None:
    """Let the kernel pass only messages of one type, by a classic BPF program that reads the type in the header."""
    swapped = int.from_bytes(kind.to_bytes(2, sys.byteorder), "big")
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x28, 0, 0, 4),  # load the half word at 4: nlmsg_type, read in network order
            (0x15, 0, 1, swapped),  # is it this one?
            (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
            (0x06, 0, 0, 0),  # drop it
        )
    )
    buffer = ctypes.create_string_buffer(program)
    listening.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    )


def _is_initial_pid_namespace() -> bool:
    """Whether this process runs in the initial PID namespace."""
    status = Path("/proc/self/status").read_text()
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) == 1
