"""Rules, and the words of rules in the spelling of `iptables-save` (iptables 1.8).

Every function here takes typed values and returns one word; `rule` joins words. Untrusted text enters a rule only as
a comment, which `quote` makes harmless. Words must come in the order of the tool's own print: addresses, interface,
protocol, matches, target. Source: iptables(8), iptables-extensions(8).
"""

from __future__ import annotations

from functools import cache, lru_cache
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import msgspec

from rulegen.net import address_text

if TYPE_CHECKING:
    from rulegen.net import Address, Network, Protocol

_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}

COMMENT_MAX = 255
"""Longest comment that the kernel keeps (XT_MAX_COMMENT_LEN less the NUL)."""


class Rule(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One rule of a chain.

    Attributes:
        spec: The rule as `iptables-save` prints it behind `-A CHAIN`, without any comment; may be empty.
        comment: Why it exists, for people; no part of equality.
        printed: The rule as the kernel has it, comments in place, where that differs from `spec`. A rule is deleted by
            this text, whatever comment it would be written with now.
    """

    spec: str
    comment: str = ""
    printed: str = ""

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same text without comments."""
        return isinstance(other, Rule) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self.spec)

    @property
    def line(self) -> str:
        """The rule behind `-A CHAIN` or `-D CHAIN`, comment included."""
        if self.printed:
            return self.printed
        if not self.comment:
            return self.spec
        return f"-m comment --comment {quote(self.comment)} {self.spec}".rstrip()


def rule(*words: str, comment: str = "") -> Rule:
    """Return the rule that consists of these words, in this order."""
    return Rule(" ".join(words), comment)


def quote(text: str) -> str:
    """Return `text` as one argument on one line: anything but printable ASCII becomes `?`, and long text is cut."""
    if text.isascii() and text.isprintable() and not ('"' in text or "\\" in text or len(text) > COMMENT_MAX):
        return f'"{text}"'
    safe = "".join(c if " " <= c <= "~" else "?" for c in text[:COMMENT_MAX])
    escaped = safe.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def source(network: Network) -> str:
    """Match packets from a prefix."""
    return f"-s {network}"


def not_source(network: Network) -> str:
    """Match packets from anywhere else."""
    return f"! -s {network}"


def source_address(address: Address) -> str:
    """Match packets from one address."""
    return f"-s {address_text(address)}/{32 if isinstance(address, IPv4Address) else 128}"


def source_host(host: str, bits: int) -> str:
    """Match packets from one address, given as text without brackets."""
    return f"-s {host}/{bits}"


def destination(network: Network) -> str:
    """Match packets to a prefix."""
    return f"-d {network}"


def not_destination(network: Network) -> str:
    """Match packets to anywhere else."""
    return f"! -d {network}"


def destination_address(address: Address) -> str:
    """Match packets to one address."""
    return f"-d {address_text(address)}/{32 if isinstance(address, IPv4Address) else 128}"


def in_interface(name: str) -> str:
    """Match packets that came in on an interface; `cali+` is any whose name starts with cali."""
    return f"-i {name}"


def not_in_interface(name: str) -> str:
    """Match packets that did not come in on the interface."""
    return f"! -i {name}"


@cache
def protocol(protocol: Protocol) -> str:
    """Match a transport protocol."""
    return f"-p {protocol.lower()}"


@cache
def ports_of(protocol: Protocol) -> str:
    """Load the protocol's own match, as the tools do wherever DNAT names a port."""
    return f"-m {protocol.lower()}"


@lru_cache(maxsize=4096)
def destination_port(protocol: Protocol, port: int) -> str:
    """Match packets to a port."""
    return f"-m {protocol.lower()} --dport {port}"


def destination_is_local() -> str:
    """Match packets to an address of this host."""
    return "-m addrtype --dst-type LOCAL"


def source_is_local() -> str:
    """Match packets from an address of this host."""
    return "-m addrtype --src-type LOCAL"


def source_is_not_local() -> str:
    """Match packets from elsewhere."""
    return "-m addrtype ! --src-type LOCAL"


def in_set(name: str, what: str) -> str:
    """Match packets of which the parts named (`dst,dst`: destination address and port) are in an ipset."""
    return f"-m set --match-set {name} {what}"


def not_bridged() -> str:
    """Match packets that did not arrive on a port of a bridge."""
    return "-m physdev ! --physdev-is-in"


