"""Routes: which requests go to which backends, independent of the kind of object that requests it.

`from_ingress` converts an Ingress to routes; other kinds can be converted likewise. `routes.Routing` then decides where
requests go.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectKey, ObjectName
    from rulegen.kube.objects.structs import ServiceBackendPort
    from rulegen.model.ingress.ir import LocationPolicy


class PathKind(enum.Enum):
    """How a path is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    """By path elements: `/foo` matches `/foo` and everything below `/foo/`."""
    EXPRESSION = "expression"
    EXACT_EXPRESSION = "exact expression"
    """An expression that has priority over other expressions of the same text, like an exact path."""

    @property
    def is_exact(self) -> bool:
        """Whether the path has the priority of an exact path."""
        return self is PathKind.EXACT or self is PathKind.EXACT_EXPRESSION

    @property
    def is_expression(self) -> bool:
        """Whether the path is an expression."""
        return self is PathKind.EXPRESSION or self is PathKind.EXACT_EXPRESSION


class PathMatch(Struct, frozen=True):
    """A condition for the path of a request."""

    kind: PathKind
    value: str


class ValueMatch(Struct, frozen=True):
    """A condition for a header or a query parameter of a request."""

    name: str
    value: str
    is_expression: bool = False


class RouteMatch(Struct, frozen=True):
    """The conditions that a request must all meet; an empty method matches any."""

    path: PathMatch = PathMatch(PathKind.PREFIX, "/")
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()

    @property
    def is_path_alone(self) -> bool:
        """Whether the path is the only condition."""
        return not (self.method or self.headers or self.query)


class WeightedBackend(Struct, frozen=True):
    """A backend of a route.

    Attributes:
        service: The Service; None if the backend is of another kind.
        port: Its port; None if the backend is of another kind.
        field: Its field in the source.
        weight: Its share of the requests, relative to the other backends of the route.
        kind: The kind of the backend if it is not a Service.
    """

    service: ObjectName | None
    port: ServiceBackendPort | None
    field: str
    weight: int = 1
    kind: str = ""


class Route(Struct, frozen=True):
    """Conditions, and the backends of requests that meet them.

    Attributes:
        hosts: Host names; an empty name stands for hosts without rules. Without any name: requests that no route
            matches.
        matches: Alternatives, one of which a request must meet. Without any: requests that no other route of the host
            matches.
        filters: How the requests are served.
        backends: The backends; empty if the source only claims the hosts.
        source: The object that requests the route.
        field: Its field in the source, for example `spec.rules[0].http.paths[1]`.
    """

    hosts: tuple[str, ...]
    matches: tuple[RouteMatch, ...]
    filters: LocationPolicy
    backends: tuple[WeightedBackend, ...]
    source: ObjectKey
    field: str
