"""Names of objects, and validated objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rulegen.kube.objects.kinds import KubeObject


class ObjectName(NamedTuple):
    """Namespace and name of an object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ObjectKey(NamedTuple):
    """Kind and name of an object that others refer to."""

    kind: str
    name: ObjectName

    def __str__(self) -> str:
        return f"{self.kind} {self.name if self.name.namespace else self.name.name}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A typed object that is valid.

    Attributes:
        object: The object, with its namespace and the defaults of the API.
        source: Its file and position, or the API server.
        warnings: Warnings about ignored entries, one line each.
    """

    object: KubeObject
    source: str
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> ObjectName:
        """The name of the object."""
        metadata = self.object.metadata
        return ObjectName(metadata.namespace, metadata.name)

    def is_same(self, other: Decoded) -> bool:
        """Return whether both have the same object, wherever they come from."""
        return self.object == other.object
