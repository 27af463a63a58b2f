"""The row of policy routing in the table of languages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.languages.keyed import KeyedLanguage
from rulegen.languages.language import Phase, Print, Task
from rulegen.languages.routes.script import RouteCommand, script
from rulegen.languages.routes.state import MarkRuleKey, format_routes, is_dump, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.diff.items import Drift
    from rulegen.languages.language import Part, PrintScope, Scene, WorkTerms
    from rulegen.net import Family

NAME = "routes"
FILE = "policy.routes"
"""The file of an export, for `xargs -L 1 ip`."""


class ChangeRoutes(msgspec.Struct, frozen=True):
    """Commands for rules and routes, in order."""

    commands: tuple[RouteCommand, ...]


class Routes(KeyedLanguage):
    """Policy routing: rules by packet mark, and local routes."""

    name = NAME

    def unseen(self, state: Any) -> str:
        """Return which objects were not read; empty if they were."""
        return f"policy routing ({FILE} of an export)" if state is None else ""

    def named(self, key: Any) -> tuple[str, str]:
        """Return the kind of an object, and its name."""
        return ("routing rule" if isinstance(key, MarkRuleKey) else "route", str(key))

    def text(self, key: Any, value: Any) -> str:  # noqa: ARG002 - the key is all
        """Return the arguments of `ip rule` or `ip route`."""
        return str(key)

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:  # noqa: ARG002 - nothing else shows it
        """Return None: no other object shows whether a rule or route existed."""
        return None

    def read_dump(self, text: str, source: str) -> Any:
        """Return the rules and routes of an export; None if the text is of another language.

        Raises:
            InputError: A line cannot be read.
        """
        return read(text, source) if is_dump(text) else None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the commands for `xargs -L 1 ip`, if there are any objects."""
        if wanted.objects:
            yield Print(FILE, format_routes(wanted.objects), "policy routing")

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:  # noqa: ARG002 - always the same order
        """Yield the commands: objects are added before the rules that set marks, and removed after them."""
        for family, part in parts.items():
            if family is None:
                continue
            added, removed = script(part.changes)
            if added:
                yield Task(Phase.DEVICES_ADDED, f"{family} policy routing, added: {len(added)}", ChangeRoutes(added))
            if removed:
                title = f"{family} policy routing, removed: {len(removed)}"
                yield Task(Phase.DEVICES_REMOVED, title, ChangeRoutes(removed))
