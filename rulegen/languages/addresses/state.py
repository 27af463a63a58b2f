"""Devices and their addresses as objects with keys, and their text for `ip -br addr` and `ip -batch`.

Source: ip-address(8). Addresses of scope link are left out, because the kernel adds them itself. `ip -br addr` does not
print scopes, so in its output these are the link-local addresses of IPv6; the kernel adds none of IPv4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.errors import InputError
from rulegen.net import Address, Family, family_of, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class AddressKey(NamedTuple):
    """The key of an address on a device; one address may have several prefix lengths.

    Keys of both families have an order: the family comes first.
    """

    device: str
    family: Family
    address: Address
    length: int

    @classmethod
    def whole(cls, device: str, address: Address) -> AddressKey:
        """Return the key of an address with a prefix of all its bits."""
        return cls(device, family_of(address), address, address.max_prefixlen)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


class DeviceKey(NamedTuple):
    """The key of a device; the value is its kind, `dummy`."""

    name: str


class Bound(msgspec.Struct, frozen=True):
    """The value of a bound address."""


BOUND = Bound()
Objects = dict[AddressKey, Bound]


class Links(msgspec.Struct, frozen=True):
    """Dummy devices of this node.

    Attributes:
        devices: Name to kind, such as `{"kube-ipvs0": "dummy"}`.
        addresses: The addresses bound to them.
    """

    devices: Mapping[str, str] = msgspec.field(default_factory=dict)
    addresses: Mapping[AddressKey, Bound] = msgspec.field(default_factory=dict)


def read(text: str, source: str) -> Links:
    """Return the devices and addresses that `ip -br addr` printed: name, state, addresses, on one line each.

    Raises:
        InputError: A line is none of that format; the message has its number.
    """
    devices: dict[str, str] = {}
    addresses: Objects = {}
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        name = words[0].partition("@")[0]
        if len(words) < 2:
            raise InputError(source, f"line {number}: not a line of ip -br addr: {line[:80]!r}")
        devices[name] = "dummy"
        for word in words[2:]:
            try:
                key = _key(name, word)
            except ValueError:
                raise InputError(source, f"line {number}: {word[:80]!r} is not an address with its prefix") from None
            if not (key.address.version == 6 and key.address.is_link_local):
                addresses[key] = BOUND
    return Links(devices, addresses)


def format_links(devices: Iterable[str], addresses: Iterable[AddressKey]) -> str:
    """Return the output of `ip -br addr show` for the devices; all are down, as ours always are."""
    keys = sorted(addresses)
    lines = (
        f"{device:<16} {'DOWN':<14} {' '.join(str(key) for key in keys if key.device == device)}".rstrip()
        for device in devices
    )
    return "".join(f"{line}\n" for line in lines)


def _key(device: str, word: str) -> AddressKey:
    body, _, length = word.partition("/")
    address = parse_address(body)
    bits = int(length)
    if not 0 <= bits <= address.max_prefixlen:
        raise ValueError(word)
    return AddressKey(device, family_of(address), address, bits)
