"""Options of nftables mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rulegen.errors import ConfigError
from rulegen.model.services.ir import NftExtra
from rulegen.ownership.nftables import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTO: Final = "auto"
"""The layout that suits the tables of the node."""
_FLAT: Final = "flat"
"""The layout that can have more than kube-proxy writes."""

NFTABLES_OPTIONS: Final = (
    click.option(
        "--nftables-layout",
        type=click.Choice([AUTO, *LAYOUTS]),
        default=AUTO,
        show_default=True,
        help="Table of nftables mode. kube-proxy: the table that kube-proxy 1.36 writes. flat: rulegen's own table,"
        " where most Services are only map elements. auto: kube-proxy if the node has only kube-proxy's table, else"
        " flat.",
    ),
    click.option(
        "--nftables-extra",
        "nftables_extras",
        multiple=True,
        type=click.Choice([extra.value for extra in NftExtra]),
        help="Use layout flat, and add what kube-proxy has in iptables mode but not in nftables mode. Repeatable."
        " drop-invalid: drop forwarded packets in conntrack state INVALID, unless conntrack.tcpBeLiberal is set."
        " health-ports: accept connections to health check node ports; rules of other tables can still drop them."
        " localhost-node-ports: node ports also answer on 127.0.0.1, not on ::1. This sets route_localnet to 1; a rule"
        " drops packets from the network to 127.0.0.0/8.",
    ),
)


def layout_required(layout: str, extras: Sequence[str]) -> str:
    """Return the layout that these options require; empty if the tables of the node decide.

    Raises:
        ConfigError: The options contradict each other.
    """
    if not extras:
        return "" if layout == AUTO else layout
    if layout not in {AUTO, _FLAT}:
        raise ConfigError(
            f"--nftables-extra {extras[0]} needs --nftables-layout {_FLAT}: layout {layout} has only what kube-proxy"
            " writes",
            hint="omit one of the two options",
        )
    return _FLAT
