"""What the names of kube-proxy's chains of one Service end with."""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulegen.model.services.ir import Endpoint, ResolvedPort


def service_hash(port: ResolvedPort) -> str:
    """Return what the names of a port's chains end with: 16 characters of base32 of a SHA-256."""
    return _hash(port.label + port.protocol.lower())


def endpoint_hash(port: ResolvedPort, endpoint: Endpoint) -> str:
    """Return what the name of an endpoint's chain ends with."""
    return _hash(port.label + port.protocol.lower() + endpoint.text)


def _hash(text: str) -> str:
    return b32encode(sha256(text.encode()).digest()[:10]).decode()
