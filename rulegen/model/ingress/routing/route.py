"""Routes: what objects of any kind ask of requests, in words of no kind.

An Ingress compiles to routes (`from_ingress`), and so can any other kind; `routes.Routing` decides where they lead.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectKey, ObjectName
    from rulegen.kube.objects.structs import ServiceBackendPort
    from rulegen.model.ingress.ir import LocationPolicy


class PathKind(enum.Enum):
    """How a path is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    """By whole elements: `/foo` is `/foo` and all below `/foo/`."""
    EXPRESSION = "expression"
    EXACT_EXPRESSION = "exact expression"
    """An expression that comes before others of the same text, as an exact path does."""

    @property
    def is_exact(self) -> bool:
        """Whether the whole path is compared, or comes first as if it were."""
        return self is PathKind.EXACT or self is PathKind.EXACT_EXPRESSION

    @property
    def is_expression(self) -> bool:
        """Whether the path is an expression."""
        return self is PathKind.EXPRESSION or self is PathKind.EXACT_EXPRESSION


class PathMatch(NamedTuple):
    """A path that requests have."""

    kind: PathKind
    value: str


class ValueMatch(NamedTuple):
    """A header or a parameter of the query that requests have, and its value."""

    name: str
    value: str
    is_expression: bool = False


class RouteMatch(NamedTuple):
    """What a request must be: all of it; an empty method is any."""

    path: PathMatch = PathMatch(PathKind.PREFIX, "/")
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()

    @property
    def is_path_alone(self) -> bool:
        """Whether nothing but the path counts."""
        return not (self.method or self.headers or self.query)


class WeightedBackend(NamedTuple):
    """A Service that requests are passed to.

    Attributes:
        service: Its name; None if the backend is of another kind.
        port: Its port; None if the backend is of another kind.
        field: Where in the source the backend stands.
        weight: Its share of the requests, in proportion to the other backends of the route.
        kind: The other kind.
    """

    service: ObjectName | None
    port: ServiceBackendPort | None
    field: str
    weight: int = 1
    kind: str = ""


class Route(NamedTuple):
    """Which requests go where.

    Attributes:
        hosts: Names; an empty one stands for every name that nobody has. None at all: what no other route takes.
        matches: A request must be one of these; none at all: what no other route of the host takes.
        filters: What is done with requests and answers on the way.
        backends: None where the source only claims the hosts.
        source: The object that requests it.
        field: Where in the source, as `spec.rules[0].http.paths[1]`.
    """

    hosts: tuple[str, ...]
    matches: tuple[RouteMatch, ...]
    filters: LocationPolicy
    backends: tuple[WeightedBackend, ...]
    source: ObjectKey
    field: str
