"""What is known of this node while its Node object is gone, or says less than it did.

A Node is deleted and made again, and a new one has no addresses before the kubelet has registered them and no pod CIDRs
before the controller has assigned them. Rules that restrict node ports to the Node's addresses, or masquerade all but
its pods' traffic, must not open meanwhile (kubernetes/kubernetes#111344).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.net import Family, family_of, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.kube.objects.structs import Node, NodeAddress


class KnownNode(NamedTuple):
    """The Node that decisions are made with.

    Attributes:
        node: The object, completed with what an earlier one said; None if there never was one.
        kept: What is kept of an earlier one, in sentences for people.
    """

    node: Node | None
    kept: tuple[str, ...] = ()


def known_node(name: str, before: Node | None, now: Node | None) -> KnownNode:
    """Return the Node that holds: what it says now, and what it said before in each family of which it says nothing.

    Args:
        name: The node's name.
        before: The Node that held until now.
        now: The object as it is; None if it is not there.
    """
    if before is None:
        return KnownNode(now)
    if now is None:
        return KnownNode(before, (f"the Node {name!r} is gone: its last addresses, pod CIDRs and zone stay in use",))
    kept = []
    addresses = now.status.addresses
    cidrs = now.spec.pod_cidrs or ((now.spec.pod_cidr,) if now.spec.pod_cidr else ())
    for family in Family:
        old = tuple(_addresses(before, family))
        if old and not any(_addresses(now, family)):
            addresses += old
            what = ", ".join(address.address for address in old)
            kept.append(f"the Node {name!r} has no {family} address any more: {what} stays in use")
        old_cidrs = tuple(_pod_cidrs(before, family))
        if old_cidrs and not any(_pod_cidrs(now, family)):
            cidrs += old_cidrs
            kept.append(f"the Node {name!r} has no {family} pod CIDR any more: {', '.join(old_cidrs)} stays in use")
    if not kept:
        return KnownNode(now)
    spec = msgspec.structs.replace(now.spec, pod_cidrs=cidrs)
    status = msgspec.structs.replace(now.status, addresses=addresses)
    return KnownNode(msgspec.structs.replace(now, spec=spec, status=status), tuple(kept))


def _addresses(node: Node, family: Family) -> Iterator[NodeAddress]:
    for entry in node.status.addresses:
        if entry.type in {"InternalIP", "ExternalIP"}:
            try:
                address = parse_address(entry.address)
            except ValueError:
                continue  # the decoder has already warned of it
            if family_of(address) is family:
                yield entry


def _pod_cidrs(node: Node, family: Family) -> Iterator[str]:
    for cidr in node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()):
        if family_of(parse_network(cidr)) is family:
            yield cidr
