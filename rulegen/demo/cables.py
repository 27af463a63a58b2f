"""Virtual links, addresses and routes between the hosts of the demo, created with pyroute2.

    client 192.0.2.77 ──── eth0 192.0.2.10 web-1 ──┬── my-blog-a 10.244.1.11
                                                   ├── my-blog-b 10.244.1.12
                                                   └── …

Each pod has a cable of its own to the node, which routes; the node is every pod's gateway.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.demo.hosts import Host

GATEWAY = "10.244.1.1"
_SCOPE_LINK = 253  # rtnetlink(7): to somewhere on this very cable
_LOOPBACK = 1


def join_client(client: Host, address: str, node: Host, node_address: str) -> None:
    """Create the link between the client and the node, with a /24 network of its own."""
    _cable(node, "eth0", client)
    for host, own in ((client, address), (node, node_address)):
        _inside(host, partial(_address, address=own, length=24))
    _inside(node, lambda link: link.addr("add", index=_LOOPBACK, address=GATEWAY, prefixlen=32))


def join_pod(pod: Host, address: str, node: Host) -> None:
    """Create the link between a Pod and the node."""
    _cable(node, pod.name, pod)

    def route_out(link: Any) -> None:
        eth0 = _address(link, address=address, length=32)
        link.route("add", dst=f"{GATEWAY}/32", oif=eth0, scope=_SCOPE_LINK)
        link.route("add", dst="0.0.0.0/0", gateway=GATEWAY, oif=eth0)

    _inside(pod, route_out)
    _inside(node, lambda link: link.route("add", dst=f"{address}/32", oif=_up(link, pod.name), scope=_SCOPE_LINK))


def _inside(host: Host, work: Callable[[Any], object]) -> None:
    """Do some work over netlink in a host's namespace.

    A thread enters the namespace and ends with the work. pyroute2 can do without, but forks a child for it, in which a
    Ctrl-C would go through our own clean-up a second time.
    """
    from pyroute2 import IPRoute, netns  # noqa: PLC0415 - takes a quarter of a second, which others need not pay
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - the same

    def enter_and_work() -> None:
        netns.setns(f"/proc/{host.pid}/ns/net", flags=0)
        with IPRoute() as link:
            work(link)

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            thread.submit(enter_and_work).result()
        except (NetlinkError, OSError) as error:
            raise HostError(f"the network of {host.name} cannot be set up: {error}") from error


def _cable(node: Host, name: str, other: Host) -> None:
    """Make a veth pair, with one end in the node and one, eth0, in another host."""
    peer = {"net_ns_pid": other.pid, "ifname": "eth0"}
    _inside(node, lambda link: link.link("add", kind="veth", ifname=name, peer=peer))


def _address(link: Any, *, address: str, length: int) -> int:
    """Bring up loopback and eth0, give eth0 its address, and return its index."""
    link.link("set", index=_LOOPBACK, state="up")
    eth0 = _up(link, "eth0")
    link.addr("add", index=eth0, address=address, prefixlen=length)
    return eth0


def _up(link: Any, name: str) -> int:
    """Bring an interface up and return its index."""
    index: int = link.link_lookup(ifname=name)[0]
    link.link("set", index=index, state="up")
    return index
