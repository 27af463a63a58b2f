"""Reads the state of a worker of HAProxy over its socket, and changes it."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.haproxy.names import SERVED, WORD_MAPS
from rulegen.host.haproxy import status
from rulegen.languages.haproxy import reports
from rulegen.languages.haproxy.commands import SingleEntries, set_variable
from rulegen.languages.haproxy.parser import UnreadableError
from rulegen.languages.haproxy.runtime import CERTIFICATE_LIST, RuntimeState
from rulegen.languages.haproxy.text import socket_command

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from rulegen.languages.haproxy.commands import RuntimeChanges
    from rulegen.languages.haproxy.parts import StatePart

ASKS_DIGEST: Final = socket_command("get", "var", SERVED)
"""The command that asks a worker for the digest of the configuration that it serves."""
_TIMEOUT_S: Final = 20.0
_LONGEST: Final = 64 << 20
_PROMPT: Final = b"\n> "
_AT_ONCE: Final = 50
_VERSION: Final = re.compile(r"New version created: ([0-9]{1,10})")


class HeldState(NamedTuple):
    """What a worker holds.

    Attributes:
        state: The state.
        listed: The list of certificates, with the numbers of lines.
    """

    state: RuntimeState
    listed: tuple[reports.ListedNames, ...]


class WorkerSocket:
    """One connection to a worker."""

    def __init__(self, connection: socket.socket) -> None:
        """Take an open connection."""
        self._connection = connection
        self._deadline = time.monotonic() + _TIMEOUT_S
        self._rest = b""
        self.ask_all(["prompt\n"])

    def ask(self, command: str) -> str:
        """Return the answer to one command.

        Raises:
            OSError: There is no complete answer in time.
        """
        return self.ask_all([command])[0]

    def ask_all(self, commands: Sequence[str]) -> list[str]:
        """Return the answers to commands, in their order.

        Raises:
            OSError: There is no complete answer in time.
        """
        answers: list[str] = []
        for start in range(0, len(commands), _AT_ONCE):
            part = commands[start : start + _AT_ONCE]
            self._connection.settimeout(max(self._deadline - time.monotonic(), 0.001))
            self._connection.sendall("".join(part).encode())
            answers += (self._answer() for _ in part)
        return answers

    def _answer(self) -> str:
        pieces = [self._rest]
        size = len(self._rest)
        tail = self._rest
        while _PROMPT not in tail:
            self._connection.settimeout(max(self._deadline - time.monotonic(), 0.001))
            piece = self._connection.recv(1 << 18)
            size += len(piece)
            if not piece or size > _LONGEST:
                raise ConnectionError("the worker of HAProxy ends the answer too early, or its answer is too long")
            tail = tail[-(len(_PROMPT) - 1) :] + piece
            pieces.append(piece)
        text, _, self._rest = b"".join(pieces).partition(_PROMPT)
        return text.decode("utf-8", "replace")


@contextmanager
def connected(folder: Path) -> Iterator[WorkerSocket]:
    """Yield a connection to the worker that takes new connections.

    Raises:
        OSError: It does not answer.
    """
    descriptor = os.open(folder / "run", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(f"/proc/self/fd/{descriptor}/{status.WORKER_SOCKET}")
            yield WorkerSocket(connection)
    finally:
        os.close(descriptor)


def observe(folder: Path) -> HeldState | None:
    """Return the state of a folder's worker; None if it does not answer, or answers in an unknown format."""
    try:
        with connected(folder) as worker:
            return held(worker)
    except (OSError, UnreadableError):
        return None


def held(worker: WorkerSocket) -> HeldState:
    """Return the state of a worker.

    Raises:
        OSError: It does not answer.
        UnreadableError: It reports something in another form, or it is an old worker.
    """
    info, servers, variable, maps = worker.ask_all(["show info\n", "show servers state\n", ASKS_DIGEST, "show map\n"])
    said = status.fields(info)
    if said.get("Stopping") != "0":
        raise UnreadableError("an old worker answers")
    listed = _listed(worker)
    certificates = _certificates(worker, dict.fromkeys(line.path for line in listed))
    state = RuntimeState(
        structure=said.get("description", ""),
        digest=reports.read_variable(variable),
        servers=reports.read_servers(servers),
        maps=_maps(worker, reports.read_map_paths(maps)),
        names=tuple((line.path, line.names) for line in listed),
        certificates=certificates,
    )
    return HeldState(state, listed)


