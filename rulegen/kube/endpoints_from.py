"""Where the endpoints of Services come from."""

from __future__ import annotations

from enum import StrEnum


class EndpointsFrom(StrEnum):
    """Where the endpoints of a Service that has a selector come from.

    In all cases, those of a Service without a selector come from its EndpointSlices.

    Attributes:
        SLICES: From EndpointSlices.
        PODS: From Pods, and from EndpointSlices that the EndpointSlice controller does not write.
        AUTO: From EndpointSlices if the Service has one, else from Pods.
    """

    SLICES = "slices"
    PODS = "pods"
    AUTO = "auto"

    @property
    def has_pods(self) -> bool:
        """Whether Pods are needed."""
        return self is not EndpointsFrom.SLICES
