"""External addresses that ipvs mode binds to this node, though an endpoint elsewhere has them.

The kernel takes what goes to a bound address for its own, so this node cannot reach that endpoint any more: another
node, an API server, a Pod of its host's network (kubernetes/kubernetes#127410). Other Nodes' addresses that are known
from their objects are the concern of `rulegen.model.services`; endpoints are known live too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.kube.world import ObjectName, ServiceInput
    from rulegen.model.ir import Service
    from rulegen.model.nodes import Site


def bound_endpoints(
    services: Iterable[Service], inputs: Mapping[ObjectName, ServiceInput], site: Site
) -> Iterator[str]:
    """Yield a warning for each external address of a Service that is an endpoint's, too.

    Args:
        services: As this node serves them.
        inputs: The same with their EndpointSlices.
        site: Whose own addresses, and endpoints on it, do not count.
    """
    own = {*site.addresses.values(), *site.others}
    binders: dict[str, ObjectName] = {}
    for service in services:
        for port in service.ports:
            for address in (*port.external_ips, *port.load_balancer_ips):
                if address not in own:
                    binders.setdefault(str(address), service.name)
    if not binders:
        return
    named: set[str] = set()
    for name in sorted(inputs):
        for slice_ in inputs[name].slices:
            for endpoint in slice_.endpoints:
                text = endpoint.addresses[0] if endpoint.addresses else ""
                if text in binders and text not in named and endpoint.node_name != site.place.node:
                    named.add(text)
                    yield (
                        f"Service {binders[text]}: {text} is an endpoint of Service {name}: ipvs mode binds it to this"
                        " node, which cannot reach that endpoint any more"
                    )
