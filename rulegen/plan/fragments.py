"""Fragments: what one owner wants of a node, in all languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.net import Family


@dataclass(frozen=True, slots=True)
class OwnedObjects:
    """What one owner wants in one family: a Service, or the node itself.

    Attributes:
        owner: `namespace/name` of the Service; empty for the node.
        objects: What it wants, by language; several owners may want the same. The type is the language's own.
    """

    owner: str
    family: Family
    objects: Mapping[str, Any]
