"""The netlink messages of IPVS: decoding of virtual and real servers, and encoding of commands. See linux/ip_vs.h."""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING, Any, Final

from rulegen.host.netlink import messages as netlink
from rulegen.host.netlink.messages import NESTED, attribute
from rulegen.languages.ipvs.script import IpvsCommand, IpvsVerb
from rulegen.languages.ipvs.state import (
    Forwarding,
    Frontend,
    RealServer,
    RealServerKey,
    Timeouts,
    VirtualServer,
)
from rulegen.net import Address, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SERVICE: Final = 1
"""The attribute of a message that contains a virtual server."""
DESTINATION: Final = 2
"""The attribute of a message that contains a real server."""
_TCP, _TCP_FIN, _UDP = 4, 5, 6
_AF, _PROTOCOL, _ADDRESS, _PORT, _SCHEDULER, _FLAGS, _TIMEOUT, _NETMASK, _ENGINE = 1, 2, 3, 4, 6, 7, 8, 9, 11
_TO_ADDRESS, _TO_PORT, _FORWARDING, _WEIGHT, _UPPER, _LOWER, _ACTIVE, _INACTIVE, _TO_AF = 1, 2, 3, 4, 5, 6, 7, 8, 11
_NUMBERS: Final = {
    Protocol.TCP: socket.IPPROTO_TCP,
    Protocol.UDP: socket.IPPROTO_UDP,
    Protocol.SCTP: socket.IPPROTO_SCTP,
}
_PROTOCOLS: Final = {number: protocol for protocol, number in _NUMBERS.items()}
_FORWARDING_MASK: Final = 0x7


def encoder(family: int) -> Callable[[IpvsCommand, int], bytes]:
    """Return what encodes commands, with pyroute2's messages.

    Its objects for servers are not taken: their verb "update" is the kernel's DELETE, they forward by routing unless
    configured otherwise, know no netmask of IPv6, and cost more than all the rest.
    """
    from pyroute2.netlink.generic import ipvs  # noqa: PLC0415 - takes 0.25 s; only writing needs it

    verbs = {
        IpvsVerb.ADD_SERVICE: ipvs.IPVS_CMD_NEW_SERVICE,
        IpvsVerb.EDIT_SERVICE: ipvs.IPVS_CMD_SET_SERVICE,
        IpvsVerb.DELETE_SERVICE: ipvs.IPVS_CMD_DEL_SERVICE,
        IpvsVerb.ADD_DESTINATION: ipvs.IPVS_CMD_NEW_DEST,
        IpvsVerb.EDIT_DESTINATION: ipvs.IPVS_CMD_SET_DEST,
        IpvsVerb.DELETE_DESTINATION: ipvs.IPVS_CMD_DEL_DEST,
    }

    def encode(command: IpvsCommand, seq: int) -> bytes:
        message = ipvs.ipvsmsg()
        message["cmd"], message["version"] = verbs[command.verb], ipvs.GENL_VERSION
        message["attrs"] = _attributes(command)
        message["header"]["type"] = family
        message["header"]["flags"] = netlink.REQUEST | netlink.ACK
        message["header"]["sequence_number"] = seq
        message.encode()
        return bytes(message.data)

    return encode


def frontend_of(service: Mapping[int, bytes]) -> Frontend | None:
    """Return the frontend of a virtual server; None for a firewall mark, or a protocol that no Service has."""
    if _ADDRESS not in service:
        return None
    protocol = _PROTOCOLS.get(_number(service, _PROTOCOL))
    if protocol is None:
        return None
    return Frontend.of(protocol, _address(service[_ADDRESS], _number(service, _AF)), _port(service[_PORT]))


def naming(service: Mapping[int, bytes]) -> bytes:
    """Return the attribute that identifies a virtual server in a request for its real servers."""
    kinds = (_AF, _PROTOCOL, _ADDRESS, _PORT)
    return attribute(SERVICE | NESTED, b"".join(attribute(kind, service[kind]) for kind in kinds))


def virtual_server_of(service: Mapping[int, bytes]) -> VirtualServer:
    """Return a virtual server from its attributes."""
    flags, _ = struct.unpack("=II", service[_FLAGS])
    if _number(service, _AF) == socket.AF_INET:
        netmask = int.from_bytes(service[_NETMASK], "big").bit_count()
    else:
        netmask = _number(service, _NETMASK)
    return VirtualServer.of_flags(
        _text(service[_SCHEDULER]), flags, _number(service, _TIMEOUT), netmask, _text(service.get(_ENGINE, b""))
    )


