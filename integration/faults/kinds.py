"""The faults of a host that a sequence is made of: each begins and ends, and says which parts it harms."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.agent import until
from integration.faults.modes import IPTABLES
from integration.faults.scene import FOREIGN
from rulegen.host.proxy.process_list import Role
from tests.fakes.faults import Fault as Answer

if TYPE_CHECKING:
    from random import Random

    from integration.faults.modes import ServiceMode
    from integration.faults.scene import Scene

Begin = Callable[["Scene", "Random"], AbstractContextManager[None]]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        begin: Begins it; it ends with the context.
        harms: The parts that need not follow the cluster until all has settled.
        tools: The tools that it breaks, beside these parts.
        groups: Faults that have a group in common do not overlap.
        stops_site: Whether nginx or HAProxy may answer nothing from its begin on.
    """

    begin: Begin
    harms: frozenset[str]
    groups: frozenset[str]
    stops_site: bool = False
    tools: tuple[str, ...] = ()

    def harmed(self, mode: ServiceMode) -> frozenset[str]:
        """Return the parts that it harms in a mode."""
        return self.harms.union(*(mode.tools.get(name, frozenset()) for name in self.tools))


def _tool(name: str, kind: str) -> Begin:
    @contextmanager
    def begin(scene: Scene, chance: Random) -> Iterator[None]:
        if scene.is_fresh:
            scene.break_start(name)
        match kind:
            case "hangs":
                with scene.tools.hanging(name):
                    yield
            case "is slow":
                with scene.tools.flagged("slow", str(chance.choice((0.5, 1.5))), name):
                    yield
            case "is missing":
                with scene.tools.missing(name):
                    yield
            case _:
                with scene.tools.failing(chance.choice((1, 2, 3, 4, 111, 127, 137)), name):
                    yield

    return begin


def _program(test: str = ":", start: str = ":") -> Begin:
    @contextmanager
    def begin(scene: Scene, _: Random) -> Iterator[None]:
        scene.write_program(test, start)
        try:
            yield
        finally:
            scene.write_program()

    return begin


@contextmanager
def _hanging_start(scene: Scene, _: Random) -> Iterator[None]:
    flag = scene.tools.flags / "start.hangs"
    flag.touch()
    scene.write_program(start=f"while [ -e {flag} ]; do sleep 0.05; done")
    try:
        yield
    finally:
        scene.write_program()
        flag.unlink()


@contextmanager
def _no_binary(scene: Scene, _: Random) -> Iterator[None]:
    scene.binary.rename(scene.binary.with_suffix(".away"))
    try:
        yield
    finally:
        scene.binary.with_suffix(".away").rename(scene.binary)


@contextmanager
def _port_taken(scene: Scene, chance: Random) -> Iterator[None]:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def is_bound() -> bool:
            with suppress(OSError):
                if scene.is_gone():
                    other.bind(("0.0.0.0", 80))
                    return True
            return False

        with _no_binary(scene, chance):
            until(is_bound, 15, "the port is ours")
            other.listen()
        yield


