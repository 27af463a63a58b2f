"""The lab: hosts of the topology, joined, listening, ready to be asked; made by one of two drivers."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from integration.lab import topology
from integration.lab.hosts import FAMILIES, TRANSPORTS, LabError
from integration.lab.peers import PeerHost, Wire
from integration.lab.wiring import set_sysctls, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from integration.lab.hosts import Host

ROOT = Path(__file__).resolve().parents[2]
_PEER = Path(__file__).resolve().parent / "peer"
_START_S = 60


class Unavailable(Exception):  # noqa: N818 - no error: a reason to skip
    """This machine cannot make such hosts; the text says why."""


class Driver(Protocol):
    """Makes hosts: a process in a network namespace of its own, however that comes to be.

    Attributes:
        name: For people.
        may_set_sysctls: Whether programs on a host may write sysctls of its namespace.
    """

    name: str
    may_set_sysctls: bool

    def start(self, host: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start `argv` as the process of a host, with nothing but `env`; its TMPDIR is the lab's folder."""

    def close(self) -> None:
        """End and remove all that was started."""


class Lab:
    """A cluster of two nodes and a client outside.

    Attributes:
        hosts: All of them by name.
        folder: A folder that has the same path outside and on every host, writable by both.
        lockfile: The lock that iptables-legacy takes on the node, instead of the machine's.
    """

    def __init__(self, hosts: Mapping[str, Host], folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder
        self.lockfile = _lockfile(folder)

    def __repr__(self) -> str:
        return f"<lab in {self.folder}>"

    @property
    def node(self) -> Host:
        """The node whose rules are under test."""
        return self.hosts[topology.NODE]

    @property
    def client(self) -> Host:
        """A host outside of the cluster."""
        return self.hosts[topology.CLIENT]

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]


@contextmanager
def build(driver: Driver) -> Iterator[Lab]:
    """Build a lab with `driver`, and take it down in the end, whatever happened meanwhile."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"lab-{os.getpid()}-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(driver.close)
        hosts = _start(driver, folder, stack)
        wire({name: host.wire.pid for name, host in hosts.items()})
        if not driver.may_set_sysctls:
            set_sysctls(hosts[topology.NODE].wire.pid, topology.PREPARED)
        for name in (*topology.PODS, topology.NODE, topology.OTHER_NODE):
            _listen(hosts[name])
        yield Lab(hosts, folder)


def _lockfile(folder: Path) -> Path:
    return folder / "xtables.lock"


def _start(driver: Driver, folder: Path, stack: ExitStack) -> dict[str, PeerHost]:
    """Start all hosts at once, then wait until each has reported."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "XTABLES_LOCKFILE": str(_lockfile(folder)),
        "PYTHONPATH": str(ROOT),
        # What runs here is compiled once, whatever the tree has or may keep of it; in a container it is read-only.
        "PYTHONPYCACHEPREFIX": sys.pycache_prefix or str(folder / "bytecode"),
        "NO_COLOR": "1",
    }
    path = folder / "peers.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(len(topology.HOSTS))
        door.settimeout(_START_S)
        for name in topology.HOSTS:
            driver.start(name, [sys.executable, "-S", "-E", str(_PEER), name, str(path)], env)
        wires = {entry.name: entry for entry in (_report(door, stack) for _ in topology.HOSTS)}
    return {name: PeerHost(name, wires[name], topology.addresses(name)) for name in topology.HOSTS}


def _report(door: socket.socket, stack: ExitStack) -> Wire:
    try:
        connection, _ = door.accept()
    except TimeoutError as error:
        raise LabError(f"a host did not report within {_START_S} s") from error
    connection.settimeout(_START_S)
    reported = Wire(connection)
    stack.callback(reported.close)
    return reported


def _listen(host: PeerHost) -> None:
    for port in topology.PORTS:
        for protocol in TRANSPORTS:
            for family in FAMILIES:
                host.listen(protocol, family, port)
