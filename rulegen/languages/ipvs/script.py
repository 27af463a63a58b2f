"""The commands for changes of virtual and real servers, in order, and their text for ipvsadm.

A virtual server is added before its real servers, and new real servers before old ones are deleted. An unwanted TCP
real server drains: it gets weight 0, and is deleted when its connections have ended. There is no other record of
draining real servers than the kernel: an unwanted real server with weight 0 drains.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rulegen.diff.changes import Change
from rulegen.languages.ipvs.state import DRAINING, RealServer, RealServerKey, VirtualServer, VirtualServerKey
from rulegen.languages.ipvs.text import real_server_words, virtual_server_words
from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.ipvs.state import Key, Value


class IpvsVerb(enum.Enum):
    """The verb of a command; the value is the option of ipvsadm."""

    ADD_SERVICE = "-A"
    EDIT_SERVICE = "-E"
    ADD_DESTINATION = "-a"
    EDIT_DESTINATION = "-e"
    DELETE_DESTINATION = "-d"
    DELETE_SERVICE = "-D"


class IpvsCommand(NamedTuple):
    """One command, which is one netlink message.

    Attributes:
        verb: The verb.
        key: A VirtualServerKey for services, a RealServerKey for destinations.
        value: The new value; None for a deletion.
    """

    verb: IpvsVerb
    key: Key
    value: Value | None = None

    def __str__(self) -> str:
        """Return the command as a line for `ipvsadm -R`, which also accepts edits and deletions."""
        if isinstance(self.key, RealServerKey):
            value = self.value if isinstance(self.value, RealServer) else None
            return f"{self.verb.value} {real_server_words(*self.key, value)}"
        value_ = self.value if isinstance(self.value, VirtualServer) else None
        return f"{self.verb.value} {virtual_server_words(self.key.frontend, value_)}"


class IpvsScript(NamedTuple):
    """Commands in order, in three parts with other writes between them.

    Attributes:
        grow: Servers that are added or changed.
        settle: Real servers that drain or are deleted while their virtual server stays.
        shrink: Virtual servers that are deleted together with their real servers.
    """

    grow: tuple[IpvsCommand, ...] = ()
    settle: tuple[IpvsCommand, ...] = ()
    shrink: tuple[IpvsCommand, ...] = ()


def script(changes: Iterable[Change[Key, Value]]) -> IpvsScript:
    """Return the commands for changes; `as_drains` has replaced some deletions by weight 0."""
    changes = tuple(changes)
    gone = {change.key.frontend for change in changes if _is_virtual(change) and change.after is None}
    grow: list[IpvsCommand] = []
    settle: list[IpvsCommand] = []
    shrink: list[IpvsCommand] = []
    for key, before, after in changes:
        if isinstance(key, VirtualServerKey):
            if after is None:
                shrink.append(IpvsCommand(IpvsVerb.DELETE_SERVICE, key))
            else:
                grow.append(IpvsCommand(IpvsVerb.ADD_SERVICE if before is None else IpvsVerb.EDIT_SERVICE, key, after))
        elif key.frontend in gone:
            continue
        elif after is None:
            settle.append(IpvsCommand(IpvsVerb.DELETE_DESTINATION, key))
        elif before is None:
            grow.append(IpvsCommand(IpvsVerb.ADD_DESTINATION, key, after))
        else:
            stops = isinstance(after, RealServer) and after.weight == DRAINING
            (settle if stops else grow).append(IpvsCommand(IpvsVerb.EDIT_DESTINATION, key, after))
    return IpvsScript(tuple(grow), tuple(settle), tuple(shrink))


def as_drains(changes: Iterable[Change[Key, Value]]) -> Iterator[Change[Key, Value]]:
    """Yield the changes, with weight 0 instead of the deletion of TCP real servers that may have connections.

    A draining real server with weight 0 stays unchanged until its connections have ended. UDP and SCTP real servers are
    deleted at once, as are all real servers of a deleted virtual server.
    """
    changes = tuple(changes)
    gone = {change.key.frontend for change in changes if _is_virtual(change) and change.after is None}
    for change in changes:
        key, before = change.key, change.before
        if (
            change.after is None
            and isinstance(before, RealServer)
            and key.frontend not in gone
            and key.frontend.protocol is Protocol.TCP
            and before.connections != 0
        ):
            if before.weight != DRAINING:
                yield Change(key, before, replace(before, weight=DRAINING))
        else:
            yield change


def draining(observed: Mapping[Key, Value], desired: Mapping[Key, Value]) -> tuple[RealServerKey, ...]:
    """Return the draining real servers: unwanted, with weight 0, and of a wanted virtual server."""
    return tuple(
        sorted(
            key
            for key, value in observed.items()
            if isinstance(key, RealServerKey)
            and isinstance(value, RealServer)
            and value.weight == DRAINING
            and key not in desired
            and VirtualServerKey(key.frontend) in desired
        )
    )


def _is_virtual(change: Change[Key, Value]) -> bool:
    return isinstance(change.key, VirtualServerKey)
