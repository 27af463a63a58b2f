"""What changes in the configuration of an ingress engine, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rulegen.diff.items import Item


EVERY_OTHER: Final = "every other host"
"""Name of the item of the default server."""


@dataclass(frozen=True, slots=True)
class IngressPlan:
    """What changes for the engine that serves Ingresses, and what its program must do for it.

    Attributes:
        engine: Name of the engine, which is the language of the items.
        items: What changes, in the order in which it is shown.
        reload: Whether the program must read its configuration again; without it, the changes are made while it runs.
        runs: Whether the program runs.
        ends: Whether the program ends and its folder is deleted.
    """

    engine: str
    items: tuple[Item, ...] = ()
    reload: bool = False
    runs: bool = True
    ends: bool = False

    @property
    def changes_program(self) -> bool:
        """Whether the program is started, ended, or changed in any way while it runs."""
        return bool(self.items) or self.reload