@contextmanager
def _full_disk(scene: Scene, _: Random) -> Iterator[None]:
    filler = scene.site.parent / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _no_inodes(scene: Scene, _: Random) -> Iterator[None]:
    folder = scene.site.parent / "many"
    folder.mkdir()
    with suppress(OSError):
        for number in itertools.count():
            (folder / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def _no_iptables(scene: Scene, _: Random) -> Iterator[None]:
    with scene.tools.missing(*IPTABLES):
        yield


def _restarted(number: signal.Signals) -> Begin:
    """Return what ends the agents within a sync and a reload, and starts them again."""

    @contextmanager
    def begin(scene: Scene, chance: Random) -> Iterator[None]:
        scene.serve_host(f"host-{chance.randrange(4)}")
        time.sleep(chance.uniform(0.0, 0.8))
        scene.break_start(*scene.tools.broken())
        scene.restart(number)
        yield

    return begin


@contextmanager
def _paused(scene: Scene, chance: Random) -> Iterator[None]:
    scene.pause(chance.uniform(0.2, 3.0))
    yield


@contextmanager
def _api_away(scene: Scene, _: Random) -> Iterator[None]:
    scene.api.go_away()
    try:
        yield
    finally:
        scene.api.come_back()


@contextmanager
def _api_hangs(scene: Scene, _: Random) -> Iterator[None]:
    for collection in ("services", "endpointslices", "ingresses"):
        scene.api.hush(collection, "")
    scene.api.break_connections()
    try:
        yield
    finally:
        scene.api.speak()


@contextmanager
def _api_fails(scene: Scene, chance: Random) -> Iterator[None]:
    for collection in ("services", "endpointslices", "ingresses", "nodes"):
        scene.api.fail(collection, *chance.choices((Answer.status(500), Answer.status(429), Answer.body(b"{}")), k=3))
    scene.api.break_connections()
    try:
        yield
    finally:
        scene.api.calm_down()


def _killed(*roles: Role) -> Begin:
    @contextmanager
    def begin(scene: Scene, _: Random) -> Iterator[None]:
        scene.kill(*roles)
        yield

    return begin


@contextmanager
def _all_killed(scene: Scene, _: Random) -> Iterator[None]:
    scene.kill_site()
    yield


def _stopped(*roles: Role) -> Begin:
    @contextmanager
    def begin(scene: Scene, _: Random) -> Iterator[None]:
        pids = [process.pid for process in scene.processes(*roles)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    return begin


@contextmanager
def _foreign_rules(scene: Scene, chance: Random) -> Iterator[None]:
    scene.mode.damage(scene.node, chance)
    yield


@contextmanager
def _foreign_files(scene: Scene, chance: Random) -> Iterator[None]:
    current = scene.site / "current"
    deeds: list[Callable[[], object]] = [
        current.unlink,
        lambda: shutil.rmtree(current.resolve()),
        lambda: (current / scene.engine.foreign).write_text(FOREIGN),
    ]
    with suppress(OSError):
        chance.choice(deeds)()
    yield


@contextmanager
def _site_locked(scene: Scene, _: Random) -> Iterator[None]:
    """Another program holds the lock of the proxy's folder."""
    with (scene.site / "run" / "apply.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _xtables_locked(scene: Scene, _: Random) -> Iterator[None]:
    """Another program holds the lock of iptables-legacy, which iptables-nft does not need."""
    with Path(scene.node.environment["XTABLES_LOCKFILE"]).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _reloaded(scene: Scene, _: Random) -> Iterator[None]:
    """SIGHUP: the configuration is read again."""
    for agent in scene.agents.values():
        agent.send_signal(signal.SIGHUP)
    yield


def _tools() -> dict[str, Kind]:
    """Return the faults of the tools of each mode, and of conntrack."""
    kinds = {**dict.fromkeys((*IPTABLES, "nft"), ("hangs", "fails", "is slow", "is missing"))}
    kinds["conntrack"] = ("hangs", "fails", "is missing")
    return {
        f"{name} {kind}": Kind(_tool(name, kind), frozenset(), frozenset({name}), tools=(name,))
        for name in kinds
        for kind in kinds[name]
    }


INGRESS = frozenset({"ingress"})
API = frozenset({"IPv4", "IPv6", "ingress"})
KINDS: dict[str, Kind] = {
    **_tools(),
    "a test of the proxy hangs": Kind(_program(test="exec sleep 60"), INGRESS, frozenset({"binary"})),
    "a test of the proxy fails": Kind(_program(test="exit 1"), INGRESS, frozenset({"binary"})),
    "a test of the proxy is killed": Kind(_program(test="kill -9 $$"), INGRESS, frozenset({"binary"})),
    "a test of the proxy is slow": Kind(_program(test="sleep 1"), INGRESS, frozenset({"binary"})),
    "the proxy cannot start": Kind(_program(start="exit 1"), INGRESS, frozenset({"binary"})),
    "the proxy starts slowly": Kind(_program(start="sleep 1"), INGRESS, frozenset({"binary"})),
    "the proxy hangs at its start": Kind(_hanging_start, INGRESS, frozenset({"binary"})),
    "the proxy is missing": Kind(_no_binary, INGRESS, frozenset({"binary"})),
    "the port is taken": Kind(_port_taken, INGRESS, frozenset({"binary"}), stops_site=True),
    "the disk is full": Kind(_full_disk, INGRESS, frozenset({"disk"})),
    "the inodes are used up": Kind(_no_inodes, INGRESS, frozenset({"disk"})),
    "iptables is gone": Kind(_no_iptables, frozenset(), frozenset(IPTABLES), tools=tuple(IPTABLES)),
    "the agent is killed": Kind(_restarted(signal.SIGKILL), frozenset(), frozenset({"agent"})),
    "the agent is restarted": Kind(_restarted(signal.SIGTERM), INGRESS, frozenset({"agent"}), stops_site=True),
    "the agent is suspended": Kind(_paused, frozenset(), frozenset({"agent"})),
    "the master is killed": Kind(_killed(Role.MASTER), INGRESS, frozenset({"kill"}), stops_site=True),
    "a worker is killed": Kind(_killed(Role.WORKER), INGRESS, frozenset({"kill"}), stops_site=True),
    "the proxy and its supervisor are killed": Kind(_all_killed, INGRESS, frozenset({"kill"}), stops_site=True),
    "the proxy is stopped": Kind(_stopped(), INGRESS, frozenset({"kill"}), stops_site=True),
    "the master is stopped": Kind(_stopped(Role.MASTER), INGRESS, frozenset({"kill", "binary", "disk", "files"})),
    "the API server is away": Kind(_api_away, API, frozenset({"API"})),
    "the API server hangs": Kind(_api_hangs, API, frozenset({"API"})),
    "the API server fails": Kind(_api_fails, API, frozenset({"API"})),
    "others change rules": Kind(_foreign_rules, frozenset(), frozenset({"rules"})),
    "others change files": Kind(_foreign_files, INGRESS, frozenset({"files"})),
    "the lock of the proxy is held": Kind(_site_locked, INGRESS, frozenset({"lock", "agent"})),
    "the lock of iptables is held": Kind(_xtables_locked, frozenset(), frozenset({"lock"})),
    "the configuration is read again": Kind(_reloaded, frozenset(), frozenset({"reload"})),
}
