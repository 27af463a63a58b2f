"""nfacct: named packet counters of the kernel, which rules with `-m nfacct` increase.

A counter must exist in the network namespace before a rule refers to it. This module uses netlink, because few hosts
have the `nfacct` tool: subsystem ACCT, linux/netfilter/nfnetlink_acct.h.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import msgspec

from rulegen.errors import HostError
from rulegen.host.netlink import nfnetlink
from rulegen.host.netlink.nfnetlink import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts")
"""The counters that kube-proxy's rules refer to."""

_ACCT = 7 << 8
_NEW, _GET = _ACCT | 0, _ACCT | 1
_NAME, _PACKETS, _BYTES = 1, 2, 3


class Counter(msgspec.Struct, frozen=True):
    """The counts of a counter since its creation."""

    name: str
    packets: int
    bytes: int


def supported() -> bool | None:
    """Return whether this kernel has counters; None if reading is not permitted."""
    try:
        counters()
    except HostError as error:
        return None if error.hint == _PRIVILEGE else False
    return True


def counters() -> dict[str, Counter]:
    """Return all counters of this network namespace by name.

    Raises:
        HostError: The kernel has no counters, or reading is not permitted.
    """
    try:
        answers = nfnetlink.dump(Message(_GET, nfnetlink.DUMP))
    except OSError as error:
        raise _refusal(error.errno or 0, str(error)) from error
    listed = (
        Counter(
            name=answer.get(_NAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
            packets=int.from_bytes(answer.get(_PACKETS, b""), "big"),
            bytes=int.from_bytes(answer.get(_BYTES, b""), "big"),
        )
        for answer in answers
    )
    return {counter.name: counter for counter in listed}


def ensure(names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """Create missing counters, and return their names. Existing counters keep their counts.

    Raises:
        HostError: The kernel has no counters, or rejected one.
    """
    flags = nfnetlink.CREATE | nfnetlink.EXCLUSIVE
    messages = [Message(_NEW, flags, 0, nfnetlink.attribute(_NAME, name.encode() + b"\0")) for name in names]
    try:
        answers = nfnetlink.send_all(messages)
    except OSError as error:
        raise _refusal(error.errno or 0, str(error)) from error
    for name, number in zip(names, answers, strict=True):
        if number not in {0, errno.EEXIST, errno.EBUSY}:
            raise _refusal(number, f"{name}: {errno.errorcode.get(number, number)}")
    return tuple(name for name, number in zip(names, answers, strict=True) if number == 0)


_PRIVILEGE = "run as root, or with CAP_NET_ADMIN"


def _refusal(number: int, words: str) -> HostError:
    match number:
        case errno.EPERM | errno.EACCES:
            return HostError("nfacct counters: not permitted", hint=_PRIVILEGE)
        case errno.EINVAL | errno.EOPNOTSUPP | errno.EPROTONOSUPPORT:
            return HostError("this kernel has no nfacct counters", hint="load the modules nfnetlink_acct and xt_nfacct")
        case _:
            return HostError(f"nfacct counters: {words}")
