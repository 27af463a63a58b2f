"""The language of IPVS: virtual servers, real servers that drain before deletion, and connection timeouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.diff.changes import Change, diff
from rulegen.diff.items import Drift, ItemEndpoint
from rulegen.languages.ipvs.script import as_drains, draining, script
from rulegen.languages.ipvs.state import (
    DRAINING,
    IpvsState,
    RealServer,
    RealServerKey,
    TimeoutsKey,
    VirtualServer,
    VirtualServerKey,
)
from rulegen.languages.ipvs.text import (
    format_servers,
    real_server_words,
    virtual_server_words,
)
from rulegen.languages.keyed import KeyedLanguage, SharedHolder, SharedMemory
from rulegen.languages.language import FrontendKey, Part, Phase, Print, Task
from rulegen.net import join_host_port

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.languages.ipvs.script import IpvsCommand
    from rulegen.languages.ipvs.state import Frontend, Timeouts
    from rulegen.languages.language import Changes, K, Objects, PrintScope, Scene, Shape, StateKey, Union, WorkTerms
    from rulegen.net import Family

NAME = "ipvs"

COMMANDS_AT_ONCE: Final = 5_000
"""The most commands of one task; between two tasks the agent can write more urgent changes."""


class ChangeVirtualServers(msgspec.Struct, frozen=True):
    """IPVS commands, in order."""

    commands: tuple[IpvsCommand, ...]


class WaitForDrain(msgspec.Struct, frozen=True):
    """A pause in which connections of virtual servers may end; no rule leads new ones to them."""

    frontends: frozenset[Frontend]


class SetIpvsTimeouts(msgspec.Struct, frozen=True):
    """Set the IPVS connection timeouts."""

    timeouts: Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class ServersPart(Part):
    """The changes of virtual and real servers.

    Attributes:
        leaving: Unwanted real servers with weight 0 that still have connections; they stay for now.
        left: Unwanted real servers with weight 0 whose connections have ended; they are deleted.
    """

    leaving: tuple[RealServerKey, ...] = ()
    left: tuple[RealServerKey, ...] = ()

    @property
    def draining(self) -> tuple[RealServerKey, ...]:
        """Keys of real servers that drain: they stay until their connections have ended."""
        return self.leaving

    @property
    def ended(self) -> tuple[RealServerKey, ...]:
        """Keys of real servers that have drained and are deleted now."""
        return self.left


class ServersMemory(SharedMemory):
    """Records the draining real servers: no owner wants them, and the kernel has them with weight 0."""

    def __init__(self) -> None:
        """Start without records."""
        self._leaving: dict[RealServerKey, RealServer] = {}

    @property
    def leaving(self) -> Collection[RealServerKey]:
        """Keys of real servers whose connections have not ended."""
        return self._leaving.keys()

    def changes(self, changes: Changes) -> Changes:
        """Return the changes; draining real servers count as present."""
        return tuple(as_drains(self._with_leaving(change) for change in changes))

    def remember(self, part: Part | None, contents: Mapping[K, Any]) -> dict[K, Any]:  # noqa: ARG002 - keyed objects are themselves
        """Replace all records by the draining real servers of a full plan."""
        self._leaving = {key: RealServer(DRAINING) for key in (part.draining if part is not None else ())}
        return {}

    def written(self, part: Part, union: Union) -> None:
        """Record the real servers that a part lets drain, or takes into use again."""
        for key, _, after in part.changes:
            if not isinstance(key, RealServerKey):
                if after is None:
                    self._leaving = {k: v for k, v in self._leaving.items() if k.frontend != key.frontend}
            elif isinstance(after, RealServer) and after.weight == DRAINING and not union.wants(key):
                self._leaving[key] = after
            else:
                self._leaving.pop(key, None)

    def _with_leaving(self, change: Change[Any, Any]) -> Change[Any, Any]:
        """Return a change; a draining real server counts as present."""
        if change.before is None and change.key in self._leaving:
            return Change(change.key, self._leaving[change.key], change.after)
        return change


class ServersHolder(SharedHolder):
    """Finds the virtual servers of a Service in the kernel, with all real servers of each."""

    def held(self, content: Mapping[Any, Any], frontends: Collection[FrontendKey]) -> Objects | None:
        """Return the servers of a Service in the kernel; None if there are none."""
        virtual = {key: value for key, value in content.items() if isinstance(key, VirtualServerKey)}
        standing = {key.frontend for key in super().held(virtual, frontends) or {}}
        return {key: value for key, value in self._ours.items() if key.frontend in standing} or None


class Ipvs(KeyedLanguage):
    """The row of IPVS in the table of languages."""

    name = NAME

    def memory(self) -> ServersMemory:
        """Return a memory without records."""
        return ServersMemory()

    def compare(self, scene: Scene) -> Part:
        """Return the changes; unwanted real servers with connections drain, and draining ones stay unchanged."""
        desired = scene.desired.get(NAME, {})
        if scene.family is None:
            return Part(changes=tuple(_timeouts(scene.state, desired)), desired=desired)
        ours = scene.ours[NAME]
        changes = tuple(as_drains(diff(ours, desired)))
        changed = {change.key for change in changes}
        out = draining(ours, desired)
        return ServersPart(
            changes=changes,
            desired=desired,
            leaving=tuple(key for key in out if key not in changed),
            left=tuple(key for key in out if key in changed),
        )

    def named(self, key: Any) -> tuple[str, str]:
        """Return the kind of an object, and its name."""
        match key:
            case VirtualServerKey():
                return "virtual server", str(key.frontend)
            case RealServerKey():
                return "real server", str(key)
            case _:
                return "timeouts", key.name

    def endpoints(self, scene: Scene) -> Callable[[Change[Any, Any]], tuple[ItemEndpoint, ...]]:  # noqa: ARG002 - the change tells
        """Return what finds the endpoint of a real server that starts or stops getting connections."""
        return _endpoint

    def frontend(self, key: Any) -> str:
        """Return the frontend of a virtual server; empty for other objects."""
        return str(key.frontend) if isinstance(key, VirtualServerKey) else ""

    def text(self, key: Any, value: Any) -> str:
        """Return the text of an object as ipvsadm prints it."""
        match value:
            case VirtualServer():
                return virtual_server_words(key.frontend, value).split(" ", 2)[2]
            case RealServer():
                words = real_server_words(key.frontend, key.address, key.port, value)
                return words.partition(" -r ")[2].partition(" ")[2]
            case _:
                return f"tcp {value.tcp} s, tcpfin {value.tcp_fin} s, udp {value.udp} s"

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        """Return the drift of a server, if it is certainly drift."""
        key, before, after = change
        match key:
            case VirtualServerKey() if before is None:
                return Drift.MISSING if scene.around.was_there(NAME, key) else None
            case RealServerKey() if isinstance(before, RealServer):
                kept = after if isinstance(after, RealServer) else RealServer()
                return None if before.forwarding is kept.forwarding else Drift.FOREIGN
            case _:
                return None

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        """Yield batches of commands. If another mode takes over, wait for connections before servers are deleted."""
        leaving: set[Frontend] = set()
        for family, part in parts.items():
            if family is None:
                timeouts = (change.after for change in part.changes if change.after is not None)
                yield from (Task(Phase.TIMEOUTS, "timeouts of IPVS", SetIpvsTimeouts(after)) for after in timeouts)
                continue
            commands = script(part.changes)
            yield from _batches(Phase.SERVERS, f"{family} servers", (*commands.grow, *commands.settle))
            yield from _batches(Phase.SERVERS_REMOVED, f"{family} virtual servers, removed", commands.shrink)
            if family in terms.taken_over:
                leaving |= {command.key.frontend for command in commands.shrink}
        if leaving:
            title = f"wait for the connections of {len(leaving)} virtual servers"
            yield Task(Phase.DRAIN, title, WaitForDrain(frozenset(leaving)))

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> ServersHolder:  # noqa: ARG002 - the keys tell
        """Return what finds the servers of a Service in `ours`."""
        return ServersHolder(ours, others)

    def frontends(self, content: Mapping[Any, Any]) -> Iterator[FrontendKey]:
        """Yield the addresses and ports of virtual servers and of their real servers."""
        for key in content:
            if isinstance(key, RealServerKey):
                yield FrontendKey(key.address, key.frontend.protocol, key.port)
            yield FrontendKey(key.frontend.address, key.frontend.protocol, key.frontend.port)

    def frontends_removed(self, part: Part) -> Iterator[FrontendKey]:
        """Yield the frontends of the virtual servers that a part deletes."""
        for change in part.changes:
            if change.after is None and isinstance(change.key, VirtualServerKey):
                frontend = change.key.frontend
                yield FrontendKey(frontend.address, frontend.protocol, frontend.port)

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:  # noqa: ARG002 - one state for all
        """Return the state of an empty kernel."""
        return {(NAME, None): IpvsState({})}

    def unseen(self, state: Any) -> str:
        """Return which objects were not read; empty if they were."""
        return "virtual servers (ipvsadm -Sn)" if state is None or state.servers is None else ""

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the servers for `ipvsadm -R`."""
        servers = {key: value for key, value in wanted.objects.items() if not isinstance(key, TimeoutsKey)}
        yield Print("ipvsadm.save", format_servers(servers), "ipvsadm")

    def shapes(self, content: Mapping[Any, Any]) -> Iterator[Shape]:
        """Yield the kernel features that each server needs: its protocol and its scheduler."""
        for key, value in content.items():
            if isinstance(value, VirtualServer):
                yield frozenset((NAME, f"protocol {key.frontend.protocol}", value.scheduler, value.engine))
            else:
                yield frozenset((NAME, type(key).__name__))


