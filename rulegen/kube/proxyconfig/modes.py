"""Which sections of a configuration each mode reads: one row each. A backend's row names its own."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeSections:
    """What a mode reads of a configuration.

    Attributes:
        periods: The section that has its sync periods.
        marks: The section that has its packet mark.
        min_sync_s: The least time between two writes where the configuration says nothing, in seconds.
        has_virtual_servers: Whether it reads what `ipvs` says of virtual servers.
        caution: What a user should know of the mode; empty for nothing.
    """

    periods: str = "iptables"
    marks: str = "iptables"
    min_sync_s: float = 1.0
    has_virtual_servers: bool = False
    caution: str = ""


DEFAULT_MODE: Final = "iptables"
"""The mode where the configuration names none, as in kube-proxy."""

MODES: Final[Mapping[str, ModeSections]] = MappingProxyType(
    {
        "iptables": ModeSections(),
        "ipvs": ModeSections(
            periods="ipvs",
            min_sync_s=0.0,
            has_virtual_servers=True,
            caution="kube-proxy's ipvs mode is deprecated and will be removed from kube-proxy; rulegen keeps its own",
        ),
    }
)
"""By `mode` of the configuration, of the modes that rulegen has; kube-proxy's nftables mode is none of them."""


def sections_of(mode: str, modes: Mapping[str, ModeSections]) -> ModeSections:
    """Return what a mode reads; of an unknown mode, which is a fault of its own, what the default mode reads."""
    return modes.get(mode or DEFAULT_MODE, ModeSections())
