"""nfacct: named packet counters of the kernel, which rules with `-m nfacct` add to.

A rule can name a counter only after it was made, in the same network namespace. Spoken over netlink directly, as few
hosts have the `nfacct` tool: NFNL_SUBSYS_ACCT, linux/netfilter/nfnetlink_acct.h. Each message is a netlink header, the
four bytes of `nfgenmsg`, and attributes; numbers inside attributes are in network order.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

INVALID_DROPPED = "ct_state_invalid_dropped_pkts"
LOCALHOST_ACCEPTED = "localhost_nps_accepted_pkts"
NAMES = (INVALID_DROPPED, LOCALHOST_ACCEPTED)
"""The counters that kube-proxy's rules name."""

_NETLINK_NETFILTER = 12
_ACCT = 7 << 8
_NEW, _GET = _ACCT | 0, _ACCT | 1
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_ERROR, _DONE = 0x2, 0x3
_NAME, _PACKETS, _BYTES = 1, 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Counter:
    """What a counter has counted since it was made."""

    name: str
    packets: int
    bytes: int


def supported() -> bool | None:
    """Return whether this kernel has counters; None where we may not look."""
    try:
        counters()
    except NotPermittedError:
        return None
    except HostError:
        return False
    return True


def counters() -> dict[str, Counter]:
    """Return all counters of this network namespace by name.

    Raises:
        HostError: The kernel has none, or we may not look (`NotPermittedError`).
    """
    found = (_counter(payload) for payload in _talk(_GET, _REQUEST | _DUMP, b""))
    return {counter.name: counter for counter in found}


def ensure(names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """Make the counters that are missing, and return their names. Those that are there keep their counts.

    Raises:
        HostError: The kernel has no counters, or refused one.
    """
    made = []
    for name in names:
        encoded = name.encode() + b"\0"
        try:
            _talk(_NEW, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, _attribute(_NAME, encoded))
        except _ExistsError:
            continue
        made.append(name)
    return tuple(made)


class NotPermittedError(HostError):
    """Counters are for those with CAP_NET_ADMIN."""


class _ExistsError(HostError):
    """There is a counter of this name."""


def _talk(kind: int, flags: int, attributes: bytes) -> list[bytes]:
    """Send one message and return the attributes of each answer."""
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0) + attributes
    message = _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body
    found: list[bytes] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as link:
            link.settimeout(_TIMEOUT_S)
            link.bind((0, 0))
            link.send(message)
            while not _collect(link.recv(1 << 16), found):
                pass
    except OSError as error:
        raise HostError(f"nfacct counters: {error.strerror or error}") from error
    return found


def _collect(datagram: bytes, found: list[bytes]) -> bool:
    """Put the attributes of the messages of a datagram into `found`; return whether the kernel has finished."""
    at = 0
    while at < len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        body = datagram[at + _HEADER.size : at + length]
        if kind == _DONE:
            return True
        if kind == _ERROR:
            _check(-struct.unpack_from("=i", body)[0])
            return True
        found.append(body[4:])
        at += (length + 3) & ~3
    return False


def _check(number: int) -> None:
    match number:
        case 0:
            return
        case errno.EPERM | errno.EACCES:
            raise NotPermittedError("nfacct counters: not permitted", hint="run as root, or with CAP_NET_ADMIN")
        case errno.EEXIST | errno.EBUSY:
            raise _ExistsError("nfacct counters: it is there")
        case errno.EINVAL | errno.EOPNOTSUPP:
            raise HostError("this kernel has no nfacct counters", hint="load the modules nfnetlink_acct and xt_nfacct")
        case _:
            raise HostError(f"nfacct counters: {os.strerror(number)}")


def _counter(attributes: bytes) -> Counter:
    values: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        values[kind & 0x3FFF] = attributes[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)
    return Counter(
        name=values.get(_NAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        packets=int.from_bytes(values.get(_PACKETS, b""), "big"),
        bytes=int.from_bytes(values.get(_BYTES, b""), "big"),
    )


def _attribute(kind: int, content: bytes) -> bytes:
    padding = b"\0" * (-len(content) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + padding
