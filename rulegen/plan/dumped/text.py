"""Displays what dumps say in terms of Services. External text is printed as printable characters only."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from rulegen.plan.show import display_text, painter
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.plan.dumped.services import DumpedEndpoint, DumpedNode, DumpedPort

MOST_ENDPOINTS: Final = 8
"""The most endpoints of a port that are listed without -v."""
MOST_FOREIGN: Final = 40
"""The most foreign rules that are listed without -v."""
ROUNDING: Final = 0.2
"""Shares of connections, in percent, that differ by no more than this are equal."""
_UNKNOWN: Final = "Services whose names the dump does not contain"


def text(node: DumpedNode, *, colour: bool, verbose: bool = False) -> Iterator[str]:
    """Yield the lines.

    Args:
        node: What the dumps say.
        colour: Whether to use colours.
        verbose: Whether to list all endpoints and foreign rules.
    """
    paint = painter(colour=colour)
    yield display_text(f"{', '.join(node.sources)}: {', '.join(node.seen) or 'no rules of Services'}")
    for service, ports in node.services.items():
        yield ""
        yield paint("*", display_text(f"Service {service}" if service else _UNKNOWN))
        for port in ports:
            yield from (display_text(line) for line in _port_lines(port, verbose=verbose))
    if node.health_ports:
        yield ""
        yield "Health checks of load balancers:"
        yield from (display_text(f"  {port}") for port in node.health_ports)
    if node.foreign:
        yield ""
        yield "Rules in chains of Services that neither rulegen nor kube-proxy writes in this form:"
        shown = node.foreign if verbose else node.foreign[:MOST_FOREIGN]
        for rule in shown:
            yield paint("-", display_text(f"  {rule.place} [{rule.family}]: {rule.text}"))
        if len(node.foreign) > len(shown):
            yield f"  … and {len(node.foreign) - len(shown):,} more. To see all: -v, or -o json."
    if node.others:
        yield ""
        yield "Rules of other programs:"
        for other in node.others:
            noun = "rule" if other.family else "object"
            family = f" [{other.family}]" if other.family else ""
            yield display_text(f"  {other.place}{family}: {counted_noun(other.number, noun)}")
    for heading, lines in (("Not observed, so unknown:", node.unseen), ("Warnings:", node.warnings)):
        if lines:
            yield ""
            yield heading
            yield from (display_text(f"  {line}") for line in lines)
    yield ""
    yield paint("*", summary(node))


def summary(node: DumpedNode) -> str:
    """Return the last line: how many Services, ports, frontends and foreign rules there are."""
    named = {port.service for port in node.ports if port.service}
    unnamed = sum(not port.service for port in node.ports)
    parts = [counted_noun(len(named), "Service")]
    parts += [f"{counted_noun(unnamed, 'port')} of unknown Services"] if unnamed else []
    parts.append(counted_noun(sum(len(port.frontends) for port in node.ports), "frontend"))
    parts.append(counted_noun(len(node.foreign), "foreign rule"))
    return f"Dump: {', '.join(parts)}."


def _port_lines(port: DumpedPort, *, verbose: bool) -> Iterator[str]:
    key = f" ({port.key})" if port.key and not port.service else ""
    yield f"  port {port.name or '(no name)'} [{port.family}]{key}"
    for frontend in port.frontends:
        refusal = f"  {frontend.refusal}: no endpoint" if frontend.refusal else ""
        yield f"    {frontend.kind}  {frontend.address}{refusal}"
    if not port.frontends:
        yield "    no frontend leads here"
    yield f"    endpoints: {_endpoints(port.endpoints, verbose=verbose) or 'none'}"
    yield from (f"    {policy}" for policy in port.policies)


def _endpoints(endpoints: Sequence[DumpedEndpoint], *, verbose: bool) -> str:
    shares = [endpoint.share or 0.0 for endpoint in endpoints if not endpoint.pool]
    is_even = max(shares, default=0.0) - min(shares, default=0.0) <= ROUNDING
    shown = list(endpoints if verbose else islice(endpoints, MOST_ENDPOINTS))
    words = [_endpoint(endpoint, with_share=not is_even) for endpoint in shown]
    if len(endpoints) > len(shown):
        words.append(f"and {len(endpoints) - len(shown):,} more")
    return ", ".join(words)


def _endpoint(endpoint: DumpedEndpoint, *, with_share: bool) -> str:
    about = [f"{endpoint.share:g} %"] if with_share and endpoint.share is not None else []
    about += [f"{endpoint.pool} pool"] if endpoint.pool else []
    return f"{endpoint.address} ({', '.join(about)})" if about else endpoint.address
