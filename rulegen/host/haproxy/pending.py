"""The part of a configuration that a running HAProxy gets at once, while the reload for the rest waits.

A reload within 30 s of another one waits, unless it is urgent: it is if a path that is served gets other rules, or
if something changes that holds for all. New hosts and paths of a new kind wait; endpoints and certificates do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.names import ADDRESSES, AUTH_SERVERS, CANARIES, EXACT, FRONTEND, HOSTS, PREFIX, SHARES
from rulegen.languages.haproxy.runtime import CONFIG, MAPS, state_of, structural_secrets

if TYPE_CHECKING:
    from rulegen.languages.configuration import Configuration
    from rulegen.languages.haproxy.runtime import RuntimeState

RELOAD_PAUSE_S: Final = 30.0
HINDERED_S: Final = 5.0
"""A reload is tried again after this time while the master of HAProxy hangs."""
_BLOCKS: Final = " return "


def state_meanwhile(held: RuntimeState, before: Configuration, after: Configuration) -> RuntimeState | None:
    """Return the part of a new configuration that needs no reload; None if the reload must not wait.

    Args:
        held: What HAProxy holds.
        before: The configuration that it has read.
        after: The new configuration, with another structure.
    """
    had, wanted = _sections(before), _sections(after)
    if not _may_wait(before, after, had, wanted):
        return None
    state = state_of(after)
    maps = dict(held.maps)
    for path in {HOSTS, EXACT, PREFIX, SHARES, ADDRESSES, AUTH_SERVERS, CANARIES} & maps.keys():
        entries = []
        old = dict(maps[path])
        for key, value in state.maps.get(path, ()):
            if path not in {EXACT, PREFIX} or value in had:
                entries.append((key, value))
            elif key in old:
                return None
        maps[path] = tuple(entries)
    both = had.keys() & wanted.keys()
    servers = {key: server for key, server in held.servers.items() if key.backend not in both}
    servers |= {key: server for key, server in state.servers.items() if key.backend in both}
    return replace(state, structure=held.structure, digest=held.digest, servers=servers, maps=maps)


def _may_wait(
    before: Configuration, after: Configuration, had: dict[str, list[str]], wanted: dict[str, list[str]]
) -> bool:
    """Return whether the structures differ only in additions: backends, hosts with expressions, canaries."""
    if structural_secrets(before) != structural_secrets(after):
        return False
    if before.files["certificates.list"].partition("\n")[0] != after.files["certificates.list"].partition("\n")[0]:
        return False
    others = (path for path in before.files if path != CONFIG and not path.startswith(MAPS) and path.endswith(".lua"))
    if any(before.files[path] != after.files.get(path) for path in others):
        return False
    if any(had[name] != wanted[name] for name in had.keys() & wanted.keys() if name != FRONTEND):
        return False
    lines, new = had.get(FRONTEND, []), wanted.get(FRONTEND, [])
    added = set(new) - set(lines)
    return not set(lines) - set(new) and not any(_BLOCKS in line for line in added)


def _sections(configuration: Configuration) -> dict[str, list[str]]:
    """Return the lines of each section by its name, without servers and digests; sections without a name by kind."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in configuration.files.get(CONFIG, "").splitlines():
        if not line.startswith("    "):
            current = sections.setdefault(line.partition(" ")[2] or line, []) if line else []
        elif not line.startswith(("    server ", "    description ", "    set-var ")):
            current.append(line)
    return sections
