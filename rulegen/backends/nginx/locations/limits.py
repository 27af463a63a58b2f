"""Rate and connection limits for each client: shared memory zones, and directives that use them."""

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
"""Size of a zone: about 40,000 clients. In a full zone, nginx replaces the clients that were idle longest."""


def limit_mark(ingress: ObjectName | None, limits: Limits) -> str:
    """Return the identifier of an Ingress's zones. It is the same on all its hosts: their requests count together."""
    return mark(ingress, limits)


def limit_zones(name: str, limits: Limits) -> Iterator[Node]:
    """Yield the zones of an Ingress, and the maps that exempt clients from them.

    Args:
        name: Result of `limit_mark`. nginx cannot change the key of a zone while it runs; therefore the name depends
            on everything that defines the zone.
        limits: The limits.
    """
    key = variable("binary_remote_addr")
    if limits.exempt:
        entries: list[Node] = [Entry("default", "1", KeyKind.FIXED)]
        entries += [Entry(str(network), "0", KeyKind.FIXED) for network in limits.exempt]
        # Ingresses with equal exemptions share the variables: see `cookie_map`.
        exemption = mark(*limits.exempt)
        yield Directive("geo", ("$remote_addr", f"$counted_{exemption}"), tuple(entries))
        chosen = (Entry("default", "", KeyKind.FIXED), Entry("1", key))
        yield Directive("map", (variable(f"counted_{exemption}"), f"$client_{exemption}"), chosen)
        key = variable(f"client_{exemption}")
    for unit, rate in (("s", limits.rps), ("m", limits.rpm)):
        if rate:
            zone = f"zone=r{unit}_{name}:{ZONE_SIZE}"
            yield Directive("limit_req_zone", (key, zone, f"rate={rate}r/{unit}"))
    if limits.connections:
        yield Directive("limit_conn_zone", (key, f"zone=c_{name}:{ZONE_SIZE}"))


def limit_directives(name: str, limits: Limits) -> Iterator[Node]:
    """Yield the directives of a location."""
    for unit, rate in (("s", limits.rps), ("m", limits.rpm)):
        if rate:
            burst = (f"burst={rate * limits.burst_multiplier}", "nodelay") if limits.burst_multiplier else ()
            yield Directive("limit_req", (f"zone=r{unit}_{name}", *burst))
    if limits.connections:
        yield Directive("limit_conn", (f"c_{name}", str(limits.connections)))
    for directive, kibibytes in (("limit_rate", limits.rate), ("limit_rate_after", limits.rate_after)):
        if kibibytes is not None:
            yield Directive(directive, (f"{kibibytes}k" if kibibytes else "0",))
