"""Packets and what becomes of them: who asks what, who may answer, and which source the answering one sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from integration.lab import topology
from integration.manifests import PORT
from integration.uml.machine import is_inside

if TYPE_CHECKING:
    from integration.lab.hosts import Address, Answer, Family, Host, Transport
    from integration.lab.lab import Lab
    from integration.manifests import App

Way = Literal["cluster", "node", "second", "loopback", "lb", "external"]
"""How a Service is reached: its ClusterIP, its node port on an address of the node, its balancer, its external IP."""

AT_ONCE_S = 1.5
"""So soon the asker was told. A word that comes back while the asking socket is still busy with sending, as it may
where all hosts share a kernel, is heard with TCP's second try, after 1 s (RFC 6298); UDP and SCTP hear the first."""

LOST_S = 0.4
"""How long to wait for an answer that must not come."""


@dataclass(frozen=True, slots=True)
class Served:
    """Answered by each of `by` and nobody else, who see the asker's own address (`kept`), one of the node's, or `via`.

    Attributes:
        via: Whether they see the address that was asked. It is one of the node's own where IPVS serves, so a process
            of the node asks from there.
    """

    by: frozenset[str]
    kept: bool
    port: int = 0
    via: bool = False

    def __str__(self) -> str:
        source = "kept" if self.kept else "from the address asked" if self.via else "masqueraded"
        return f"by {'+'.join(sorted(self.by))} {source}"


@dataclass(frozen=True, slots=True)
class Turned:
    """Not answered: `refused` (told at once), `timeout` (dropped) or `unreachable` (no rule took it)."""

    outcome: Literal["refused", "timeout", "unreachable"]

    def __str__(self) -> str:
        return self.outcome


REFUSED, DROPPED, MISSED = Turned("refused"), Turned("timeout"), Turned("unreachable")


def kept(*by: str, port: int = 0) -> Served:
    """Expect answers from all of `by`, who see who asks."""
    return Served(frozenset(by), kept=True, port=port)


def masked(*by: str, port: int = 0) -> Served:
    """Expect answers from all of `by`, who see the node ask."""
    return Served(frozenset(by), kept=False, port=port)


def via(*by: str) -> Served:
    """Expect answers from all of `by`, who see the address that was asked."""
    return Served(frozenset(by), kept=False, via=True)


@dataclass(frozen=True, slots=True)
class Flow:
    """One row: `who` asks `app` by `way`, from its main address or its `source`."""

    who: str
    app: App
    way: Way
    expect: Served | Turned
    protocol: Transport = "TCP"
    source: str = ""

    def __str__(self) -> str:
        source = f"({self.source.rpartition(':')[2].rpartition('.')[2]})" if self.source else ""
        return f"{self.who}{source} to {self.app.name} {self.way} {self.protocol}: {self.expect}"


def target(lab: Lab, app: App, way: Way, family: Family) -> tuple[Address | str, int]:
    """Return the address and port to ask."""
    match way:
        case "cluster":
            return app.cluster_ip(family), PORT
        case "lb":
            return app.lb_ip(family), PORT
        case "external":
            return app.outer_ip(family), PORT
        case "loopback":
            return "127.0.0.1" if family == 4 else "::1", app.node_port
        case "node":
            return lab.node.addresses(family)[0], app.node_port
        case "second":
            return lab.node.addresses(family)[1], app.node_port


def check(lab: Lab, flow: Flow, family: Family) -> None:
    """Send the packets of a row and compare."""
    asker = lab[flow.who]
    address, port = target(lab, flow.app, flow.way, family)
    source = flow.source or None
    if isinstance(flow.expect, Turned):
        expected = flow.expect.outcome
        if flow.protocol == "SCTP" and is_inside():
            expected = "timeout"  # a kernel's own SCTP tries on, whatever ICMP says
        wait_s = LOST_S if expected == "timeout" else 5
        answer = asker.request(flow.protocol, address, port, source=source, timeout_s=wait_s)
        assert (answer.outcome, answer.name) == (expected, "")
        assert expected == "timeout" or answer.elapsed_s < AT_ONCE_S
        return
    # Forty throws miss one of two endpoints once in 10^12 runs, one of three once in 10^6. IPVS has them take turns.
    count = 3 if len(flow.expect.by) == 1 else 9 if is_inside() else 40
    answers = asker.requests(count, flow.protocol, address, port, source=source)
    assert {answer.outcome for answer in answers} == {"answered"}
    assert {answer.name for answer in answers} == flow.expect.by
    for answer in answers:
        _check_source(lab, asker, answer, flow, family, str(address))
        assert answer.port == (flow.expect.port or answer.port)


def _check_source(lab: Lab, asker: Host, answer: Answer, flow: Flow, family: Family, asked: str) -> None:
    assert isinstance(flow.expect, Served)
    own = {flow.source} if flow.source else {str(address) for address in asker.addresses(family)}
    nodes = {str(address) for address in lab.node.addresses(family)}
    expected = own if flow.expect.kept else {asked} if flow.expect.via else nodes
    assert str(answer.source) in expected, f"{answer.name} saw {answer.source}"


def main_source(host: str, family: Family) -> str:
    """Return the address that a host asks from when it does not choose."""
    return str(topology.address(host, family))
