"""Words of the network: family, protocol, address, prefix.

Addresses are `ipaddress` values, never text. They are read *sloppily*, as kube-proxy reads them: leading zeros of an
IPv4 octet are decimal (`010.0.0.1` is 10.0.0.1), and an IPv4-mapped IPv6 address is the IPv4 address in it.
"""

from __future__ import annotations

import enum
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LEADING_ZEROS = re.compile(r"(?<![0-9a-fA-F:])0+(?=[0-9])")
_IPV4_SHAPE = re.compile(r"[0-9]{1,}(\.[0-9]{1,}){3}\Z")


class Family(enum.StrEnum):
    """An IP family, named as Kubernetes names it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def bits(self) -> int:
        """Length of an address: 32 or 128."""
        return 32 if self is Family.IPV4 else 128

    @property
    def loopback(self) -> Network:
        """The loopback prefix: 127.0.0.0/8 or ::1/128."""
        return IPv4Network("127.0.0.0/8") if self is Family.IPV4 else IPv6Network("::1/128")


class Protocol(enum.StrEnum):
    """A transport protocol that a Service may name."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


def parse_address(text: str) -> Address:
    """Return the address that `text` spells.

    Raises:
        ValueError: `text` is no address; the message names it.

    >>> parse_address("010.0.0.01"), parse_address("::ffff:10.0.0.1"), parse_address("FD00::0:1")
    (IPv4Address('10.0.0.1'), IPv4Address('10.0.0.1'), IPv6Address('fd00::1'))
    """
    try:
        if ":" not in text:
            return IPv4Address(_decimal(text))
        head, _, last = text.rpartition(":")
        address = IPv6Address(f"{head}:{_decimal(last)}" if "." in last else text)
        if address.scope_id is not None:
            raise ValueError  # noqa: TRY301 - one message for all that is no address
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None
    return address.ipv4_mapped or address


def parse_network(text: str) -> Network:
    """Return the prefix that `text` spells, host bits cleared.

    Raises:
        ValueError: `text` is no CIDR; the message names it.

    >>> parse_network("010.1.2.3/8")
    IPv4Network('10.0.0.0/8')
    """
    body, slash, length = text.partition("/")
    try:
        if not slash or not (length.isascii() and length.isdigit()):
            raise ValueError  # noqa: TRY301 - one message for all that is no CIDR
        address = parse_address(body)
        bits = int(length)
        if isinstance(address, IPv6Address):
            return IPv6Network((address, bits), strict=False)
        if ":" in body:  # an IPv4-mapped prefix counts its bits from the IPv6 end
            bits -= 96
        return IPv4Network((address, bits), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a CIDR such as 10.0.0.0/8 or fd00::/64") from None


def family_of(value: Address | Network) -> Family:
    """Return the family of an address or prefix."""
    return Family.IPV4 if value.version == 4 else Family.IPV6


def is_unicast(address: Address) -> bool:
    """Tell whether an address can be one host's, and be reached from others.

    Neither are the unspecified one and its like in 0.0.0.0/8 (RFC 1122, 3.2.1.3), multicast groups and the broadcast to
    all; nor, of IPv6, the loopback address and those of one link. Kernels refuse to bind them, or to send to them.

    >>> is_unicast(IPv4Address("10.0.0.1")), is_unicast(IPv4Address("239.1.1.1")), is_unicast(IPv6Address("fe80::1"))
    (True, False, False)
    """
    if address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, IPv6Address):
        return not (address.is_loopback or address.is_link_local)
    return int(address) >> 24 != 0 and int(address) != 0xFFFFFFFF


def join_host_port(address: Address, port: int) -> str:
    """Return `address:port`, an IPv6 address in brackets (RFC 3986, 3.2.2).

    >>> join_host_port(IPv6Address("fd00::1"), 80)
    '[fd00::1]:80'
    """
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _decimal(text: str) -> str:
    """Drop the leading zeros of IPv4 octets, which `ipaddress` refuses."""
    if (text.startswith("0") or ".0" in text) and _IPV4_SHAPE.match(text):
        return _LEADING_ZEROS.sub("", text)
    return text
