"""The language of an ingress engine that the tests alone have: one line for each server of each route.

shop.test / = 10.244.1.5:8080
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from rulegen.model.ingress.ir import ToUpstream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.model.ingress.ir import IngressModel


class Line(NamedTuple):
    """A server that requests of a host, or of every other one (`*`), may be passed to."""

    host: str
    path: str
    server: str


def compile_model(model: IngressModel) -> frozenset[Line]:
    """Return the lines of a model."""
    return frozenset(
        Line(server.host or "*", location.path, address)
        for server in model.servers.values()
        for location in server.locations
        if isinstance(location.target, ToUpstream)
        for address in model.upstreams[location.target.upstream].servers
    )


def format_lines(lines: Iterable[Line]) -> str:
    return "".join(f"{line.host} {line.path} = {line.server}\n" for line in sorted(lines))


def parse(text: str) -> frozenset[Line]:
    routes = (line.partition(" = ") for line in text.splitlines())
    return frozenset(Line(*route.split(" ", 1), server) for route, _, server in routes)


def digest(lines: Iterable[Line]) -> str:
    return hashlib.sha256(format_lines(lines).encode()).hexdigest()[:32]
