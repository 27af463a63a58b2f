"""Policy routing rules and local routes of this host, over rtnetlink. Source: rtnetlink(7), linux/fib_rules.h."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import privilege_hint
from rulegen.host.netlink import messages
from rulegen.languages.routes.state import PRESENT, Key, LocalRouteKey, MarkRuleKey, Objects
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.routes.script import RouteCommand

_HEADER: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg and struct fib_rule_hdr: family, lengths of destination and source, TOS, table, three bytes, flags."""
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_ROUTE_OUT, _ROUTE_TABLE = 4, 15
_RULE_PRIORITY, _RULE_MARK, _RULE_TABLE, _RULE_MASK = 6, 10, 15, 16
_RULE_SELECTORS: Final = {1, 2, 3, 17, 18, 22, 23, 24}
"""Further attributes that select packets: addresses, interfaces, users, protocol and ports."""
_TO_TABLE: Final = 1
_LOCAL = 2
_SCOPE_HOST, _SCOPE_ANY = 254, 255
_BY_ANYBODY, _BY_STATIC = 0, 4
_LOOPBACK_INDEX: Final = 1
_NUMBERS: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_FAMILIES: Final = {number: family for family, number in _NUMBERS.items()}
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_TRIES: Final = 10
_ABSENT: Final = {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT}
"""The kernel has no such family, no policy routing, or no such table."""


class RoutesError(HostError):
    """The kernel rejected a rule or route.

    Attributes:
        command: The rejected command.
        number: The kernel's errno.
    """

    def __init__(self, command: RouteCommand, number: int) -> None:
        self.command, self.number = command, number
        reason = os.strerror(number)
        super().__init__(f"`ip {command}`: {reason}", hint=privilege_hint(reason))


def observe(table: int) -> Objects:
    """Return the rules by mark that lead to a table, and the local default routes in it, of both families.

    Raises:
        HostError: They cannot be read.
    """
    error: OSError | None = None
    for _ in range(_TRIES):
        try:
            return {key: PRESENT for family in Family for key in _observed(family, table)}
        except InterruptedError as interrupted:  # something changed meanwhile: another object may be missing
            error = interrupted
        except OSError as refused:
            error = refused
            break
    raise HostError(f"reading policy routing: {(error and error.strerror) or error}") from error


def _observed(family: Family, table: int) -> list[Key]:
    keys: list[Key] = []
    rules = _HEADER.pack(_NUMBERS[family], 0, 0, 0, 0, 0, 0, 0, 0)
    keys += (key for body in _dump(_GET_RULE, rules) if (key := rule_of(body)) is not None and key.table == table)
    routes = _HEADER.pack(_NUMBERS[family], 0, 0, 0, 0, 0, 0, 0, 0)
    wanted = messages.attribute(_ROUTE_TABLE, struct.pack("=I", table))
    keys += (
        route
        for body in _dump(_GET_ROUTE, routes + wanted)
        if (route := route_of(body)) is not None and route.table == table
    )
    return keys


def _dump(kind: int, body: bytes) -> Iterator[bytes]:
    try:
        with messages.connect(messages.ROUTE) as link:
            with suppress(OSError):  # Linux before 4.20 returns all tables
                link.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
            yield from messages.dump(link, messages.message(kind, messages.DUMP, 1, body), is_whole=True)
    except InterruptedError:
        raise
    except OSError as error:
        if error.errno not in _ABSENT:
            raise


def rule_of(body: bytes) -> MarkRuleKey | None:
    """Return the rule in a message, if it selects packets by one mark alone and leads to a table."""
    family, destination, source, tos, table, _, _, action, flags = _HEADER.unpack_from(body)
    attributes = messages.attributes_of(body[_HEADER.size :])
    if family not in _FAMILIES or destination or source or tos or action != _TO_TABLE or flags:
        return None
    if attributes.keys() & _RULE_SELECTORS or not attributes.keys() >= {_RULE_PRIORITY, _RULE_MARK, _RULE_MASK}:
        return None
    mark, mask = _number(attributes[_RULE_MARK]), _number(attributes[_RULE_MASK])
    if mark != mask:
        return None
    table = _number(attributes[_RULE_TABLE]) if _RULE_TABLE in attributes else table
    return MarkRuleKey(_FAMILIES[family], table, _number(attributes[_RULE_PRIORITY]), mark)


def route_of(body: bytes) -> LocalRouteKey | None:
    """Return the route in a message, if it delivers all packets to this host over the loopback device."""
    family, destination, source, tos, table, _, _, kind, _ = _HEADER.unpack_from(body)
    attributes = messages.attributes_of(body[_HEADER.size :])
    if family not in _FAMILIES or destination or source or tos or kind != _LOCAL:
        return None
    if _number(attributes.get(_ROUTE_OUT, b"\0\0\0\0")) != _LOOPBACK_INDEX:
        return None
    table = _number(attributes[_ROUTE_TABLE]) if _ROUTE_TABLE in attributes else table
    return LocalRouteKey(_FAMILIES[family], table)


def write(commands: Sequence[RouteCommand]) -> None:
    """Execute the commands in order. A command whose result already exists succeeds.

    Raises:
        RoutesError: The kernel rejected a command; those before it were executed.
        HostError: Netlink failed.
    """
    try:
        with messages.connect(messages.ROUTE) as link:
            for command in commands:
                (number,) = messages.acknowledged(link, [_encoded(command)])
                if number not in {0, errno.EEXIST} if command.adds else number not in {0, errno.ENOENT, errno.ESRCH}:
                    raise RoutesError(command, number)
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostError(f"changing policy routing: {reason}", hint=privilege_hint(reason)) from error


def _encoded(command: RouteCommand) -> bytes:
    flags = messages.REQUEST | messages.ACK | (messages.CREATE | messages.EXCLUSIVE if command.adds else 0)
    key, number = command.key, _NUMBERS[command.key.family]
    if isinstance(key, MarkRuleKey):
        kind = _NEW_RULE if command.adds else _DELETE_RULE
        body = _HEADER.pack(number, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
        values = {_RULE_PRIORITY: key.priority, _RULE_MARK: key.mark, _RULE_MASK: key.mark, _RULE_TABLE: key.table}
    else:
        kind = _NEW_ROUTE if command.adds else _DELETE_ROUTE
        origin, scope = (_BY_STATIC, _SCOPE_HOST) if command.adds else (_BY_ANYBODY, _SCOPE_ANY)
        body = _HEADER.pack(number, 0, 0, 0, 0, origin, scope, _LOCAL, 0)
        values = {_ROUTE_OUT: _LOOPBACK_INDEX, _ROUTE_TABLE: key.table}
    body += b"".join(messages.attribute(name, struct.pack("=I", value)) for name, value in values.items())
    return messages.message(kind, flags, 0, body)


def _number(content: bytes) -> int:
    return int.from_bytes(content[:4], "little" if struct.pack("=H", 1)[0] else "big")
