"""Changes of a running HAProxy as commands for its socket. Additions come first, so that no request is lost between.

The entries of a map are replaced together, in one transaction, or few of them one by one. A certificate is loaded
before its names are listed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.languages.haproxy.text import UnwritableError, certificate_line, map_line, socket_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.haproxy.parts import EntryChanges
    from rulegen.languages.haproxy.reports import ListedNames
    from rulegen.languages.haproxy.runtime import RuntimeServer, RuntimeState, ServerKey

MOST_PAYLOAD: Final = 24_000
"""Bytes of a payload; the buffer of HAProxy has 32,768."""


class MapEntries(NamedTuple):
    """The new entries of a map, which replace all others at once.

    Attributes:
        path: The path of the map.
        payloads: The entries as lines, in parts that fit into the buffer of HAProxy.
    """

    path: str
    payloads: tuple[str, ...]

    @property
    def begin(self) -> str:
        """The command that begins the transaction; its answer has the version."""
        return socket_command("prepare", "map", self.path)

    def adding(self, version: int) -> Iterator[str]:
        """Yield the commands that add the entries to a version."""
        for payload in self.payloads:
            yield _with_payload(payload, "add", "map", f"@{version}", self.path)

    def commit(self, version: int) -> str:
        """Return the command that ends the transaction."""
        return socket_command("commit", "map", f"@{version}", self.path)


class SingleEntries(NamedTuple):
    """Entries of a map that change one by one.

    Attributes:
        path: The path of the map.
        commands: The commands, in the order of `EntryChanges`.
    """

    path: str
    commands: tuple[str, ...]


class RuntimeChanges(NamedTuple):
    """Changes of a running HAProxy.

    Attributes:
        additions: Commands that add servers and certificates.
        maps: Maps of which all entries change, or single ones.
        removals: Commands that remove names, certificates and servers.
    """

    additions: tuple[str, ...]
    maps: tuple[MapEntries | SingleEntries, ...]
    removals: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.additions or self.maps or self.removals)


def changes(
    before: RuntimeState,
    after: RuntimeState,
    listed: Sequence[ListedNames],
    secrets: Mapping[str, bytes],
    entries: Mapping[str, EntryChanges] = MappingProxyType({}),
) -> RuntimeChanges:
    """Return the commands that turn the state of a running HAProxy into another one with the same structure.

    Args:
        before: What HAProxy holds.
        after: What it shall hold.
        listed: The list of certificates of the running HAProxy, with the numbers of its lines.
        secrets: The contents of certificates by path.
        entries: Maps of which only single entries change, by path.

    Raises:
        UnwritableError: HAProxy cannot be given a value over its socket.
    """
    added, obsolete = _certificates(before, after, listed, secrets)
    whole = (
        MapEntries(path, tuple(_parts(map_line(*entry) for entry in wanted)))
        for path, wanted in after.maps.items()
        if before.maps.get(path, wanted) != wanted
    )
    single = (SingleEntries(path, tuple(_entry_commands(path, changed))) for path, changed in entries.items())
    maps: tuple[MapEntries | SingleEntries, ...] = (*whole, *single)
    return RuntimeChanges(
        additions=(*_added_servers(before.servers, after.servers), *added),
        maps=tuple(sorted(maps, key=lambda each: (_LAST.find(each.path), each.path))),
        removals=(*obsolete, *_removed_servers(before.servers, after.servers)),
    )


def _entry_commands(path: str, changed: EntryChanges) -> Iterator[str]:
    for part in _parts(map_line(*entry) for entry in changed.added):
        yield _with_payload(part, "add", "map", path)
    for entry in changed.replaced:
        map_line(*entry)
        yield socket_command("set", "map", path, *entry)
    for key in changed.removed:
        yield socket_command("del", "map", path, key)


def set_variable(name: str, digest: str) -> tuple[str, ...]:
    """Return the commands that give a variable of HAProxy a text; HAProxy 2.6 calls this experimental."""
    return socket_command("experimental-mode", "on"), socket_command("set", "var", name, f"str({digest})")


def _added_servers(
    before: Mapping[ServerKey, RuntimeServer], after: Mapping[ServerKey, RuntimeServer]
) -> Iterator[str]:
    for key, server in after.items():
        had = before.get(key)
        if had == server.reported:
            continue
        name = "/".join(key)
        if had is None:
            where = f"[{server.address}]:{server.port}" if ":" in server.address else f"{server.address}:{server.port}"
            yield socket_command("add", "server", name, where, *server.options)
            if "check" in server.options:
                yield socket_command("enable", "health", name)
        elif (had.address, had.port) != (server.address, server.port):
            yield socket_command("set", "server", name, "addr", server.address, "port", str(server.port))
        if had is not None and had.weight != server.weight:
            yield socket_command("set", "server", name, "weight", str(server.weight))
        if had is None or not had.is_ready:
            yield socket_command("set", "server", name, "state", "ready")


def _removed_servers(
    before: Mapping[ServerKey, RuntimeServer], after: Mapping[ServerKey, RuntimeServer]
) -> Iterator[str]:
    """Yield the removal of servers. One with open connections takes no new ones, and is deleted by a later change."""
    for key in before.keys() - after.keys():
        name = "/".join(key)
        yield socket_command("set", "server", name, "state", "maint")
        yield socket_command("del", "server", name)


def _certificates(
    before: RuntimeState, after: RuntimeState, listed: Sequence[ListedNames], secrets: Mapping[str, bytes]
) -> tuple[list[str], list[str]]:
    added: list[str] = []
    for path, fingerprint in after.certificates.items():
        if path not in before.certificates:
            added.append(socket_command("new", "ssl", "cert", path))
        if before.certificates.get(path) != fingerprint:
            added.append(_with_payload(_pem(secrets[path]), "set", "ssl", "cert", path))
            added.append(socket_command("commit", "ssl", "cert", path))
    wanted = list(after.names)
    obsolete: list[str] = []
    for line in listed:
        if (line.path, line.names) in wanted:
            wanted.remove((line.path, line.names))
        else:
            obsolete.append(socket_command("del", "ssl", "crt-list", _LIST, f"{line.path}:{line.line}"))
    added += [_with_payload(f"{certificate_line(*line)}\n", "add", "ssl", "crt-list", _LIST) for line in wanted]
    unused = before.certificates.keys() - after.certificates.keys()
    obsolete += [socket_command("del", "ssl", "cert", path) for path in sorted(unused)]
    return added, obsolete


_LAST: Final = "maps/canaries.map maps/slots.map maps/exact.map maps/prefix.map maps/hosts.map"
"""Maps that lead requests to what other maps and servers are for: they change last, in this order."""
_LIST: Final = "certificates.list"


def _with_payload(payload: str, *words: str) -> str:
    """Return a command with lines behind it; none of them may be empty, since an empty line is the end.

    Raises:
        UnwritableError: A line is empty, or the payload is larger than the buffer of HAProxy.
    """
    if (
        len(payload.encode()) > MOST_PAYLOAD
        or not payload.endswith("\n")
        or any(not x for x in payload[:-1].split("\n"))
    ):
        raise UnwritableError("a payload for HAProxy's socket is too large, or has an empty line")
    return f"{socket_command(*words)[:-1]} <<\n{payload}\n"


def _pem(content: bytes) -> str:
    """Return the lines of a file with certificates and a key, without empty ones.

    Raises:
        UnwritableError: It is not text.
    """
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise UnwritableError("a certificate is not text") from None
    return "".join(f"{line}\n" for line in lines if line.strip())


def _parts(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines in parts that fit into the buffer of HAProxy."""
    part: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode()) + 1
        if part and size + length > MOST_PAYLOAD:
            yield "".join(part)
            part, size = [], 0
        part.append(f"{line}\n")
        size += length
    if part:
        yield "".join(part)
