"""Names of objects, and objects that passed all checks."""

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
    """A typed object that passed all checks.

    Attributes:
        object: The object, with its namespace and the defaults of the API filled in.
        source: Where it came from.
        warnings: Entries that were passed over, one line each.
    """

    object: KubeObject
    source: str
    warnings: tuple[str, ...] = ()