def virtual_server(address: Address, protocol: Protocol, port: int) -> str:
    """Match packets of IPVS connections to a virtual server."""
    return f"-m ipvs --vproto {_NUMBERS[protocol.lower()]} --vaddr {address} --vport {port}"


def is_marked(mark: int) -> str:
    """Match packets whose mark has all these bits."""
    return f"-m mark --mark {mark:#x}/{mark:#x}"


def is_not_marked(mark: int) -> str:
    """Match packets whose mark lacks one of these bits."""
    return f"-m mark ! --mark {mark:#x}/{mark:#x}"


def connection_state(*states: str) -> str:
    """Match by the state of the connection."""
    return f"-m conntrack --ctstate {','.join(states)}"


def not_connection_state(*states: str) -> str:
    """Match connections in none of these states."""
    return f"-m conntrack ! --ctstate {','.join(states)}"


def counted(name: str) -> str:
    """Count packets under a name (nfacct); always matches."""
    return f"-m nfacct --nfacct-name {name}"


def is_counted(rule: Rule) -> bool:
    """Return whether a rule counts under a name."""
    return "--nfacct-name" in rule.spec


@lru_cache(maxsize=4096)
def at_odds(of: int, share: int = 1) -> str:
    """Match `share` packets in `of`, at random.

    It is written with ten decimals, as kube-proxy writes it; the kernel keeps 31 bits of that, and the tools print
    them back with eleven.

    >>> at_odds(3)
    '-m statistic --mode random --probability 0.33333333349'
    """
    return f"-m statistic --mode random --probability {round(2**31 * round(share / of, 10)) / 2**31:.11f}"


def seen_within(seconds: int, name: str, bits: int) -> str:
    """Match packets whose source the list `name` has seen in the last seconds; older entries are deleted."""
    return f"-m recent --rcheck --seconds {seconds} --reap --name {name} --mask {_mask(bits)} --rsource"


def remember(name: str, bits: int) -> str:
    """Put the packet's source address on the list `name`; always matches."""
    return f"-m recent --set --name {name} --mask {_mask(bits)} --rsource"


def jump(chain: str) -> str:
    """Jump to another chain."""
    return f"-j {chain}"


def accept() -> str:
    """Accept the packet."""
    return "-j ACCEPT"


def drop() -> str:
    """Drop the packet."""
    return "-j DROP"


def return_() -> str:
    """Return to the calling chain."""
    return "-j RETURN"


def reject(bits: int) -> str:
    """Reject the packet with ICMP port unreachable, the default of the tools in both families."""
    return f"-j REJECT --reject-with {'icmp' if bits == 32 else 'icmp6'}-port-unreachable"


def set_mark(mark: int) -> str:
    """Set the bits of the mark."""
    return f"-j MARK --set-xmark {mark:#x}/{mark:#x}"


def flip_mark(mark: int) -> str:
    """Invert the bits of the mark, which clears bits that are set."""
    return f"-j MARK --set-xmark {mark:#x}/0x0"


def masquerade(*, random_fully: bool) -> str:
    """Rewrite the source to the address of the outgoing interface."""
    return "-j MASQUERADE --random-fully" if random_fully else "-j MASQUERADE"


def dnat(to: str) -> str:
    """Rewrite the destination; `to` is the text of an endpoint, `10.0.0.1:80`."""
    return f"-j DNAT --to-destination {to}"


def redirect(port: int) -> str:
    """Rewrite the destination to this host and the port."""
    return f"-j REDIRECT --to-ports {port}"


def tproxy(port: int, mark: int, bits: int) -> str:
    """Deliver the packet to the listener on a port of this host, with its destination unchanged, and mark it."""
    anywhere = "0.0.0.0" if bits == 32 else "::"  # noqa: S104 - the text of a rule
    return f"-j TPROXY --on-port {port} --on-ip {anywhere} --tproxy-mark {mark:#x}/{mark:#x}"


def clear_mark(mark: int) -> str:
    """Clear the bits of the mark."""
    return f"-j MARK --set-xmark 0x0/{mark:#x}"


def of_transparent_socket() -> str:
    """Match packets of a connection that a socket of this host has accepted for an address of somebody else."""
    return "-m socket --transparent"


def is_translated() -> str:
    """Match packets whose destination a rule of this host has rewritten."""
    return "-m conntrack --ctstate DNAT"


def _mask(bits: int) -> str:
    return "255.255.255.255" if bits == 32 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
