"""Cables, addresses and routes of the lab, laid with pyroute2 into the namespaces of running processes.

All is done from outside, by process id: it is the same for namespaces and for containers, and a container needs no
privilege for it. Neighbours on the pods' links are fixed, so no first packet waits for an answer to ARP or ND.
"""

from __future__ import annotations

import subprocess
import warnings
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from integration.lab import topology
from integration.lab.hosts import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NO_DAD = 0x02  # IFA_F_NODAD
_PERMANENT = 0x80  # NUD_PERMANENT
_SCOPE_LINK = 253
# Deprecated from the start (RFC 4862, 5.5.4): a source for those who bind to it, never one that the kernel chooses.
_ONLY_WHEN_ASKED = {"preferred_lft": 0, "valid_lft": 0xFFFFFFFF}
_EVERYTHING = ("0.0.0.0/0", "::/0")


def wire(pids: Mapping[str, int]) -> None:
    """Join the hosts of the topology, given by the process ids that hold their namespaces."""
    for host, pid in pids.items():
        set_sysctls(pid, topology.sysctls(host))
    with _inside(pids[topology.LAN]) as lan:
        for bridge in sorted({place.network for place in topology.ATTACHMENTS}):
            lan.link("add", kind="bridge", ifname=bridge, br_mcast_snooping=0)
            lan.link("set", index=_index(lan, bridge), state="up")
        for number, place in enumerate(topology.ATTACHMENTS):
            port = f"port{number}"
            _cable((pids[place.host], place.interface, _mac(1, number)), (pids[topology.LAN], port, _mac(2, number)))
            lan.link("set", index=_index(lan, port), state="up", master=_index(lan, place.network))
    for number, (pod, node) in enumerate(topology.PODS.items()):
        _cable((pids[pod], "eth0", _mac(3, number)), (pids[node], pod, _mac(4, number)))
    for host, pid in pids.items():
        with _inside(pid) as link:
            link.link("set", index=1, state="up")
            _address(link, host)
            _reach_pods(link, host)
            _route(link, host)


@contextmanager
def _inside(pid: int) -> Iterator[Any]:
    """Open netlink in the network namespace of a process."""
    from pyroute2 import NetNS  # noqa: PLC0415 - takes a quarter of a second, which skipped tests need not pay

    with warnings.catch_warnings():
        # It fetches its socket by a forked child, which leaves its own copy to the kernel.
        warnings.simplefilter("ignore")
        link = NetNS(f"/proc/{pid}/ns/net")
    with link:
        yield link


def _index(link: Any, name: str) -> int:
    results = link.link_lookup(ifname=name)
    if not results:
        raise LabError(f"no interface {name}")
    return int(results[0])


def _mac(kind: int, number: int) -> str:
    return f"02:00:00:00:{kind:02x}:{number:02x}"


def _cable(here: tuple[int, str, str], there: tuple[int, str, str]) -> None:
    """Make a veth pair, each end right where it belongs: no name of it is ever seen outside."""
    from pyroute2 import IPRoute  # noqa: PLC0415

    with IPRoute() as outside:
        outside.link(
            "add",
            kind="veth",
            net_ns_pid=here[0],
            ifname=here[1],
            address=here[2],
            peer={"net_ns_pid": there[0], "ifname": there[1], "address": there[2]},
        )


def set_sysctls(pid: int, values: Mapping[str, str]) -> None:
    """Write sysctls of a namespace; what this kernel does not have is passed over."""
    script = 'cd /proc/sys; while read -r path value; do [ ! -e "$path" ] || echo "$value" >"$path" || exit 1; done'
    lines = "".join(f"{path} {value}\n" for path, value in values.items())
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", script], input=lines, text=True, check=True)


def _address(link: Any, host: str) -> None:
    main = {text for place in topology.ATTACHMENTS for text, _ in place.addresses[:2]}
    for place in topology.ATTACHMENTS:
        if place.host == host:
            index = _index(link, place.interface)
            for text, length in place.addresses:
                further = {} if text in main else _ONLY_WHEN_ASKED
                link.addr("add", index=index, address=text, prefixlen=length, **_flags(text), **further)
            link.link("set", index=index, state="up")
    if host in topology.PODS:
        index = _index(link, "eth0")
        for text in topology.POD_ADDRESSES[host]:
            link.addr("add", index=index, address=text, prefixlen=ip_address(text).max_prefixlen, **_flags(text))
        link.link("set", index=index, state="up")


def _flags(text: str) -> dict[str, int]:
    return {"flags": _NO_DAD} if ":" in text else {}


def _reach_pods(link: Any, node: str) -> None:
    """Lead to each pod of a node over its own link."""
    for number, (pod, its_node) in enumerate(topology.PODS.items()):
        if its_node != node:
            continue
        index = _index(link, pod)
        link.link("set", index=index, state="up")
        for text in topology.POD_ADDRESSES[pod]:
            link.neigh("add", dst=text, lladdr=_mac(3, number), ifindex=index, state=_PERMANENT)
            link.route("add", dst=f"{text}/{ip_address(text).max_prefixlen}", oif=index, scope=_SCOPE_LINK)


def _route(link: Any, host: str) -> None:
    """Lead out of a host: pods by their node, the client by node1, node1 by node2, and there it ends."""
    if host == topology.LAN:
        return
    eth0 = _index(link, "eth0")
    if host in topology.PODS:
        mac = _mac(4, tuple(topology.PODS).index(host))
        for gateway in topology.POD_GATEWAYS:
            link.neigh("add", dst=gateway, lladdr=mac, ifindex=eth0, state=_PERMANENT)
        link.route("add", dst=f"{topology.POD_GATEWAYS[0]}/32", oif=eth0, scope=_SCOPE_LINK)
        _default(link, gateways=topology.POD_GATEWAYS, oif=eth0)
    elif host == topology.CLIENT:
        _default(link, gateways=_main(topology.NODE), oif=eth0)
    elif host == topology.NODE:
        _default(link, gateways=_main(topology.OTHER_NODE), oif=eth0)
        _reach_other_pods(link, topology.OTHER_NODE)
    else:
        for everything in _EVERYTHING:
            link.route("add", dst=everything, type="unreachable")
        _reach_other_pods(link, topology.NODE)


def _main(host: str) -> tuple[str, str]:
    return str(topology.address(host, 4)), str(topology.address(host, 6))


def _default(link: Any, gateways: tuple[str, str], oif: int) -> None:
    for everything, gateway in zip(_EVERYTHING, gateways, strict=True):
        link.route("add", dst=everything, gateway=gateway, oif=oif)


def _reach_other_pods(link: Any, node: str) -> None:
    for cidr, gateway in zip(topology.POD_CIDRS[node], _main(node), strict=True):
        link.route("add", dst=cidr, gateway=gateway)
