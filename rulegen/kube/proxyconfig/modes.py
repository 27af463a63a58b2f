"""The sections of a configuration that each mode reads. Each row of `backends/table.py` refers to one."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModeSections(msgspec.Struct, frozen=True, kw_only=True):
    """The sections of a configuration that a mode reads.

    Attributes:
        periods: The section with the mode's sync periods.
        marks: The section with the mode's packet mark.
        min_sync_s: Default of the minimum time between two writes, in seconds.
        has_virtual_servers: Whether the mode reads the options of virtual servers in the section `ipvs`.
        has_primary_node_ports: Whether `nodePortAddresses` is `primary` if the configuration does not say.
        caution: A warning about the mode; empty for none.
    """

    periods: str = "iptables"
    marks: str = "iptables"
    min_sync_s: float = 1.0
    has_virtual_servers: bool = False
    has_primary_node_ports: bool = False
    caution: str = ""


DEFAULT_MODE: Final = "iptables"
"""The mode of a configuration without `mode`, as in kube-proxy."""

MODES: Final[Mapping[str, ModeSections]] = MappingProxyType(
    {
        "iptables": ModeSections(),
        "ipvs": ModeSections(
            periods="ipvs",
            min_sync_s=0.0,
            has_virtual_servers=True,
            caution="kube-proxy's ipvs mode is deprecated and will be removed from kube-proxy; rulegen keeps its own",
        ),
        "nftables": ModeSections(periods="nftables", marks="nftables", has_primary_node_ports=True),
        "userspace": ModeSections(
            caution="the userspace mode is experimental",
        ),
    }
)
"""Keyed by `mode` of the configuration."""


def sections_of(mode: str, modes: Mapping[str, ModeSections]) -> ModeSections:
    """Return the sections of a mode; for an unknown mode, which is a separate fault, those of the default mode."""
    return modes.get(mode or DEFAULT_MODE, ModeSections())
