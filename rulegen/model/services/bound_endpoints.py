"""Warns about external addresses of Services that are also addresses of endpoints.

In ipvs mode, the address is bound to this node. The kernel then delivers all packets to it locally, so this node can no
longer reach the endpoint, such as an API server or a Pod in the host's network (kubernetes/kubernetes#127410). In other
modes, only connections to the Service's ports are affected. `rulegen.model.services.service` handles addresses of other
Nodes.

Only a warning is given: an EndpointSlice may contain any address, so its author could take an address away from a
Service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import EndpointSlice
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.services.ir import ResolvedService
    from rulegen.model.services.node.context import NodeContext


def bound_endpoints(
    services: Iterable[ResolvedService], inputs: Mapping[ObjectName, ServiceInput], site: NodeContext
) -> Iterator[str]:
    """Yield a warning for each external address of a Service that is also the address of an endpoint.

    Args:
        services: The resolved Services.
        inputs: All Services with their EndpointSlices.
        site: The node; external addresses that are its own, or another Node's, are ignored.
    """
    own = {*site.addresses.values(), *site.others, *site.forbidden.own}
    binders: dict[str, dict[tuple[str, int], ObjectName]] = {}
    for service in services:
        for port in service.ports:
            for address in (*port.external_ips, *port.load_balancer_ips):
                if address not in own:
                    binders.setdefault(str(address), {}).setdefault((port.protocol, port.port), service.name)
    if not binders:
        return
    named: set[str] = set()
    for name in sorted(inputs):
        for slice_ in inputs[name].slices:
            for endpoint in slice_.endpoints:
                text = endpoint.addresses[0] if endpoint.addresses else ""
                if text not in binders or text in named:
                    continue
                if site.binds and endpoint.node_name != site.place.node:
                    named.add(text)
                    yield (
                        f"Service {next(iter(binders[text].values()))}: {text} is an endpoint of Service {name}:"
                        " ipvs mode binds this address to the node, so the node cannot reach that endpoint any more"
                    )
                elif (taker := _taker(binders[text], slice_)) not in {None, name}:
                    named.add(text)
                    yield (
                        f"Service {taker}: {text} is an endpoint of Service {name}:"
                        f" connections of this node to it reach {taker}"
                    )


def _taker(takers: Mapping[tuple[str, int], ObjectName], slice_: EndpointSlice) -> ObjectName | None:
    """Return the first Service that uses protocol and port of an endpoint at this address; None if there is none."""
    owners = (takers.get((port.protocol, port.port)) for port in slice_.ports if port.port)
    return next((taker for taker in owners if taker is not None), None)
