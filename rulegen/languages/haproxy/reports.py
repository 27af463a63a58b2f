"""Reads what a running HAProxy reports over its socket, as the state that its files describe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.languages.haproxy.parser import UnreadableError
from rulegen.languages.haproxy.runtime import MAPS, RuntimeServer, ServerKey, usual

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT: Final = "1"
_IN_MAINTENANCE: Final = 0x2F
"""Bits of an administrative state in which a server takes no new connection: maintenance and drain."""
_MAP: Final = re.compile(r"-?[0-9]+ \((?P<path>[^)]*)\)")
_ENTRY: Final = re.compile(r"0x[0-9a-f]+ (?P<key>\S+) (?P<value>.+)")
_USED: Final = re.compile(r", key=\"(?P<key>.*)\", value=\"(?P<value>.*)\", type=\"str\"")
_LISTED: Final = re.compile(r"(?P<path>\S+):(?P<line>[0-9]+)(?: \[[^\]]*\])?(?P<names>(?: \S+)*)")
_FINGERPRINT: Final = re.compile(r"^SHA1 FingerPrint: (?P<digits>[0-9A-F]{40})$", re.MULTILINE)
_VARIABLE: Final = re.compile(r"\S+: type=str value=<(?P<value>[0-9a-f]*)>")


class ListedNames(NamedTuple):
    """A line of the list of certificates of a running HAProxy.

    Attributes:
        path: The path of the certificate.
        names: The names of TLS.
        line: The number of the line, by which it is deleted.
    """

    path: str
    names: tuple[str, ...]
    line: int


def _rows(report: str) -> Iterator[str]:
    return (row for row in report.split("\n") if row and not row.startswith("#"))


def read_servers(report: str) -> dict[ServerKey, RuntimeServer]:
    """Return the servers of `show servers state`.

    Raises:
        UnreadableError: It has another form.
    """
    rows = _rows(report)
    if next(rows, "") != _FORMAT:
        raise UnreadableError("HAProxy reports servers in an unknown format")
    servers = {}
    for row in rows:
        words = row.split(" ")
        try:
            key = ServerKey(words[1], words[3])
            is_ready = not int(words[6]) & _IN_MAINTENANCE
            servers[key] = RuntimeServer(usual(words[4]), int(words[18]), int(words[7]), is_ready)
        except (IndexError, ValueError):
            raise UnreadableError(f"HAProxy reports a server in an unknown format: {row[:80]!a}") from None
    return servers


def read_map_paths(report: str) -> list[str]:
    """Return the paths of our maps in `show map` without a path."""
    matches = (_MAP.match(row) for row in _rows(report))
    return sorted({match["path"] for match in matches if match is not None and match["path"].startswith(MAPS)})


def read_map_entries(report: str) -> tuple[tuple[str, str], ...]:
    """Return the entries of `show map` with a path, in order.

    Raises:
        UnreadableError: It has another form.
    """
    entries = []
    for row in report.split("\n"):
        if not row:
            continue
        match = _ENTRY.fullmatch(row)
        if match is None:
            raise UnreadableError(f"HAProxy reports an entry of a map in an unknown format: {row[:80]!a}")
        entries.append((match["key"], match["value"]))
    return tuple(entries)


def read_entry(report: str) -> tuple[str, str] | None:
    """Return the entry of `get map` that HAProxy uses for a key, which may be another key; None without one."""
    match = _USED.search(report)
    return (match["key"], match["value"]) if match else None


def read_names(report: str) -> tuple[ListedNames, ...]:
    """Return the lines of `show ssl crt-list -n` with a path.

    Raises:
        UnreadableError: It has another form.
    """
    lines = []
    for row in _rows(report):
        match = _LISTED.fullmatch(row)
        if match is None:
            raise UnreadableError(f"HAProxy reports a line of certificates in an unknown format: {row[:80]!a}")
        lines.append(ListedNames(match["path"], tuple(match["names"].split()), int(match["line"])))
    return tuple(lines)


def read_fingerprint(report: str) -> str:
    """Return the fingerprint in `show ssl cert` with a path; empty without one."""
    match = _FINGERPRINT.search(report)
    return match["digits"] if match else ""


def read_variable(report: str) -> str:
    """Return the hexadecimal digits in the answer to `get var`; empty if it has none."""
    match = _VARIABLE.search(report)
    return match["value"] if match else ""
