"""What the model must know of each mode: one row each. A backend's row names its own."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeNeeds:
    """What decisions about Services depend on, of a mode.

    Attributes:
        has_virtual_servers: Whether connections are spread by virtual servers of IPVS: they stand on addresses that are
            bound to this node, have schedulers and timeouts, and kernel parameters of their own.
        opens_loopback: Whether node ports on 127.0.0.1 work, for which the loopback prefix is opened.
    """

    has_virtual_servers: bool = False
    opens_loopback: bool = False


NEEDS: Final[Mapping[str, ModeNeeds]] = MappingProxyType(
    {
        "iptables": ModeNeeds(opens_loopback=True),
        "ipvs": ModeNeeds(has_virtual_servers=True),
    }
)
"""By `mode` of the configuration."""
