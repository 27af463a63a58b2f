"""Options of nftables mode."""

from __future__ import annotations

from typing import Final

import click

from rulegen.model.services.ir import NftExtra
from rulegen.ownership.nftables import LAYOUTS

AUTO: Final = "auto"
"""The layout that suits the tables of the node."""

NFTABLES_OPTIONS: Final = (
    click.option(
        "--nftables-layout",
        type=click.Choice([AUTO, *LAYOUTS]),
        default=AUTO,
        show_default=True,
        help="Tables of nftables mode. kube-proxy: the table that kube-proxy 1.36 writes. flat: a table of rulegen"
        " itself, in which most Services are only elements of maps. auto: kube-proxy if only its table is there, else"
        " flat.",
    ),
    click.option(
        "--nftables-extra",
        "nftables_extras",
        multiple=True,
        type=click.Choice([extra.value for extra in NftExtra]),
        help="Rules of iptables mode that kube-proxy's nftables mode lacks, in layout flat; repeatable. drop-invalid:"
        " drop forwarded packets in conntrack state INVALID, unless conntrack.tcpBeLiberal is set. health-ports: accept"
        " connections to health check node ports; rules of other tables can still drop them.",
    ),
)
