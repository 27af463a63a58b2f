"""The UDP entries of the connection table (conntrack) of this host, and their deletion.

Entries are read with the `conntrack` tool, which is much faster than Python over netlink. They are deleted over
netlink, without a process for each entry.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, privilege_hint
from rulegen.host.netlink import nfnetlink
from rulegen.host.netlink.nfnetlink import NESTED, Message, attribute
from rulegen.model.services.stale_flows import Flow
from rulegen.net import Family, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.host.commands.runner import Runner

LIST_S = 20.0
"""The time limit of the tool: a table of 1,000,000 entries takes some seconds."""

_TRIES = 5
"""The tool fails with EINTR if the table changes meanwhile; it is then called again."""

_FLOW = re.compile(
    r"\budp\b.*? src=(?P<orig_src>\S+) dst=(?P<orig_dst>\S+) sport=(?P<orig_sport>\d+) dport=(?P<orig_dport>\d+) "
    r".*?src=(?P<reply_src>\S+) dst=(?P<reply_dst>\S+) sport=(?P<reply_sport>\d+) dport=(?P<reply_dport>\d+)"
)

_DELETE = (1 << 8) | 2
_TUPLE_REPLY = 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IPV4_SRC, _IPV4_DST, _IPV6_SRC, _IPV6_DST = 1, 2, 3, 4
_PROTO_NUMBER, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_PORT = struct.Struct(">H")
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


def list_flows(run: Runner, family: Family) -> tuple[Flow, ...]:
    """Return the UDP flows of a family, in any order, without those of conntrack zones, which Services do not use.

    Raises:
        HostError: The tool is missing, or not permitted to read the table.
    """
    command = Command(("conntrack", "-L", "-p", "udp", "-f", family.lower(), "-o", "extended"), timeout_s=LIST_S)
    ended = run(command)
    for _ in range(_TRIES - 1):
        if ended.code == 0 or os.strerror(errno.EINTR) not in ended.stderr:
            break
        ended = run(command)
    if ended.code != 0:
        raise HostError(f"reading the connection table: {ended.complaint}", hint=privilege_hint(ended.stderr))
    return tuple(_read(ended.stdout))


def delete(flows: Iterable[Flow]) -> int:
    """Delete flows from conntrack, and return how many existed.

    A flow is identified by its reply tuple, so a flow that has started again with another endpoint stays.

    Raises:
        HostError: The kernel rejected a deletion; some of the flows may be deleted.
    """
    messages = [_deletion(flow) for flow in flows]
    try:
        answers = nfnetlink.send_all(messages)
    except OSError as error:
        raise HostError(f"deleting conntrack entries: {error}", hint=privilege_hint(str(error))) from error
    for number in answers:
        if number not in {0, errno.ENOENT}:
            words = os.strerror(number)
            raise HostError(f"deleting conntrack entries: {words}", hint=privilege_hint(words))
    return answers.count(0)


def _read(text: str) -> Iterator[Flow]:
    for line in text.splitlines():
        match = _FLOW.search(line)
        if match is None or " zone" in line:
            continue
        yield Flow(
            protocol=Protocol.UDP,
            orig_src=ip_address(match["orig_src"]),
            orig_dst=ip_address(match["orig_dst"]),
            orig_sport=int(match["orig_sport"]),
            orig_dport=int(match["orig_dport"]),
            reply_src=ip_address(match["reply_src"]),
            reply_dst=ip_address(match["reply_dst"]),
            reply_sport=int(match["reply_sport"]),
            reply_dport=int(match["reply_dport"]),
        )


def _deletion(flow: Flow) -> Message:
    source, destination = (_IPV4_SRC, _IPV4_DST) if flow.family is Family.IPV4 else (_IPV6_SRC, _IPV6_DST)
    addresses = attribute(source, flow.reply_src.packed) + attribute(destination, flow.reply_dst.packed)
    ports = (
        attribute(_PROTO_NUMBER, bytes([_NUMBERS[flow.protocol]]))
        + attribute(_PROTO_SRC_PORT, _PORT.pack(flow.reply_sport))
        + attribute(_PROTO_DST_PORT, _PORT.pack(flow.reply_dport))
    )
    reply = attribute(_TUPLE_IP | NESTED, addresses) + attribute(_TUPLE_PROTO | NESTED, ports)
    family = socket.AF_INET if flow.family is Family.IPV4 else socket.AF_INET6
    return Message(_DELETE, 0, family, attribute(_TUPLE_REPLY | NESTED, reply))
