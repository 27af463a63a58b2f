"""Who is in the lab, and who is joined to whom.

      client ──┐  192.168.50.0/24  fd00:50::/64                       ┌── pod-a 10.244.1.11
               ├── lan (a switch) ── eth0 node1 ── a link to each ────┼── pod-b 10.244.1.12
      node2  ──┘                     eth1  │                          └── pod-c 10.244.1.13
        └── pod-x 10.244.2.11              └── 10.77.0.0/16, a second network, joined to the client alone

Pods have one address each (/32, /128) and a link to their node that is routed, not bridged: all packets between pods
pass the node's rules, there is no need for bridge filters, and a pod reaches itself through a Service by plain routing.
The client's way to all that it does not know (Service addresses, load balancer addresses) is node1; node1's is node2,
and node2 calls it unreachable. So whoever sends a packet can tell one that rules drop from one that they miss.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.lab.hosts import Address, Family

LAN = "lan"
NODE = "node1"
OTHER_NODE = "node2"
CLIENT = "client"
PODS = {"pod-a": NODE, "pod-b": NODE, "pod-c": NODE, "pod-x": OTHER_NODE}
"""Each pod and the node that it is on."""

HOSTS = (LAN, NODE, OTHER_NODE, CLIENT, *PODS)

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
POD_CIDRS = {
    NODE: ("10.244.1.0/24", "fd00:10:244:1::/64"),
    OTHER_NODE: ("10.244.2.0/24", "fd00:10:244:2::/64"),
}

PORTS = (8080, 8081)
"""What all pods and nodes listen on, in every protocol and family."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An interface on a network of the switch, and its addresses with their prefix lengths, the main ones first."""

    host: str
    interface: str
    network: str
    addresses: tuple[tuple[str, int], ...]


ATTACHMENTS = (
    Attachment(NODE, "eth0", "br0", (("192.168.50.10", 24), ("fd00:50::10", 64))),
    Attachment(NODE, "eth1", "br1", (("10.77.0.10", 16), ("fd00:77::10", 64))),
    Attachment(OTHER_NODE, "eth0", "br0", (("192.168.50.11", 24), ("fd00:50::11", 64))),
    Attachment(
        CLIENT,
        "eth0",
        "br0",
        (
            ("192.168.50.100", 24),
            ("fd00:50::100", 64),
            *((f"192.168.50.{last}", 24) for last in range(200, 224)),
            *((f"fd00:50::{last}", 64) for last in range(200, 224)),
        ),
    ),
    Attachment(CLIENT, "eth1", "br1", (("10.77.0.100", 16), ("fd00:77::100", 64))),
)

POD_ADDRESSES = {
    "pod-a": ("10.244.1.11", "fd00:10:244:1::b"),
    "pod-b": ("10.244.1.12", "fd00:10:244:1::c"),
    "pod-c": ("10.244.1.13", "fd00:10:244:1::d"),
    "pod-x": ("10.244.2.11", "fd00:10:244:2::b"),
}

POD_GATEWAYS = ("169.254.1.1", "fe80::1")


def addresses(host: str) -> tuple[Address, ...]:
    """Return all addresses of a host but loopback, the main ones first."""
    attached = (text for place in ATTACHMENTS if place.host == host for text, _ in place.addresses)
    return tuple(ip_address(text) for text in (*POD_ADDRESSES.get(host, ()), *attached))


def address(host: str, family: Family) -> Address:
    """Return the main address of a host in a family."""
    return next(entry for entry in addresses(host) if entry.version == family)


_EVERYWHERE = {
    **{f"net/ipv6/conf/{each}/disable_ipv6": "0" for each in ("all", "default", "lo")},
    # Addresses are usable at once, and none come from elsewhere.
    **{f"net/ipv6/conf/{each}/accept_dad": "0" for each in ("all", "default")},
    **{f"net/ipv6/conf/{each}/accept_ra": "0" for each in ("all", "default")},
    # Replies may come another way than the kernel would choose; nobody is told of shorter ways.
    **{f"net/ipv4/conf/{each}/rp_filter": "0" for each in ("all", "default")},
    **{f"net/ipv4/conf/{each}/send_redirects": "0" for each in ("all", "default")},
    **{f"net/ipv4/conf/{each}/accept_redirects": "0" for each in ("all", "default")},
    **{f"net/ipv6/conf/{each}/accept_redirects": "0" for each in ("all", "default")},
    # Every refusal is told: the tests ask more often in a second than the limit allows.
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv6/icmp/ratelimit": "0",
}
_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # Conntrack remembers that no rule took a connection: later ones from the same port are unreachable too, although
    # there is a rule by then. The default is two minutes; a client that asks all the time uses a port again sooner.
    "net/netfilter/nf_conntrack_tcp_timeout_syn_sent": "1",
}
_SWITCH = {f"net/bridge/bridge-nf-call-{tool}": "0" for tool in ("iptables", "ip6tables", "arptables")}


PREPARED = {"net/ipv4/conf/all/route_localnet": "1"}
"""What a node must find set where its programs may not set it: node ports on 127.0.0.1 need it."""


def sysctls(host: str) -> dict[str, str]:
    """Return what a host's kernel is told before it has any interface, by path below /proc/sys."""
    role = {NODE: _ROUTER, OTHER_NODE: _ROUTER, LAN: _SWITCH}.get(host, {})
    return {**_EVERYWHERE, **role}
