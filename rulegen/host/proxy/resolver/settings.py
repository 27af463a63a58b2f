"""The settings of the resolver process, and their JSON form."""

from __future__ import annotations

import msgspec

from rulegen.model.forbidden import Forbidden
from rulegen.net import parse_address, parse_network


class Naming(msgspec.Struct, frozen=True):
    """The settings, with addresses and prefixes as text.

    Attributes:
        port: The port that it listens on.
        servers: The node's name servers.
        own: The node's addresses.
        gateways: The node's gateways.
        allowed: Prefixes that are permitted although they are forbidden by default.
    """

    port: int
    servers: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    @classmethod
    def of(cls, port: int, servers: tuple[str, ...], forbidden: Forbidden) -> Naming:
        """Return the settings that follow from the addresses that are forbidden for Ingresses."""
        own, gateways = (tuple(sorted(map(str, addresses))) for addresses in (forbidden.own, forbidden.gateways))
        return cls(port, servers, own, gateways, tuple(map(str, forbidden.allowed)))

    @property
    def forbidden(self) -> Forbidden:
        """The addresses that no name may have."""
        return Forbidden(
            own=frozenset(map(parse_address, self.own)),
            gateways=frozenset(map(parse_address, self.gateways)),
            allowed=tuple(map(parse_network, self.allowed)),
        )

    @property
    def line(self) -> bytes:
        """The settings as a line of JSON."""
        return msgspec.json.encode(self) + b"\n"