def _timeouts(state: IpvsState | None, desired: Mapping[Any, Any]) -> Iterator[Change[TimeoutsKey, Timeouts]]:
    """Yield the change of the timeouts. A timeout that is not wanted, or was not read, stays as it is."""
    wanted = desired.get(TimeoutsKey())
    if state is None or state.timeouts is None or wanted is None:
        return
    after = wanted.over(state.timeouts)
    if after != state.timeouts:
        yield Change(TimeoutsKey(), state.timeouts, after)


def _batches(phase: Phase, title: str, commands: tuple[IpvsCommand, ...]) -> Iterator[Task]:
    for start in range(0, len(commands), COMMANDS_AT_ONCE):
        batch = commands[start : start + COMMANDS_AT_ONCE]
        yield Task(phase, f"{title}: {len(batch)}", ChangeVirtualServers(batch))


def _endpoint(change: Change[Any, Any]) -> tuple[ItemEndpoint, ...]:
    """Return the endpoint of a real server that starts or stops getting connections: its weight shows it."""
    key, before, after = change
    gets, got = (isinstance(each, RealServer) and each.weight != DRAINING for each in (after, before))
    if not isinstance(key, RealServerKey) or gets is got:
        return ()
    return (ItemEndpoint(gets, str(key.frontend), join_host_port(key.address, key.port)),)
