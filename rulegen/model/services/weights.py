"""What annotations of a Service say about how its connections are spread.

`rulegen.io/weights` is a JSON object: who, and the weight from 1 to 65535. Who is the name of a Pod, or
`node:LABEL=VALUE` for all endpoints on nodes with that label, where LABEL is one of the two that EndpointSlices tell
of: `topology.kubernetes.io/zone` and `kubernetes.io/hostname`. A Pod's name goes before a label, and of labels the
first that fits counts. Whoever is not named has weight 1.

`rulegen.io/ipvs-scheduler` is the name of an IPVS scheduler. Source: ipvsadm(8).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rulegen.errors import Fault
from rulegen.kube.reading.json_text import plain_json
from rulegen.kube.syntax import is_label_value, is_subdomain
from rulegen.text import described, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from rulegen.kube.objects.structs import Service, SliceEndpoint
    from rulegen.model.services.endpoints import Weigh

WEIGHTS = "rulegen.io/weights"
SCHEDULER = "rulegen.io/ipvs-scheduler"
PREFIX = "rulegen.io/"
ANNOTATIONS = (SCHEDULER, WEIGHTS)
"""All that mean something on a Service."""
WEIGHT_MAX = 65535
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos")
"""Those that kernels come with."""

_WEIGHTLESS = {"rr": "wrr", "lc": "wlc", "dh": "sh"}
"""Schedulers that look at no weight, each with its like that does. Source: ipvsadm(8)."""
_MOST = 1000
_MOST_UNKNOWN = 10
_NODE = "node:"
_ZONE_LABEL = "topology.kubernetes.io/zone"
_HOST_LABEL = "kubernetes.io/hostname"


def weights(service: Service, where: str, warn: Callable[[str], None]) -> Weigh | None:
    """Return how endpoints of a Service are weighed; None where all are alike.

    An annotation with a fault is not followed at all; every fault is told.
    """
    text = service.metadata.annotations.get(WEIGHTS)
    if text is None:
        return None
    path = f'metadata.annotations["{WEIGHTS}"]'
    pods: dict[str, int] = {}
    nodes: list[tuple[str, str, int]] = []
    faults = list(_read(text, pods, nodes))
    for fault in faults:
        warn(f"{where}: {path}{fault}; all endpoints have the same weight")
    if faults or not (pods or nodes):
        return None

    def weigh(endpoint: SliceEndpoint) -> int:
        target = endpoint.target_ref
        if target is not None and target.kind == "Pod" and target.name in pods:
            return pods[target.name]
        told = {_ZONE_LABEL: endpoint.zone, _HOST_LABEL: endpoint.node_name}
        return next((weight for label, value, weight in nodes if value and told[label] == value), 1)

    return weigh


def scheduler(service: Service, known: Collection[str] | None, where: str, warn: Callable[[str], None]) -> str:
    """Return the scheduler that a Service asks for; empty for none, or for one that cannot be.

    Args:
        service: The Service.
        known: What this node's kernel offers; None where nobody knows: then any that kernels come with will do.
        where: The Service, for messages.
        warn: Told of a name that cannot be followed.
    """
    name = service.metadata.annotations.get(SCHEDULER)
    offered = SCHEDULERS if known is None else known
    if name is None or name in offered:
        return name or ""
    expected = ", ".join(sorted(offered)) or "none here"
    warn(
        f'{where}: metadata.annotations["{SCHEDULER}"]: {quoted(name)} is no scheduler that this kernel offers'
        f" (expected one of {expected}); the node's own is used"
    )
    return ""


def tell_weightless(service: Service, scheduler: str, where: str, warn: Callable[[str], None]) -> None:
    """Warn where a Service asks for weights that its scheduler does not look at; an empty one is not that of IPVS."""
    if scheduler in _WEIGHTLESS and service.metadata.annotations.get(WEIGHTS):
        path = f'metadata.annotations["{WEIGHTS}"]'
        other = _WEIGHTLESS[scheduler]
        warn(f'{where}: {path}: the scheduler {scheduler} looks at no weight; one that does is {SCHEDULER}: "{other}"')


def warn_of_unknown(service: Service, where: str, warn: Callable[[str], None]) -> None:
    """Warn of each annotation under our prefix that means nothing, with the nearest one that does."""
    names = [name.removeprefix(PREFIX) for name in ANNOTATIONS]
    unknown = [key for key in sorted(service.metadata.annotations) if key not in ANNOTATIONS and _is_ours(key)]
    for key in unknown[:_MOST_UNKNOWN]:
        near = get_close_matches(key[len(PREFIX) :][:100].lower(), names, 1)
        meant = f'is "{PREFIX}{near[0]}" meant?' if near else f"expected one of {', '.join(ANNOTATIONS)}"
        warn(f"{where}: metadata.annotations[{quoted(key)}]: no such annotation of a Service is known; {meant}")
    if len(unknown) > _MOST_UNKNOWN:
        warn(f"{where}: metadata.annotations: {len(unknown) - _MOST_UNKNOWN} more under {PREFIX} are not known either")


def _is_ours(key: str) -> bool:
    return key[: len(PREFIX)].lower() == PREFIX


def _read(text: str, pods: dict[str, int], nodes: list[tuple[str, str, int]]) -> Iterator[Fault]:
    """Sort the entries in, and yield every fault; its path begins behind the annotation's name."""
    try:
        told: Any = plain_json(text.encode())
    except ValueError as error:
        yield Fault("", f': {error}; expected an object such as {{"pod-a": 3}}')
        return
    if not isinstance(told, dict):
        yield Fault("", f': expected an object such as {{"pod-a": 3}}, not {described(told)}')
        return
    if len(told) > _MOST:
        yield Fault("", f": {len(told)} entries are more than {_MOST}")
        return
    for who, weight in told.items():
        path = f'["{printable(who)}"]'
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= WEIGHT_MAX:
            yield Fault(path, f"{described(weight)} is no weight (1–{WEIGHT_MAX})")
        elif not who.startswith(_NODE):
            if is_subdomain(who):
                pods[who] = weight
            else:
                yield Fault(path, "expected the name of a Pod, or node:LABEL=VALUE")
        else:
            label, equals, value = who.removeprefix(_NODE).partition("=")
            if label not in {_ZONE_LABEL, _HOST_LABEL}:
                yield Fault(path, f"expected node:{_ZONE_LABEL}=VALUE or node:{_HOST_LABEL}=VALUE")
            elif not (equals and value and (is_label_value(value) or is_subdomain(value))):
                yield Fault(path, "expected the value of a label behind =")
            else:
                nodes.append((label, value, weight))
