"""Owned objects: what one owner needs on a node, in all languages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.net import Family


class OwnedObjects(msgspec.Struct, frozen=True):
    """What one owner (a Service, or the node itself) needs in one family.

    Attributes:
        owner: `namespace/name` of the Service; empty for the node.
        objects: The objects by language; several owners may need the same object. The language defines the type.
    """

    owner: str
    family: Family
    objects: Mapping[str, Any]
