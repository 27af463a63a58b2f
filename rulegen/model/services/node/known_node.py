"""Keeps addresses and Pod CIDRs of this node while its Node object is missing or incomplete.

A Node can be deleted and created again. The new object has no addresses until the kubelet registers them, and no Pod
CIDRs until the controller assigns them. Until then, rules that restrict node ports to the Node's addresses, or that
masquerade traffic from outside its Pod CIDRs, must not change (kubernetes/kubernetes#111344).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.net import Family, family_of, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.kube.objects.structs import Node, NodeAddress


class KnownNode(NamedTuple):
    """The Node object that decisions use.

    Attributes:
        node: The object, completed with values of earlier versions; None if there never was one.
        kept: Warnings, one for each value kept from an earlier version.
    """

    node: Node | None
    kept: tuple[str, ...] = ()


def known_node(name: str, before: Node | None, now: Node | None) -> KnownNode:
    """Return the current Node, completed with the earlier values of each family for which it has none.

    Args:
        name: The node's name.
        before: The Node that decisions used until now.
        now: The current object; None if it does not exist.
    """
    if before is None:
        return KnownNode(now)
    if now is None:
        return KnownNode(
            before, (f"the Node {name!r} is gone: its last known addresses, pod CIDRs and zone stay in use",)
        )
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
                continue  # the decoder has already reported the invalid text
            if family_of(address) is family:
                yield entry


def _pod_cidrs(node: Node, family: Family) -> Iterator[str]:
    for cidr in node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()):
        if family_of(parse_network(cidr)) is family:
            yield cidr
