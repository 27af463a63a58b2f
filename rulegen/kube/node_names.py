"""Names of Nodes: validation, and the message for a name that the cluster does not have."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from rulegen.kube.syntax import is_subdomain
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN: Final = 10
"""Maximum number of Nodes that a message lists."""
ALIKE: Final = 0.6
"""Minimum similarity of a suggested name; 1 is the same name."""


def read_node_name(text: str) -> str:
    """Return the name of a Node as kube-proxy reads it: stripped of surrounding whitespace, in lower case.

    Raises:
        ValueError: The text is not a valid name of a Node (RFC 1123).

    >>> read_node_name(" Web-1 ")
    'web-1'
    """
    name = text.strip().lower()
    if not is_subdomain(name):
        raise ValueError(f"{quoted(text)} cannot be the name of a Node (RFC 1123: a-z, 0-9, '-' and '.')")
    return name


def unknown_node(name: str, others: Iterable[str]) -> str:
    """Return the message that the cluster has no Node of this name; it lists existing Nodes, the most similar first.

    >>> unknown_node("wbe-1", ["db-1", "web-1"])
    'there is no Node wbe-1; did you mean web-1? The Nodes are web-1, db-1'
    """
    likeness = {printable(other): SequenceMatcher(None, name, other).ratio() for other in others}
    names = sorted(likeness, key=lambda other: (-likeness[other], other))
    if not names:
        return f"there are no Node objects, so Node {printable(name)} is unknown"
    guess = f"; did you mean {names[0]}?" if likeness[names[0]] >= ALIKE else "."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"there is no Node {printable(name)}{guess} The Nodes are {', '.join(names[:SHOWN])}{more}"
