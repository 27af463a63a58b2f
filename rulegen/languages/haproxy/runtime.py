"""What a running HAProxy holds and its socket can change: servers, entries of maps, certificates and their names.

All else is the structure of a configuration, which only a reload changes. Both are derived from the files of a
configuration here; `reports` derives the first from what HAProxy reports.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.languages.configuration import Configuration, SecretContent, digest_of
from rulegen.languages.haproxy.parser import UnreadableError, read_certificates, read_map, read_words
from rulegen.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG: Final = "haproxy.cfg"
CERTIFICATE_LIST: Final = "certificates.list"
MAPS: Final = "maps/"
_WITH_DATA: Final = frozenset({CONFIG, CERTIFICATE_LIST, "spares.list"})
_SERVER: Final = "    server "
_ANSWERED: Final = re.compile(r"    (?:description|set-var proc\.digest) \S+\n")
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_DEFAULT_PORT: Final = "80"


class RuntimeServer(NamedTuple):
    """A server of a backend.

    Attributes:
        address: Its address, without brackets.
        port: Its port.
        weight: Its share of the requests.
        is_ready: Whether it takes new connections.
        options: The words behind the address. HAProxy does not report them; the name of the server has their digest.
    """

    address: str
    port: int
    weight: int = 1
    is_ready: bool = True
    options: tuple[str, ...] = ()

    @property
    def reported(self) -> RuntimeServer:
        """The part that HAProxy reports."""
        return self._replace(options=())


class ServerKey(NamedTuple):
    """The names of a backend and of a server in it."""

    backend: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeState:
    """What a running HAProxy holds.

    Attributes:
        structure: The digest of what only a reload changes.
        digest: The digest of the configuration that was last written completely.
        servers: The servers.
        maps: The entries of each map by its path, in order.
        names: The lines of the list of certificates: path, and names of TLS.
        certificates: The fingerprint of each certificate of the list, by its path.
    """

    structure: str = ""
    digest: str = ""
    servers: Mapping[ServerKey, RuntimeServer] = field(default_factory=dict)
    maps: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    certificates: Mapping[str, str] = field(default_factory=dict)


def holds(state: RuntimeState, wanted: RuntimeState) -> bool:
    """Return whether HAProxy holds a wanted state.

    Servers that it does not use any more may still be there. HAProxy has only those maps that its configuration uses.
    """
    unused = (server for key, server in state.servers.items() if key not in wanted.servers)
    return (
        state.structure == wanted.structure
        and all(state.servers.get(key) == server.reported for key, server in wanted.servers.items())
        and not any(server.is_ready for server in unused)
        and all(wanted.maps.get(path) == entries for path, entries in state.maps.items())
        and sorted(state.names) == sorted(wanted.names)
        and state.certificates == wanted.certificates
    )


def structure_of(configuration: Configuration) -> str:
    """Return the digest of what only a reload changes: all but servers, the entries of maps, and certificates.

    The first line of the list of certificates, the default, belongs to it, and so do lines with options of TLS.
    """
    files = {path: text for path, text in configuration.files.items() if path not in _WITH_DATA}
    files = {path: "" if path.startswith(MAPS) else text for path, text in files.items()}
    lines = _ANSWERED.sub("", configuration.files.get(CONFIG, "")).splitlines()
    files[CONFIG] = "\n".join(line for line in lines if not line.startswith(_SERVER))
    files[CERTIFICATE_LIST] = "\n".join(structural_lines(configuration))
    return digest_of(files, structural_secrets(configuration))


def structural_lines(configuration: Configuration) -> list[str]:
    """Return the lines of the list of certificates that HAProxy reads only at its start."""
    listed = configuration.files.get(CERTIFICATE_LIST, "")
    first, *others = listed.splitlines() or [""]
    return [first, *(line for line in others if "[" in line)]


def structural_secrets(configuration: Configuration) -> dict[str, SecretContent]:
    """Return the secret files that HAProxy reads only at its start: all but certificates of the list."""
    listed = configuration.files.get(CERTIFICATE_LIST, "")
    own = {line.partition(" ")[0] for line in listed.splitlines()}
    return {path: secret for path, secret in configuration.secrets.items() if path not in own}


def state_of(configuration: Configuration) -> RuntimeState:
    """Return what HAProxy holds after it has read the files of a configuration.

    Raises:
        UnreadableError: A file has another form than those of rulegen.
    """
    lines = read_certificates(configuration.files.get(CERTIFICATE_LIST, ""))
    names = tuple((path, tuple(name for name in own if not name.startswith("["))) for path, own in lines)
    maps = {path: tuple(read_map(text)) for path, text in configuration.files.items() if path.startswith(MAPS)}
    secrets = configuration.secrets
    return RuntimeState(
        structure=structure_of(configuration),
        digest=configuration.digest,
        servers=servers_of(configuration.files.get(CONFIG, "")),
        maps=maps,
        names=names,
        certificates={path: fingerprint(secrets[path].content) for path, _ in names if path in secrets},
    )


def servers_of(text: str) -> dict[ServerKey, RuntimeServer]:
    """Return the servers of the backends in a configuration file.

    Raises:
        UnreadableError: The address of a server has another form than those of rulegen.
    """
    servers = {}
    backend = ""
    for line in text.splitlines():
        if line.startswith("backend "):
            backend = line.removeprefix("backend ")
        elif line.startswith(_SERVER):
            _, name, where, *options = read_words(line)
            servers[ServerKey(backend, name)] = _server(where, options)
    return servers


def _server(where: str, options: list[str]) -> RuntimeServer:
    address, _, port = where.rpartition(":")
    try:
        number = int(port or _DEFAULT_PORT)
    except ValueError:
        raise UnreadableError(f"{where[:80]!a} is no address of a server") from None
    return RuntimeServer(usual(address.strip("[]")), number, options=tuple(options))


def usual(address: str) -> str:
    """Return the usual spelling of an address; other texts as they are."""
    try:
        return str(parse_address(address))
    except ValueError:
        return address


def fingerprint(pem: bytes) -> str:
    """Return the fingerprint of the first certificate of a file as HAProxy reports it; empty without one."""
    match = _PEM.search(pem)
    if match is None:
        return ""
    try:
        content = binascii.a2b_base64(match[1])
    except binascii.Error:
        return ""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest().upper()
