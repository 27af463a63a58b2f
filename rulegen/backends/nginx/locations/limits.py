"""Limits for each client: zones that count, and where they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.nginx.names import mark
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.kube.objects.names import ObjectName
    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.ir import Limits

ZONE_SIZE = "5m"
"""Room for some 40,000 clients; when it is full, the clients that were idle longest are forgotten."""


def limit_mark(ingress: ObjectName | None, limits: Limits) -> str:
    """Return what the zones of an Ingress are called by: the same on all its hosts, which count together."""
    return mark(ingress, limits)


def limit_zones(name: str, limits: Limits) -> Iterator[Node]:
    """Yield the zones of an Ingress, which `name` stands for, and who is exempt from them.

    The name holds a hash of all that defines the zone: nginx rejects to change a zone's key while it runs.
    """
    key = variable("binary_remote_addr")
    if limits.exempt:
        entries: list[Node] = [Entry("default", "1", KeyKind.FIXED)]
        entries += [Entry(str(network), "0", KeyKind.FIXED) for network in limits.exempt]
        # All who exempt the same share the variables, each with the same maps: see `cookie_map`.
        who = mark(*limits.exempt)
        yield Directive("geo", ("$remote_addr", f"$counted_{who}"), tuple(entries))
        chosen = (Entry("default", "", KeyKind.FIXED), Entry("1", key))
        yield Directive("map", (variable(f"counted_{who}"), f"$client_{who}"), chosen)
        key = variable(f"client_{who}")
    for unit, rate in (("s", limits.rps), ("m", limits.rpm)):
        if rate:
            zone = f"zone=r{unit}_{name}:{ZONE_SIZE}"
            yield Directive("limit_req_zone", (key, zone, f"rate={rate}r/{unit}"))
    if limits.connections:
        yield Directive("limit_conn_zone", (key, f"zone=c_{name}:{ZONE_SIZE}"))


def limit_directives(name: str, limits: Limits) -> Iterator[Node]:
    """Yield the directives of the location itself."""
    for unit, rate in (("s", limits.rps), ("m", limits.rpm)):
        if rate:
            yield Directive("limit_req", (f"zone=r{unit}_{name}", f"burst={rate * limits.burst_multiplier}", "nodelay"))
    if limits.connections:
        yield Directive("limit_conn", (f"c_{name}", str(limits.connections)))
    for directive, kibibytes in (("limit_rate", limits.rate), ("limit_rate_after", limits.rate_after)):
        if kibibytes is not None:
            yield Directive(directive, (f"{kibibytes}k" if kibibytes else "0",))
