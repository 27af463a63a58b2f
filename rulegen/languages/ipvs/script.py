"""The commands that make changes of virtual and real servers, in order; each knows how ipvsadm spells it.

A virtual server comes before its real servers, new real servers before old ones go. A real server of TCP that is not
wanted any more keeps what it has: it gets weight 0, and goes when its connections have ended. The kernel itself is
the list of those that are on their way out: a real server of weight 0 that nobody wants.
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
    """What is done to a server; the value is ipvsadm's word for it."""

    ADD_SERVICE = "-A"
    EDIT_SERVICE = "-E"
    ADD_DESTINATION = "-a"
    EDIT_DESTINATION = "-e"
    DELETE_DESTINATION = "-d"
    DELETE_SERVICE = "-D"


class IpvsCommand(NamedTuple):
    """One thing to do, one netlink message.

    Attributes:
        verb: What.
        key: To what: a VirtualServerKey for services, a RealServerKey for destinations.
        value: What it becomes; None if it is deleted.
    """

    verb: IpvsVerb
    key: Key
    value: Value | None = None

    def __str__(self) -> str:
        """Return it as a line for `ipvsadm -R`, which also takes edits and deletions."""
        if isinstance(self.key, RealServerKey):
            value = self.value if isinstance(self.value, RealServer) else None
            return f"{self.verb.value} {real_server_words(*self.key, value)}"
        value_ = self.value if isinstance(self.value, VirtualServer) else None
        return f"{self.verb.value} {virtual_server_words(self.key.frontend, value_)}"


class IpvsScript(NamedTuple):
    """Commands in order, in three parts with other work in between.

    Attributes:
        grow: Servers that are added or changed.
        settle: Real servers that get no new connections, or go, while their virtual server stays.
        shrink: Virtual servers that go, their real servers with them.
    """

    grow: tuple[IpvsCommand, ...] = ()
    settle: tuple[IpvsCommand, ...] = ()
    shrink: tuple[IpvsCommand, ...] = ()


def script(changes: Iterable[Change[Key, Value]]) -> IpvsScript:
    """Return the commands that make the changes; `as_drains` may have turned some deletions into weight 0."""
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
    """Yield the changes, but let real servers of TCP end what they have started.

    One that would be deleted although it has connections, or may have some, gets weight 0 instead; one that has it
    already is left alone until its connections have ended. UDP and SCTP go at once, and so do all real servers of a
    virtual server that goes.
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
    """Return the real servers that are on their way out: of weight 0, unwanted, their virtual server wanted."""
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
