"""Network basics: family, protocol, address, prefix.

Addresses are `ipaddress` values, never text. They are parsed as kube-proxy parses them: an octet of an IPv4 address
with leading zeros is decimal (`010.0.0.1` is 10.0.0.1), and an IPv4-mapped IPv6 address is its IPv4 address.
"""

from __future__ import annotations

import enum
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6, inet_ntoa, inet_ntop, inet_pton
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_OF_IPV4 = (IPv4Address, IPv4Network)
_LEADING_ZEROS = re.compile(r"(?<![0-9a-fA-F:])0+(?=[0-9])")
_IPV4_SHAPE = re.compile(r"[0-9]{1,}(\.[0-9]{1,}){3}\Z")


class Family(enum.StrEnum):
    """An IP family, with the name that Kubernetes uses."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    __hash__ = str.__hash__  # faster than Enum's, which is Python code: families are looked up per endpoint

    @property
    def bits(self) -> int:
        """Length of an address in bits: 32 or 128."""
        return 32 if self is Family.IPV4 else 128

    @property
    def loopback(self) -> Network:
        """The loopback prefix: 127.0.0.0/8 or ::1/128."""
        return IPv4Network("127.0.0.0/8") if self is Family.IPV4 else IPv6Network("::1/128")


class Protocol(enum.StrEnum):
    """A transport protocol that a Service may have."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"

    __hash__ = str.__hash__  # see Family


def parse_address(text: str) -> Address:
    """Return the address that a text contains.

    Raises:
        ValueError: `text` is not an address; the message contains it.

    >>> parse_address("010.0.0.01"), parse_address("::ffff:10.0.0.1"), parse_address("FD00::0:1")
    (IPv4Address('10.0.0.1'), IPv4Address('10.0.0.1'), IPv6Address('fd00::1'))
    """
    try:
        return IPv4Address(inet_pton(AF_INET, text))  # fast path for most addresses: takes a third of the time
    except (OSError, ValueError):
        pass
    try:
        if ":" not in text:
            return IPv4Address(_decimal(text))
        head, _, last = text.rpartition(":")
        address = IPv6Address(f"{head}:{_decimal(last)}" if "." in last else text)
        if address.scope_id is not None:
            raise ValueError  # noqa: TRY301 - one message for all invalid texts
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None
    return address.ipv4_mapped or address


_IS_ORDINARY: Final = tuple(first not in {0, 127, 169} and first < 224 for first in range(256))
"""By the first octet: whether all such IPv4 addresses are unicast addresses of no special range."""


def is_ordinary_ipv4(text: str) -> bool:
    """Whether a text is an IPv4 address, in the spelling of `address_text`, that no use refuses.

    For nearly all endpoints, this takes the place of `parse_address` and `refusal` in a fifth of their time. False also
    for some other addresses.
    """
    try:
        return _IS_ORDINARY[inet_pton(AF_INET, text)[0]]
    except (OSError, ValueError):
        return False


