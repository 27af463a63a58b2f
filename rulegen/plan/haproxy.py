"""Changes of HAProxy's configuration, file by file, and differences between its running worker and its files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.diff.changes import diff
from rulegen.diff.items import Action, Drift, Item, Line
from rulegen.languages.haproxy.runtime import state_of, structure_of
from rulegen.plan.proxy import PlannedProxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.languages.configuration import Configuration
    from rulegen.languages.haproxy.runtime import RuntimeServer, RuntimeState
    from rulegen.plan.ingress import IngressPlan

LANGUAGE: Final = "haproxy"
MAIN: Final = "haproxy.cfg"
_DIGESTS: Final = re.compile(
    r"(?<=^    description )[0-9a-f]{32}$|(?<=^    set-var proc\.digest str\()[0-9a-f]{32}(?=\)$)", re.MULTILINE
)
HAPROXY: Final = PlannedProxy(LANGUAGE, MAIN, _DIGESTS, lambda path, _: ("file", path))


def plan_running(
    observed: Configuration | None, held: RuntimeState | None, desired: Configuration, served: str
) -> IngressPlan:
    """Return the changes of files and of the running HAProxy.

    Args:
        observed: The configuration on disk; None if there is none.
        held: What the running HAProxy holds; None if that is unknown.
        desired: The desired configuration.
        served: The digest that HAProxy answers; empty without an answer.
    """
    plan = HAPROXY.plan_site(observed, desired, {}, served)
    drift: tuple[Item, ...] = ()
    if observed is not None and held is not None and held.digest == observed.digest:
        wanted = state_of(observed)
        if held.structure == wanted.structure:
            drift = tuple(runtime_items(held, wanted))
    needs_reload = held is None or held.structure != structure_of(desired)
    items = (*plan.items, *drift)
    return replace(plan, items=items, reload=bool(items) and needs_reload)


def runtime_items(held: RuntimeState, wanted: RuntimeState) -> Iterator[Item]:
    """Yield items that repair what something else has changed over the socket of HAProxy."""
    unused = {key for key, server in held.servers.items() if key not in wanted.servers and not server.is_ready}
    there = {"/".join(key): server for key, server in held.servers.items() if key not in unused}
    meant = {"/".join(key): server.reported for key, server in wanted.servers.items()}
    for server in diff(there, meant):
        yield _item("server", server.key, _shown(server.before), _shown(server.after))
    for entries in diff(dict(held.maps), {path: wanted.maps.get(path, ()) for path in held.maps}):
        before, after = entries.before or (), entries.after or ()
        if before == after:
            continue
        there_now, meant_now = set(before), set(after)  # a map of all paths has tens of thousands of entries
        gone, new = [x for x in before if x not in meant_now], [x for x in after if x not in there_now]
        order = [" ".join(entry) for entry in before] if not gone and not new else []
        yield _item("map", entries.key, [" ".join(entry) for entry in gone] or order, [" ".join(each) for each in new])
    lines_held, lines_meant = sorted(held.names), sorted(wanted.names)
    if lines_held != lines_meant:
        gone_lines = [_names(line) for line in lines_held if line not in lines_meant]
        yield _item("names", "certificates.list", gone_lines, [_names(x) for x in lines_meant if x not in lines_held])
    for certificate in diff(dict(held.certificates), dict(wanted.certificates)):
        before_print, after_print = certificate.before, certificate.after
        yield _item(
            "certificate", certificate.key, [before_print] if before_print else [], [after_print] if after_print else []
        )


def _item(kind: str, name: str, gone: Sequence[str], new: Sequence[str]) -> Item:
    lines: Iterable[Line] = (*(Line("-", text) for text in gone), *(Line("+", text) for text in new))
    action = Action.CHANGE if gone and new else Action.ADD if new else Action.DELETE
    drift = Drift.FOREIGN if gone else Drift.MISSING
    return Item(action=action, language=LANGUAGE, family="", kind=kind, name=name, drift=drift, lines=tuple(lines))


def _shown(server: RuntimeServer | None) -> list[str]:
    if server is None:
        return []
    state = "" if server.is_ready else ", takes no new connections"
    where = f"[{server.address}]" if ":" in server.address else server.address
    return [f"{where}:{server.port} weight {server.weight}{state}"]


def _names(line: tuple[str, tuple[str, ...]]) -> str:
    path, names = line
    return " ".join((path, *names))