def real_server_key_of(
    frontend: Frontend, service: Mapping[int, bytes], destination: Mapping[int, bytes]
) -> RealServerKey:
    """Return the key of a real server; older kernels report no family for it, so it has that of the virtual server."""
    family = _number(destination, _TO_AF) or _number(service, _AF)
    return RealServerKey(frontend, _address(destination[_TO_ADDRESS], family), _port(destination[_TO_PORT]))


def real_server_of(destination: Mapping[int, bytes]) -> RealServer:
    """Return a real server from its attributes."""
    return RealServer(
        weight=_number(destination, _WEIGHT),
        forwarding=Forwarding(_number(destination, _FORWARDING) & _FORWARDING_MASK),
        upper=_number(destination, _UPPER),
        lower=_number(destination, _LOWER),
        connections=_number(destination, _ACTIVE) + _number(destination, _INACTIVE),
        active=_number(destination, _ACTIVE),
    )


def timeouts_of(attributes: Mapping[int, bytes]) -> Timeouts:
    """Return the connection timeouts in seconds."""
    return Timeouts(_number(attributes, _TCP), _number(attributes, _TCP_FIN), _number(attributes, _UDP))


def setting(values: Timeouts) -> bytes:
    """Return the attributes that set the connection timeouts, in seconds."""
    return b"".join(
        attribute(kind, struct.pack("=I", seconds))
        for kind, seconds in ((_TCP, values.tcp), (_TCP_FIN, values.tcp_fin), (_UDP, values.udp))
    )


def _attributes(command: IpvsCommand) -> list[tuple[str, Any]]:
    """Return the object of a command as attributes, by the names of pyroute2."""
    key, value = command.key, command.value
    frontend = key.frontend
    service: list[tuple[str, Any]] = [
        ("IPVS_SVC_ATTR_AF", _af(frontend.address)),
        ("IPVS_SVC_ATTR_PROTOCOL", _NUMBERS[frontend.protocol]),
        ("IPVS_SVC_ATTR_ADDR", str(frontend.address)),
        ("IPVS_SVC_ATTR_PORT", frontend.port),
    ]
    if isinstance(value, VirtualServer):
        service += [
            ("IPVS_SVC_ATTR_SCHED_NAME", value.scheduler),
            ("IPVS_SVC_ATTR_FLAGS", {"flags": value.flags, "mask": 0xFFFFFFFF}),
            ("IPVS_SVC_ATTR_TIMEOUT", value.persistence_s or 0),
            ("IPVS_SVC_ATTR_NETMASK", _netmask(frontend.address, value.netmask)),
        ]
        if value.engine:
            service.append(("IPVS_SVC_ATTR_PE_NAME", value.engine))
    attributes: list[tuple[str, Any]] = [("IPVS_CMD_ATTR_SERVICE", {"attrs": service})]
    if isinstance(key, RealServerKey):
        destination: list[tuple[str, Any]] = [
            ("IPVS_DEST_ATTR_ADDR_FAMILY", _af(key.address)),
            ("IPVS_DEST_ATTR_ADDR", str(key.address)),
            ("IPVS_DEST_ATTR_PORT", key.port),
        ]
        if isinstance(value, RealServer):
            destination += [
                ("IPVS_DEST_ATTR_FWD_METHOD", value.forwarding.value),
                ("IPVS_DEST_ATTR_WEIGHT", value.weight),
                ("IPVS_DEST_ATTR_U_THRESH", value.upper),
                ("IPVS_DEST_ATTR_L_THRESH", value.lower),
            ]
        attributes.append(("IPVS_CMD_ATTR_DEST", {"attrs": destination}))
    return attributes


def _netmask(address: Address, length: int | None) -> str:
    """Return a netmask for pyroute2, which expects an IPv4 address although the kernel expects a length for IPv6."""
    if length is None:
        length = address.max_prefixlen
    if address.version == 4:
        return str(IPv4Network((0, length)).netmask)
    return str(IPv4Address(length.to_bytes(4, sys.byteorder)))


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)


def _port(content: bytes) -> int:
    return int.from_bytes(content, "big")


def _address(content: bytes, family: int) -> Address:
    return ip_address(content[: 4 if family == socket.AF_INET else 16])


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("utf-8", "replace")


def _af(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
