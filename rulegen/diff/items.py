"""Items of a plan: one for each changed object of any language, described for people and machines."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable


class Action(enum.StrEnum):
    """What happens to an object; the value is the displayed sign."""

    ADD = "+"
    CHANGE = "~"
    DELETE = "-"

    @property
    def word(self) -> str:
        """The verb for machines: add, change or delete."""
        return self.name.lower()


class Drift(enum.StrEnum):
    """Why an object differs although no Kubernetes object has changed: something else changed the node."""

    FOREIGN = "foreign"
    """An object in a place of rulegen that rulegen never writes."""
    MISSING = "missing"
    """An object of rulegen was deleted by something else, while objects that depend on it still exist."""


class Line(msgspec.Struct, frozen=True):
    """One line of an object, in the format of its language.

    Attributes:
        sign: `+`, `-`, or a space for a line that stays.
        why: Purpose of the line; empty if unknown.
    """

    sign: str
    text: str
    why: str = ""


class ItemEndpoint(NamedTuple):
    """An endpoint that starts or stops getting connections with the change of an object.

    Attributes:
        is_gained: Whether it starts to get new connections; else it stops, though open ones may continue.
        of: The Service port, as in kube-proxy's comments (`shop/web:http`), or its frontend (`TCP 10.96.0.10:80`).
        text: Address and port.
    """

    is_gained: bool
    of: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object that changes.

    Attributes:
        language: `iptables`, `ipset`, `ipvs`, `links`, `routes`, `conntrack`, `sysctl`, `nfacct`, `nginx`.
        family: `IPv4`, `IPv6`, or empty if it belongs to neither.
        kind: Kind of the object in its language: chain, rule, jump; set, entry; virtual server, real server, timeouts;
            device,
            address; flow, parameter, counter.
        name: Its name, as its tools print it.
        owner: `namespace/name` of the Service that needs it; empty for the node.
        is_leftover: Whether the owner is no longer served here, or is unknown.
        key: Key of the object in the state of its language; None if it has none. Not displayed.
        variant: Its iptables variant, if that is not the variant of the plan.
        endpoints: The endpoints that start or stop getting connections with it. Not displayed.
        frontend: What clients connect to, if it is the object that makes this known, such as `TCP 10.96.0.10:80`. Not
            displayed.
        lines: Its content: all lines if it is added or deleted, the differing lines with context if it is changed.
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
    endpoints: tuple[ItemEndpoint, ...] = field(default=(), compare=False, repr=False)
    frontend: str = field(default="", compare=False, repr=False)
    key: Hashable = field(default=None, compare=False, repr=False)
