"""The name servers of this host, from resolv.conf(5)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.safe_files import read_regular

if TYPE_CHECKING:
    from rulegen.net import Address

_LARGEST: Final = 1 << 20


def resolvers(path: Path = Path("/etc/resolv.conf")) -> tuple[Address, ...]:
    """Return the name servers that resolv.conf(5) lists, in order, each once; none if there is no such file."""
    try:
        lines = read_regular(path, _LARGEST, follow=True).decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    addresses: dict[Address, None] = {}
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ip_address(words[1])
        except ValueError:
            continue
        if not getattr(address, "scope_id", None):  # no engine accepts an address with a zone
            addresses.setdefault(address)
    return tuple(addresses)
