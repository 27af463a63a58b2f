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
        help="Table of nftables mode. kube-proxy: the table that kube-proxy 1.36 writes. flat: rulegen's own table,"
        " where most Services are only map elements. auto: kube-proxy if the node has only kube-proxy's table, else"
        " flat.",
    ),
    click.option(
        "--nftables-extra",
        "nftables_extras",
        multiple=True,
        type=click.Choice([extra.value for extra in NftExtra]),
        help="With layout flat: add rules that kube-proxy has in iptables mode but not in nftables mode. Repeatable."
        " drop-invalid: drop forwarded packets in conntrack state INVALID, unless conntrack.tcpBeLiberal is set."
        " health-ports: accept connections to health check node ports; rules of other tables can still drop them.",
    ),
)
