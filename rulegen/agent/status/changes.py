"""Changes of a status, for the publisher to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.agent.status.addresses import Entries
    from rulegen.apiserver.objects import Resource
    from rulegen.kube.objects.names import ObjectName


class StatusChange(NamedTuple):
    """A status to write.

    Attributes:
        kind: Content type of the patch.
        entries: What it publishes.
    """

    resource: Resource
    name: ObjectName
    kind: str
    document: dict[str, Any]
    entries: Entries


class StatusSource(Protocol):
    """A kind of object whose status publishes addresses."""

    def changes(self, live: Mapping[str, Entries]) -> Iterator[StatusChange]:
        """Yield the statuses that differ from the addresses of the nodes that serve."""

    def wrote(self, change: StatusChange) -> None:
        """Note that the API server has a change."""
