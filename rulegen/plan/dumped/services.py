"""Services as a dump of a node shows them. A dump has no objects: what it does not contain is unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class DumpedFrontend(NamedTuple):
    """An address and port that clients connect to.

    Attributes:
        kind: Such as `cluster IP` or `node port`; `address` if the dump does not show the kind.
        address: Protocol, address and port; for node ports without an address.
        refusal: `rejected` or `dropped` if connections get no endpoint; else empty.
    """

    kind: str
    address: str
    refusal: str = ""


class DumpedEndpoint(NamedTuple):
    """An endpoint.

    Attributes:
        address: Address and port.
        share: Its part of new connections in percent; None if the dump does not show it.
        pool: `local` for an endpoint of the local pool alone; else empty.
    """

    address: str
    share: float | None = None
    pool: str = ""


@dataclass(slots=True, kw_only=True)
class DumpedPort:
    """One port of a Service in one family.

    Attributes:
        service: `namespace/name`; empty if the dump does not name it.
        name: The name of the port; empty if it has none, or the dump does not name it.
        key: What identifies the port in the dump, such as the end of its chains' names.
        frontends: In the order of the dump; a dictionary, because a dump may have the same one many times.
        policies: Traffic policy, session affinity, source ranges and others, as text; likewise.
    """

    language: str
    family: str
    service: str = ""
    name: str = ""
    key: str = ""
    frontends: dict[DumpedFrontend, None] = field(default_factory=dict)
    endpoints: list[DumpedEndpoint] = field(default_factory=list)
    policies: dict[str, None] = field(default_factory=dict)

    def add(self, frontend: DumpedFrontend) -> None:
        """Add a frontend. If one place refuses it and another serves it, both are listed."""
        self.frontends[frontend] = None

    def limit(self, policy: str) -> None:
        """Add a policy once."""
        self.policies[policy] = None


class ForeignRule(NamedTuple):
    """A rule in a chain or table of Services that neither rulegen nor kube-proxy writes in this form."""

    language: str
    family: str
    place: str
    text: str


class OtherRules(NamedTuple):
    """Rules, sets or virtual servers of other programs.

    Attributes:
        place: Their chain; or their kind in other languages.
        number: How many there are.
    """

    language: str
    family: str
    place: str
    number: int


@dataclass(slots=True, kw_only=True)
class DumpedNode:
    """What the dumps of one node say.

    Attributes:
        sources: The paths of the dumps.
        seen: What was observed, such as `iptables IPv4`.
        unseen: What was not observed, and is therefore unknown.
        ports: The ports of Services.
        health_ports: Ports for health checks of load balancers, with their Services.
        foreign: Foreign rules in chains of Services.
        others: Objects of other programs, outside of these chains.
    """

    sources: Sequence[str] = ()
    seen: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    ports: list[DumpedPort] = field(default_factory=list)
    health_ports: list[str] = field(default_factory=list)
    foreign: list[ForeignRule] = field(default_factory=list)
    others: list[OtherRules] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, other: DumpedNode) -> None:
        """Add what another language or family says."""
        for name in ("seen", "unseen", "ports", "health_ports", "foreign", "others", "warnings"):
            getattr(self, name).extend(getattr(other, name))

    @property
    def services(self) -> dict[str, list[DumpedPort]]:
        """The ports by Service, sorted by name; those of unknown Services come last."""
        by_name: dict[str, list[DumpedPort]] = {}
        for port in sorted(self.ports, key=_rank):
            by_name.setdefault(port.service, []).append(port)
        return by_name


def _rank(port: DumpedPort) -> tuple[bool, str, str, str, str]:
    return not port.service, port.service, port.name, port.family, port.key
