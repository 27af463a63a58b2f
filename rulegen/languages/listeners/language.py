"""The row of the proxy in the table of languages."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.diff.items import ItemEndpoint
from rulegen.languages.keyed import KeyedLanguage
from rulegen.languages.language import Phase, Print, Task
from rulegen.languages.listeners.script import script
from rulegen.languages.listeners.state import (
    ProxyObject,
    format_proxy,
    is_proxy_dump,
    line,
    owner_of_pool,
    pool_of,
    read_proxy,
)
from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.diff.items import Drift
    from rulegen.languages.language import Part, PrintScope, Scene, WorkTerms
    from rulegen.languages.listeners.state import ProxyKey, ProxyValue
    from rulegen.net import Family

NAME = "listeners"
FILE = "services.proxy"
"""The file of an export."""


class ChangeProxy(msgspec.Struct, frozen=True):
    """Changes of the proxy's objects; None as a value deletes the object."""

    changes: tuple[tuple[ProxyKey, ProxyValue | None], ...]


class KeepProxy(msgspec.Struct, frozen=True):
    """Write the files of all changes that the proxy has taken at run time."""


class ProxyLanguage(KeyedLanguage):
    """Listeners, pools, servers and frontends of the proxy."""

    name = NAME

    def unseen(self, state: Any) -> str:
        """Return which objects were not read; empty if they were."""
        return f"the proxy ({FILE} of an export)" if state is None else ""

    def named(self, key: Any) -> tuple[str, str]:
        """Return the kind of an object, and its name."""
        of_udp = "udp " if key.protocol is Protocol.UDP else ""
        return f"{of_udp}{key.kind.name.lower()}", key.name or key.family.value

    def text(self, key: Any, value: Any) -> str:
        """Return the object on one line."""
        return line(key, value)

    def owner(self, change: Change[Any, Any], scene: Scene) -> str | None:
        """Return the Service of an object; that of an object that is not wanted any more is in the name of its pool."""
        known = super().owner(change, scene)
        pool = pool_of(change.key, change.before)
        return owner_of_pool(pool) if known is None and pool else known

    def endpoints(self, scene: Scene) -> Callable[[Change[Any, Any]], tuple[ItemEndpoint, ...]]:
        """Return what finds the endpoint of a server, for each frontend that its pool serves before or after."""
        frontends: defaultdict[str, set[str]] = defaultdict(set)
        for objects in (scene.ours[NAME], scene.desired.get(NAME, {})):
            for key, value in objects.items():
                if key.kind is ProxyObject.FRONTEND:
                    frontends[value.pool].add(self.frontend(key))

        def of(change: Change[Any, Any]) -> tuple[ItemEndpoint, ...]:
            key, before, after = change
            if key.kind is not ProxyObject.SERVER or (before is None) is (after is None):
                return ()
            pool, _, text = key.name.partition("/")
            return tuple(ItemEndpoint(before is None, of, text) for of in sorted(frontends[pool]))

        return of

    def frontend(self, key: ProxyKey) -> str:
        """Return what clients connect to; empty for other objects. The proxy serves only TCP."""
        return f"{Protocol.TCP} {key.name}" if key.kind is ProxyObject.FRONTEND else ""

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:  # noqa: ARG002 - nothing else shows it
        """Return None: no other object shows whether an object existed."""
        return None

    def read_dump(self, text: str, source: str) -> Any:
        """Return the objects of an export; None if the text is of another language.

        Raises:
            InputError: A line cannot be read.
        """
        return read_proxy(text, source) if is_proxy_dump(text) else None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the objects, one on each line, if there are any."""
        if wanted.objects:
            yield Print(FILE, format_proxy(wanted.objects), "proxy")

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:  # noqa: ARG002 - always the same order
        """Yield the changes: before the rules that lead connections to them, and removals after these rules are gone.

        A server leaves its pool at once if the pool stays: its endpoint may have ended already. Files of changes that
        are made at run time come last, because clients need not wait for them.
        """
        early, late = script([change for part in parts.values() for change in part.changes])
        for phase, verb, group in ((Phase.PROXY_ADDED, "", early), (Phase.PROXY_REMOVED, ", removed", late)):
            if group:
                work = ChangeProxy(tuple((change.key, change.after) for change in group))
                yield Task(phase, f"proxy{verb}: {_counted(group)}", work)
        if early or late:
            yield Task(Phase.PROXY_KEPT, "files of the proxy", KeepProxy())


def _counted(changes: list[Change[Any, Any]]) -> str:
    counts = {kind: sum(change.key.kind is kind for change in changes) for kind in ProxyObject}
    return ", ".join(f"{kind.name.lower()}s {count}" for kind, count in counts.items() if count)