def parse_network(text: str) -> Network:
    """Return the prefix that a text contains, with host bits cleared.

    Raises:
        ValueError: `text` is not a CIDR; the message contains it.

    >>> parse_network("010.1.2.3/8")
    IPv4Network('10.0.0.0/8')
    """
    body, slash, length = text.partition("/")
    try:
        if not slash or not (length.isascii() and length.isdigit()):
            raise ValueError  # noqa: TRY301 - one message for all invalid texts
        address = parse_address(body)
        bits = int(length)
        if isinstance(address, IPv6Address):
            return IPv6Network((address, bits), strict=False)
        if ":" in body:  # the length of an IPv4-mapped prefix counts the 96 bits of ::ffff:0:0/96
            bits -= 96
        return IPv4Network((address, bits), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a CIDR such as 10.0.0.0/8 or fd00::/64") from None


def family_of(value: Address | Network) -> Family:
    """Return the family of an address or prefix."""
    return Family.IPV4 if isinstance(value, _OF_IPV4) else Family.IPV6


class AddressKind(enum.StrEnum):
    """Kind of an address, by the range that contains it. The value is the text for messages."""

    UNICAST = "a unicast address"
    UNSPECIFIED = "the unspecified address"
    THIS_NETWORK = "an address of 0.0.0.0/8"
    LOOPBACK = "a loopback address"
    LINK_LOCAL = "a link-local address"
    LINK_LOCAL_MULTICAST = "a link-local multicast address"
    MULTICAST = "a multicast address"
    BROADCAST = "the broadcast address"

    __hash__ = str.__hash__  # see Family


class AddressUse(enum.Enum):
    """Use of an address in an object."""

    ENDPOINT = "endpoint"
    """Connections are forwarded to it: EndpointSlice, core Endpoints, Pod."""
    EXTERNAL_IP = "external IP"
    """spec.externalIPs of a Service."""
    LOAD_BALANCER_IP = "load balancer IP"
    """status.loadBalancer.ingress of a Service."""
    CLUSTER_IP = "ClusterIP"
    """spec.clusterIPs of a Service; the API server assigns it from a ServiceCIDR, which may be link-local."""
    UPSTREAM = "upstream of an Ingress"
    """nginx connects to it: endpoint, auth-url or ExternalName, or an address to which the name of one resolves."""

    __hash__ = object.__hash__  # see Family; each member is one object


_NOT_BINDABLE: Final = frozenset(
    {
        AddressKind.UNSPECIFIED,
        AddressKind.THIS_NETWORK,
        AddressKind.LINK_LOCAL_MULTICAST,
        AddressKind.MULTICAST,
        AddressKind.BROADCAST,
    }
)
"""No host can have such an address: the kernel does not bind it, and IPVS rejects it as a real server."""
_NEVER_SHARED: Final = frozenset({AddressKind.LOOPBACK, AddressKind.LINK_LOCAL})
"""Such an address means the host itself, or a different host on each link."""
_REFUSED: Final = {
    AddressUse.ENDPOINT: _NOT_BINDABLE | _NEVER_SHARED,
    AddressUse.EXTERNAL_IP: _NOT_BINDABLE | _NEVER_SHARED,
    AddressUse.LOAD_BALANCER_IP: _NOT_BINDABLE | _NEVER_SHARED,
    AddressUse.CLUSTER_IP: _NOT_BINDABLE | {AddressKind.LOOPBACK},
    AddressUse.UPSTREAM: _NOT_BINDABLE | _NEVER_SHARED,
}


def kind_of_address(address: Address) -> AddressKind:
    """Return the kind of an address; an IPv4-mapped IPv6 address counts as its IPv4 address.

    Sources: RFC 6890 (special ranges), RFC 1122, 3.2.1.3 (0.0.0.0/8), RFC 4291, 2.7 (scopes of multicast).

    >>> kind_of_address(IPv4Address("169.254.169.254")).value, kind_of_address(IPv6Address("::ffff:127.0.0.1")).value
    ('a link-local address', 'a loopback address')
    """
    number = int(address)
    if isinstance(address, IPv6Address):
        if number >> 32 != 0xFFFF:
            return _kind_of_ipv6(number)
        number &= 0xFFFFFFFF
    return _kind_of_ipv4(number)


def _kind_of_ipv4(number: int) -> AddressKind:
    match number >> 24:
        case 0:
            return AddressKind.THIS_NETWORK if number else AddressKind.UNSPECIFIED
        case 127:
            return AddressKind.LOOPBACK
        case 169 if number >> 16 == 0xA9FE:
            return AddressKind.LINK_LOCAL
        case first if first >> 4 == 0xE:
            return AddressKind.LINK_LOCAL_MULTICAST if number >> 8 == 0xE00000 else AddressKind.MULTICAST
        case _:
            return AddressKind.BROADCAST if number == 0xFFFFFFFF else AddressKind.UNICAST


def _kind_of_ipv6(number: int) -> AddressKind:
    if number <= 1:
        return AddressKind.LOOPBACK if number else AddressKind.UNSPECIFIED
    if number >> 118 == 0xFE80 >> 6:
        return AddressKind.LINK_LOCAL
    if number >> 120 == 0xFF:
        scope = number >> 112 & 0xF
        return AddressKind.LINK_LOCAL_MULTICAST if scope == 2 else AddressKind.MULTICAST
    return AddressKind.UNICAST


def refusal(address: Address, use: AddressUse) -> str:
    """Return why an address may not be used, such as `127.0.0.1 is a loopback address`; empty if it may.

    The same ranges are rejected in both families. For endpoints and external IPs, these are the ranges that the API
    server rejects (ValidateNonSpecialIP) and those that no host can have: other multicast, broadcast, 0.0.0.0/8. The
    API server does not check addresses of load balancers. The same ranges are rejected there, because a rule for one of
    them would redirect traffic to the node itself or to its link.

    >>> refusal(IPv4Address("10.0.0.1"), AddressUse.ENDPOINT), refusal(IPv6Address("fe80::1"), AddressUse.EXTERNAL_IP)
    ('', 'fe80::1 is a link-local address')
    """
    kind = kind_of_address(address)
    return f"{address} is {kind}" if kind in _REFUSED[use] else ""


def join_host_port(address: Address, port: int) -> str:
    """Return `address:port`, with an IPv6 address in brackets (RFC 3986, section 3.2.2).

    >>> join_host_port(IPv6Address("fd00::1"), 80)
    '[fd00::1]:80'
    """
    text = address_text(address)
    return f"{text}:{port}" if isinstance(address, IPv4Address) else f"[{text}]:{port}"


def address_text(address: Address) -> str:
    """Return the text of an address, as `str` does; for IPv4 in half the time, for IPv6 in a tenth."""
    if isinstance(address, IPv4Address):
        return inet_ntoa(address.packed)
    text = inet_ntop(AF_INET6, address.packed)
    # The C library writes ::192.0.2.1 and ::ffff:192.0.2.1 in IPv4 form, and knows no zone.
    return str(address) if "." in text or address.scope_id is not None else text


def _decimal(text: str) -> str:
    """Remove leading zeros of IPv4 octets, which `ipaddress` rejects."""
    if (text.startswith("0") or ".0" in text) and _IPV4_SHAPE.match(text):
        return _LEADING_ZEROS.sub("", text)
    return text
