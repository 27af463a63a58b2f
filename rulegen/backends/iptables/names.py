"""The hashes at the end of the chain names that kube-proxy gives to one Service."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rulegen.model.services.ir import ResolvedPort


_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS: Final = tuple(first + second for first in _BASE32 for second in _BASE32)
"""The two base32 characters (RFC 4648) of each ten-bit number."""


def service_hash(port: ResolvedPort) -> str:
    """Return the hash in the names of a port's chains: the first 16 base32 characters of a SHA-256."""
    return _hash(port.label + port.protocol.lower())


def endpoint_hashes(port: ResolvedPort) -> dict[str, str]:
    """Return the hash in the name of each endpoint's chain, by the text of the endpoint."""
    start = port.label + port.protocol.lower()
    return {endpoint.text: _hash(start + endpoint.text) for endpoint in port.endpoints}


def _hash(text: str) -> str:
    """Return the first 80 bits of a digest in base32. It takes half the time of base64.b32encode."""
    bits, p = int.from_bytes(sha256(text.encode()).digest()[:10]), _PAIRS
    return (
        f"{p[bits >> 70]}{p[bits >> 60 & 1023]}{p[bits >> 50 & 1023]}{p[bits >> 40 & 1023]}"
        f"{p[bits >> 30 & 1023]}{p[bits >> 20 & 1023]}{p[bits >> 10 & 1023]}{p[bits & 1023]}"
    )
