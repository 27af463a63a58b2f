"""The ipsets of ipvs mode: names, types, and the order in which they are filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.ipset.script import Order
from rulegen.languages.ipset.state import NAME_MAX, PORTS, SetKey, SetValue
from rulegen.net import Family

if TYPE_CHECKING:
    from rulegen.languages.ipset.state import Objects

LOOP_BACK = "KUBE-LOOP-BACK"
CLUSTER_IP = "KUBE-CLUSTER-IP"
EXTERNAL_IP = "KUBE-EXTERNAL-IP"
EXTERNAL_IP_LOCAL = "KUBE-EXTERNAL-IP-LOCAL"
LOAD_BALANCER = "KUBE-LOAD-BALANCER"
LOAD_BALANCER_LOCAL = "KUBE-LOAD-BALANCER-LOCAL"
LOAD_BALANCER_FW = "KUBE-LOAD-BALANCER-FW"
SOURCE_CIDR = "KUBE-LOAD-BALANCER-SOURCE-CIDR"
SOURCE_IP = "KUBE-LOAD-BALANCER-SOURCE-IP"
NODE_PORT_TCP = "KUBE-NODE-PORT-TCP"
NODE_PORT_UDP = "KUBE-NODE-PORT-UDP"
NODE_PORT_SCTP = "KUBE-NODE-PORT-SCTP-HASH"
NODE_PORT_LOCAL_TCP = "KUBE-NODE-PORT-LOCAL-TCP"
NODE_PORT_LOCAL_UDP = "KUBE-NODE-PORT-LOCAL-UDP"
NODE_PORT_LOCAL_SCTP = "KUBE-NODE-PORT-LOCAL-SCTP-HASH"
HEALTH_CHECK_NODE_PORT = "KUBE-HEALTH-CHECK-NODE-PORT"
IPVS_IPS = "KUBE-IPVS-IPS"

_TYPES = {
    LOOP_BACK: "hash:ip,port,ip",
    LOAD_BALANCER_LOCAL: "hash:ip,port",
    NODE_PORT_LOCAL_TCP: "bitmap:port",
    NODE_PORT_LOCAL_UDP: "bitmap:port",
    NODE_PORT_LOCAL_SCTP: "hash:ip,port",
    CLUSTER_IP: "hash:ip,port",
    EXTERNAL_IP: "hash:ip,port",
    EXTERNAL_IP_LOCAL: "hash:ip,port",
    LOAD_BALANCER: "hash:ip,port",
    NODE_PORT_TCP: "bitmap:port",
    NODE_PORT_UDP: "bitmap:port",
    NODE_PORT_SCTP: "hash:ip,port",
    HEALTH_CHECK_NODE_PORT: "bitmap:port",
    SOURCE_CIDR: "hash:ip,port,net",
    SOURCE_IP: "hash:ip,port,ip",
    LOAD_BALANCER_FW: "hash:ip,port",
    IPVS_IPS: "hash:ip",
}
"""Order in which sets are filled: allowed sources before the firewalled frontends, ports before addresses."""

_LATE = (LOAD_BALANCER_LOCAL, NODE_PORT_LOCAL_TCP, NODE_PORT_LOCAL_UDP, NODE_PORT_LOCAL_SCTP)
"""Sets that exempt traffic from masquerading. A packet that is masqueraded needlessly arrives; the opposite may not.

EXTERNAL_IP_LOCAL is not one of them: addresses in EXTERNAL_IP are masqueraded, those in neither set are rejected.
"""

FRONTENDS = (CLUSTER_IP, EXTERNAL_IP, EXTERNAL_IP_LOCAL, LOAD_BALANCER, NODE_PORT_SCTP)
"""Sets whose entries are addresses and ports of virtual servers."""

KINDS = tuple(_TYPES)
"""All sets, by the names of IPv4."""


def name_of(kind: str, family: Family) -> str:
    """Return the name of a set in a family: names for IPv6 have another prefix and are cut to the maximum length.

    >>> name_of(SOURCE_CIDR, Family.IPV6)
    'KUBE-6-LOAD-BALANCER-SOURCE-CID'
    """
    return kind if family is Family.IPV4 else f"KUBE-6-{kind.removeprefix('KUBE-')}"[:NAME_MAX]


def names(family: Family) -> tuple[str, ...]:
    """Return the names of all sets of a family."""
    return tuple(name_of(kind, family) for kind in KINDS)


def all_sets(family: Family) -> Objects:
    """Return all sets of a family, empty."""
    netfilter = "inet" if family is Family.IPV4 else "inet6"
    return {
        SetKey(name_of(kind, family)): SetValue(type_, range=PORTS)
        if type_ == "bitmap:port"
        else SetValue(type_, netfilter)
        for kind, type_ in _TYPES.items()
    }


def order(family: Family) -> Order:
    """Return the order in which the sets of a family are filled."""
    return Order(names(family), frozenset(name_of(kind, family) for kind in _LATE))
