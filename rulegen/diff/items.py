"""A plan's items: one for each object that changes, described for people and machines, whatever its language."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Action(enum.StrEnum):
    """What happens to an object; the value is the sign that is shown."""

    ADD = "+"
    CHANGE = "~"
    DELETE = "-"

    @property
    def word(self) -> str:
        """The verb for machines: add, change or delete."""
        return self.name.lower()


class Drift(enum.StrEnum):
    """Why an object differs although no Kubernetes object has changed: somebody has touched the node."""

    FOREIGN = "foreign"
    """Something in our place that we would never put there."""
    MISSING = "missing"
    """Something of ours was deleted by something else, while what belongs to it is still there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an object, as its language spells it.

    Attributes:
        sign: `+`, `-`, or a space for one that stays.
        why: What it is for; empty where that is not known.
    """

    sign: str
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object that changes.

    Attributes:
        language: `iptables`, `ipset`, `ipvs`, `links`, `conntrack`, `sysctl`, `nfacct`, `nginx`.
        family: `IPv4`, `IPv6`, or empty for both.
        kind: What it is in its language: chain, rule, jump; set, entry; virtual server, real server, timeouts; device,
            address; flow, parameter, counter.
        name: Which one, as its tools name it.
        owner: `namespace/name` of the Service that it exists for; empty for the node.
        is_leftover: Whether the owner is no longer served here, or nobody knows the owner.
        key: The object's key in its language's state; None for what has no such state. No part of what is shown.
        variant: The variant of iptables that it is in, where that is not the one that the plan is made for.
        lines: Its content: all of it where it comes or goes, what differs (with context) where it changes.
    """

    action: Action
    language: str
    family: str
    kind: str
    name: str
    owner: str = ""
    is_leftover: bool = False
    drift: Drift | None = None
    variant: str = ""
    lines: tuple[Line, ...] = ()
    key: Hashable = field(default=None, compare=False, repr=False)
