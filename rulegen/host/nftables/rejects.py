"""Codes of rejections: their names in nft, and their numbers in ICMP (RFC 792, RFC 4443) and in the kernel."""

from __future__ import annotations

from typing import Final

from rulegen.host.nftables.loads import NotWrittenError

BY_ICMP, TCP_RESET, BY_ANY_ICMP = 0, 1, 2
"""The kinds of rejections: ICMP of the table's family, a TCP reset, a code of the kernel for both families."""
_ICMP: Final = {
    "net-unreachable": 0,
    "host-unreachable": 1,
    "prot-unreachable": 2,
    "port-unreachable": 3,
    "net-prohibited": 9,
    "host-prohibited": 10,
    "admin-prohibited": 13,
}
_ICMPV6: Final = {
    "no-route": 0,
    "admin-prohibited": 1,
    "addr-unreachable": 3,
    "port-unreachable": 4,
    "policy-fail": 5,
    "reject-route": 6,
}
_ICMPX: Final = {"no-route": 0, "port-unreachable": 1, "host-unreachable": 2, "admin-prohibited": 3}


def reject_codes(code: str, *, is_ipv4: bool) -> tuple[int, int | None]:
    """Return the kind and the number of a rejection, such as `icmp host-unreachable`; empty for the default.

    Raises:
        NotWrittenError: There is no such code in this family.
    """
    if code == "tcp reset":
        return TCP_RESET, None
    kind, _, name = (code or f"{'icmp' if is_ipv4 else 'icmpv6'} port-unreachable").partition(" ")
    numbers = {"icmp": _ICMP if is_ipv4 else {}, "icmpv6": {} if is_ipv4 else _ICMPV6, "icmpx": _ICMPX}
    if name not in numbers.get(kind, {}):
        raise NotWrittenError(f"reject with {code}")
    return BY_ANY_ICMP if kind == "icmpx" else BY_ICMP, numbers[kind][name]
