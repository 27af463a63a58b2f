"""`rulegen.io/weights`: the weights of the endpoints of a Service.

The value is a JSON object. Each key is the name of a Pod, or `node:LABEL=VALUE` for endpoints on nodes with this label.
LABEL is `topology.kubernetes.io/zone` or `kubernetes.io/hostname`: EndpointSlices contain only these two. A value is a
weight from 1 to 65535. The name of a Pod precedes labels, and the first matching label applies. All other endpoints
have weight 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.errors import Fault
from rulegen.kube.reading.json_text import plain_json
from rulegen.kube.syntax import is_label_value, is_subdomain
from rulegen.model.services.annotations.annotation import InvalidAnnotationError, ServiceAnnotation
from rulegen.text import described, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.structs import SliceEndpoint

WEIGHT_MAX: Final = 65535
_MOST: Final = 1000
_NODE: Final = "node:"
_ZONE_LABEL: Final = "topology.kubernetes.io/zone"
_HOST_LABEL: Final = "kubernetes.io/hostname"
_EXPECTED: Final = 'expected an object such as {"pod-a": 3}'


class EndpointWeights(msgspec.Struct, frozen=True):
    """The weights of a Service's endpoints.

    Attributes:
        pods: Weight by name of the Pod.
        nodes: Label of a node, its value, and the weight, in the order of the annotation.
    """

    pods: Mapping[str, int]
    nodes: tuple[tuple[str, str, int], ...]

    def of(self, endpoint: SliceEndpoint) -> int:
        """Return the weight of an endpoint; 1 if no entry matches it."""
        target = endpoint.target_ref
        if target is not None and target.kind == "Pod" and target.name in self.pods:
            return self.pods[target.name]
        labels = {_ZONE_LABEL: endpoint.zone, _HOST_LABEL: endpoint.node_name}
        return next((weight for label, value, weight in self.nodes if value and labels[label] == value), 1)


def read_weights(text: str) -> EndpointWeights | None:
    """Return the weights in a text; None if it is an empty object.

    Raises:
        InvalidAnnotationError: The text is invalid; the error has all faults.
    """
    try:
        entries: Any = plain_json(text.encode())
    except ValueError as error:
        raise InvalidAnnotationError([Fault("", f": {error}; {_EXPECTED}")]) from None
    if not isinstance(entries, dict):
        raise InvalidAnnotationError([Fault("", f": {_EXPECTED}, not {described(entries)}")])
    if len(entries) > _MOST:
        raise InvalidAnnotationError([Fault("", f": {len(entries)} entries are more than {_MOST}")])
    pods: dict[str, int] = {}
    nodes: list[tuple[str, str, int]] = []
    faults: list[Fault] = []
    for who, weight in entries.items():
        label, equals, value = who.removeprefix(_NODE).partition("=")
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= WEIGHT_MAX:
            problem = f"{described(weight)} is not a weight (1–{WEIGHT_MAX})"
        elif not who.startswith(_NODE):
            problem = "" if is_subdomain(who) else "expected the name of a Pod, or node:LABEL=VALUE"
            pods[who] = weight
        elif label not in {_ZONE_LABEL, _HOST_LABEL}:
            problem = f"expected node:{_ZONE_LABEL}=VALUE or node:{_HOST_LABEL}=VALUE"
        else:
            has_value = equals and value and (is_label_value(value) or is_subdomain(value))
            problem = "" if has_value else "expected the value of a label after ="
            nodes.append((label, value, weight))
        if problem:
            faults.append(Fault(f'["{printable(who)}"]', problem))
    if faults:
        raise InvalidAnnotationError(faults)
    return EndpointWeights(pods, tuple(nodes)) if entries else None


WEIGHTS: Final = ServiceAnnotation(
    "weights",
    read_weights,
    None,
    "weights of endpoints, see [below](#weights); if the value is invalid, all endpoints have the same weight",
    otherwise="all endpoints have the same weight",
)
