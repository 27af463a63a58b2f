"""Changes a part of what a running HAProxy holds at once; the files follow with the whole configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.host.haproxy import worker
from rulegen.languages.haproxy import reports
from rulegen.languages.haproxy.commands import changes
from rulegen.languages.haproxy.parser import UnreadableError
from rulegen.languages.haproxy.runtime import RuntimeState, holds, servers_of
from rulegen.languages.haproxy.text import UnwritableError, socket_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rulegen.languages.haproxy.parts import StatePart
    from rulegen.languages.haproxy.runtime import RuntimeServer, ServerKey


def move(folder: Path, texts: Mapping[str, str], digest: str) -> bool:
    """Return whether the worker of a folder now has these servers, and no others, in these backends.

    Args:
        folder: The folder of the supervisor.
        texts: The servers, by backend.
        digest: That of the configuration that the worker must serve; otherwise nothing is changed.
    """
    try:
        wanted = {key: server for text in texts.values() for key, server in servers_of(text).items()}
        asking = [socket_command("show", "servers", "state", name) for name in texts]
        with worker.connected(folder) as link:
            served, *reported = link.ask_all([worker.ASKS_DIGEST, *asking])
            if reports.read_variable(served) != digest:
                return False
            commands = changes(RuntimeState(servers=_servers(reported)), RuntimeState(servers=wanted), (), {})
            answers = link.ask_all([*commands.additions, *commands.removals, *asking])
            held = _servers(answers[len(answers) - len(asking) :])
    except (OSError, UnreadableError, UnwritableError):
        return False
    is_unused = (not server.is_ready for key, server in held.items() if key not in wanted)
    return all(held.get(key) == server.reported for key, server in wanted.items()) and all(is_unused)


def give(folder: Path, part: StatePart, secrets: Mapping[str, bytes], digest: str) -> bool:
    """Return whether the worker of a folder now holds a part of a state.

    Args:
        folder: The folder of the supervisor.
        part: All that the worker may hold otherwise.
        secrets: The contents of certificates by path.
        digest: That of the configuration that the worker must serve; otherwise nothing is changed.
    """
    try:
        with worker.connected(folder) as link:
            if worker.digest(link) != digest:
                return False
            part = worker.known_part(link, part)
            seen = worker.held_part(link, part)
            worker.change(link, changes(seen.state, part.state, seen.listed, secrets, part.entries))
            return worker.has_entries(link, part) and holds(worker.held_part(link, part).state, part.state)
    except (OSError, UnreadableError, UnwritableError):
        return False


def _servers(answers: Iterable[str]) -> dict[ServerKey, RuntimeServer]:
    """Return the servers of backends from what HAProxy reports of each.

    Raises:
        UnreadableError: A report has another form, as for a backend that it has not.
    """
    return {key: server for text in answers for key, server in reports.read_servers(text).items()}