def held_part(worker: WorkerSocket, part: StatePart) -> HeldState:
    """Return what a worker holds of a part of a state, of which it has all backends and maps; not the single entries.

    Raises:
        OSError: It does not answer.
        UnreadableError: It reports something in another form, or it has no such backend.
    """
    servers = worker.ask_all([socket_command("show", "servers", "state", name) for name in part.backends])
    listed = _listed(worker) if part.has_names else ()
    there = {line.path for line in listed}
    certificates = _certificates(worker, [x for x in (*part.state.certificates, *part.obsolete) if x in there])
    state = RuntimeState(
        servers={key: server for text in servers for key, server in reports.read_servers(text).items()},
        maps=_maps(worker, [*part.state.maps]),
        names=tuple((line.path, line.names) for line in listed),
        certificates=certificates,
    )
    return HeldState(state, listed)


def known_part(worker: WorkerSocket, part: StatePart) -> StatePart:
    """Return a part without maps that no rule of a worker uses, so that it has none; errors are as for `held`."""
    paths = {*reports.read_map_paths(worker.ask("show map\n"))}
    return part.of_maps(paths)


def has_entries(worker: WorkerSocket, part: StatePart) -> bool:
    """Return whether a worker has all changes of entries of a part; errors are as for `held`."""
    asked: list[tuple[str, str, str | None]] = []
    for path, changed in part.entries.items():
        asked += ((path, key, value) for key, value in (*changed.added, *changed.replaced))
        asked += ((path, key, None) for key in changed.removed)
    answers = worker.ask_all([socket_command("get", "map", path, key) for path, key, _ in asked])
    for (_, key, value), answer in zip(asked, answers, strict=True):
        used = reports.read_entry(answer)
        if used != (key, value) if value is not None else used is not None and used[0] == key:
            return False
    return True


def _maps(worker: WorkerSocket, paths: Sequence[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the entries of maps by path; errors are as for `held`."""
    texts = worker.ask_all([socket_command("show", "map", path) for path in paths])
    entries = {path: reports.read_map_entries(text) for path, text in zip(paths, texts, strict=True)}
    # New entries are the last ones that HAProxy reports, whatever their keys are; files are sorted.
    return {path: tuple(sorted(own)) if path in WORD_MAPS else own for path, own in entries.items()}


def _listed(worker: WorkerSocket) -> tuple[reports.ListedNames, ...]:
    """Return the list of certificates; errors are as for `held`."""
    lines = worker.ask(socket_command("show", "ssl", "crt-list", "-n", CERTIFICATE_LIST))
    return reports.read_names(lines) if lines.startswith("#") else ()


def _certificates(worker: WorkerSocket, paths: Collection[str]) -> dict[str, str]:
    """Return the fingerprints of certificates by path; errors are as for `held`."""
    texts = worker.ask_all([socket_command("show", "ssl", "cert", path) for path in paths])
    return {path: reports.read_fingerprint(text) for path, text in zip(paths, texts, strict=True)}


def digest(worker: WorkerSocket) -> str:
    """Return the digest that a worker answers; empty without one.

    Raises:
        OSError: It does not answer.
    """
    return reports.read_variable(worker.ask(ASKS_DIGEST))


def change(worker: WorkerSocket, wanted: RuntimeChanges) -> None:
    """Give a worker the commands of changes. What it holds afterwards has to be read: answers are not compared.

    Raises:
        OSError: It does not answer.
        UnreadableError: It did not begin a transaction.
    """
    worker.ask_all(wanted.additions)
    for entries in wanted.maps:
        if isinstance(entries, SingleEntries):
            worker.ask_all(entries.commands)
            continue
        match = _VERSION.search(worker.ask(entries.begin))
        if match is None:
            raise UnreadableError(f"HAProxy does not change {entries.path}")
        version = int(match[1])
        worker.ask_all([*entries.adding(version), entries.commit(version)])
    worker.ask_all(wanted.removals)


def confirm(worker: WorkerSocket, digest: str) -> None:
    """Have a worker answer the digest of the configuration that it serves now.

    Raises:
        OSError: It does not answer.
    """
    worker.ask_all(set_variable(SERVED, digest))
