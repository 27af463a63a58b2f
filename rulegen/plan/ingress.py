"""Changes of the configuration of an ingress engine; the same for all engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from rulegen.diff.items import Item


EVERY_OTHER: Final = "every other host"
"""Name of the item of the default server."""
DEFAULT_SERVER: Final = "default server"
"""How that item is displayed."""


class IngressPlan(msgspec.Struct, frozen=True):
    """Changes for the engine that serves Ingresses, and what its program must do for them.

    Attributes:
        engine: Name of the engine, which is also the language of the items.
        items: The changes, in display order.
        reload: Whether the program must read its configuration again; otherwise changes are made while it runs.
        runs: Whether the program runs.
        ends: Whether the program stops and its folder is deleted.
    """

    engine: str
    items: tuple[Item, ...] = ()
    reload: bool = False
    runs: bool = True
    ends: bool = False

    @property
    def changes_program(self) -> bool:
        """Whether the program is started, stopped or changed while it runs."""
        return bool(self.items) or self.reload
