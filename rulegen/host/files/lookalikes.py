"""Files that users save by mistake instead of dumps, and the next step for each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import InputError
from rulegen.ownership.virtual_servers import DEVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

ADDRESSES: Final = re.compile(r"\S+\s+(?:DOWN|UP|UNKNOWN|DORMANT|LOWERLAYERDOWN|NOTPRESENT|TESTING)\b")
"""The beginning of the output of `ip -br addr`."""

_BEGINNING: Final = 4096
"""How many characters of a file show its kind."""
_SAVE: Final = "save it with iptables-save or ip6tables-save"
_OR_MODE: Final = (
    "for a node in nftables mode, give --mode nftables; else save it with iptables-save and ip6tables-save"
)
_LOOKALIKES: Final = (
    (re.compile(r"-[PN] \S+"), "the output of `iptables -S`, which is one table without its name", _SAVE),
    (re.compile(r"Chain \S+ \("), "the output of `iptables -L`, which omits parts of the rules", _SAVE),
    (re.compile(r"(?:table (?:ip|ip6|inet|arp|bridge|netdev) \S+|add table) ?"), "the output of `nft list`", _OR_MODE),
    (re.compile(r'\{"nftables"'), "the output of `nft -j list`", _OR_MODE),
    (re.compile(r"IP Virtual Server version"), "the output of `ipvsadm -L`", "save it with ipvsadm -Sn"),
    (re.compile(r"Name: \S+\s+Type: "), "the output of `ipset list`", "save it with ipset save"),
    (re.compile(r"\d+: \S+: <"), "the output of `ip addr`", f"save it with ip -br addr show {DEVICE}"),
    (ADDRESSES, f"the output of `ip -br addr` without {DEVICE}", f"save it with ip -br addr show {DEVICE}"),
    (re.compile(r"apiVersion:|kind:|\{\s*\"(?:apiVersion|kind|items)\""), "objects", "objects are named with -f"),
)
"""Files that users save instead of a dump: the beginning, the kind, and the next step."""


def no_dump(file: str, text: str) -> InputError:
    """Return the error for a file that is no dump, with its kind and the next step."""
    for begin, what, hint in _LOOKALIKES:
        if begin.match(_without_comments(text)):
            return InputError(file, f"this is {what}, not a dump", hint=hint)
    return InputError(
        file,
        "not a dump of iptables-save, ip6tables-save, nft list ruleset, ipvsadm -Sn, ipset save or ip -br addr",
        hint="on the node, as root: iptables-save > iptables.save; ip6tables-save > ip6tables.save",
    )


def meaning_in_folder(text: str) -> str:
    """Return the kind of a file that is no dump, and the next step; empty if the kind is unknown."""
    lookalikes = ((what, hint) for begin, what, hint in _LOOKALIKES if begin.match(_without_comments(text)))
    return next((f" (it is {what}: {hint})" for what, hint in lookalikes), "")


def _without_comments(text: str) -> str:
    """Return the beginning of a text without empty lines and comments."""
    lines = (line.lstrip() for line in text[:_BEGINNING].splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def no_rules(paths: Sequence[str], empty: Sequence[str], ignored: Sequence[str]) -> InputError:
    """Return the error for files without any rules: empty ones, or a folder without dumps.

    Args:
        paths: What the user named.
        empty: The empty files.
        ignored: Warnings about files that were ignored.
    """
    if empty:
        return InputError(
            ", ".join(empty),
            "is empty, and there is no other dump",
            hint="a node without any rule prints nothing: compare with --observed none; else save again, as root",
        )
    return InputError(
        ", ".join(paths),
        "; ".join(("no dump of iptables-save, ip6tables-save or nft list ruleset there", *ignored[:1])),
        hint="on the node, as root: iptables-save > iptables.save; ip6tables-save > ip6tables.save",
    )
