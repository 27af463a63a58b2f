"""What the process that nginx requests names must know, as a value that is written down and read back."""

from __future__ import annotations

import msgspec

from rulegen.model.forbidden import Forbidden
from rulegen.net import parse_address, parse_network


class Naming(msgspec.Struct, frozen=True):
    """What the process is told; addresses and prefixes as text.

    Attributes:
        port: Where it listens.
        servers: The node's name servers.
        own: The node's addresses.
        gateways: Its gateways.
        allowed: Prefixes that may be named all the same.
    """

    port: int
    servers: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    @classmethod
    def of(cls, port: int, servers: tuple[str, ...], forbidden: Forbidden) -> Naming:
        """Return what follows from what nginx connects to for no Ingress."""
        own, gateways = (tuple(sorted(map(str, addresses))) for addresses in (forbidden.own, forbidden.gateways))
        return cls(port, servers, own, gateways, tuple(map(str, forbidden.allowed)))

    @property
    def forbidden(self) -> Forbidden:
        """What no name may resolve to."""
        return Forbidden(
            own=frozenset(map(parse_address, self.own)),
            gateways=frozenset(map(parse_address, self.gateways)),
            allowed=tuple(map(parse_network, self.allowed)),
        )

    @property
    def line(self) -> bytes:
        """It as a line of JSON."""
        return msgspec.json.encode(self) + b"\n"
