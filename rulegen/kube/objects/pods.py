"""What a Pod's fields mean for endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import Container, Pod

_FINISHED: Final = frozenset({"Succeeded", "Failed"})


def addresses_of(pod: Pod) -> tuple[str, ...]:
    """Return the addresses of a Pod, of both families."""
    if pod.status.pod_ips:
        return tuple(entry.ip for entry in pod.status.pod_ips)
    return (pod.status.pod_ip,) if pod.status.pod_ip else ()


def can_be_endpoint(pod: Pod) -> bool:
    """Whether a Pod has an address and has not finished."""
    return pod.status.phase not in _FINISHED and bool(addresses_of(pod))


def is_ready(pod: Pod) -> bool:
    """Whether the condition Ready of a Pod is true."""
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions)


def running_containers(pod: Pod) -> tuple[Container, ...]:
    """Return the containers whose ports count, in order: all usual ones, then init containers that keep running."""
    if not pod.spec.init_containers:
        return pod.spec.containers
    return (*pod.spec.containers, *(each for each in pod.spec.init_containers if each.restart_policy == "Always"))
