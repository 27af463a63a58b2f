"""Names of sections, files and servers: hashes, so that no byte of an object gets into one."""

from __future__ import annotations

import hashlib
from typing import Final

CONFIG: Final = "haproxy.cfg"
USERS: Final = "secrets/users.cfg"
"""The file with the users of basic authentication whose hashes HAProxy checks; it is loaded beside the main file."""
LUA: Final = "rulegen.lua"
CERTIFICATES: Final = "certificates.list"
HOSTS: Final = "maps/hosts.map"
SHARES: Final = "maps/shares.map"
"""The shares of canaries with an expression, of 10,000 requests."""
CANARIES: Final = "maps/canaries.map"
"""The other canaries of backends, with their conditions and shares."""
SLOTS: Final = "maps/slots.map"
"""Which map of expressions has the paths of a host."""
ADDRESSES: Final = "maps/names.map"
"""The names of ExternalName Services that backends resolve, by backend."""
AUTH_SERVERS: Final = "maps/auth-servers.map"
"""The addresses of auth servers that are Services, by the digest of the upstream."""
SPARES: Final = "spares.list"
"""Which spare backend serves which upstream; HAProxy does not read it."""
EXACT: Final = "maps/exact.map"
PREFIX: Final = "maps/prefix.map"
TRUSTED: Final = "maps/trusted.map"
WORD_MAPS: Final = frozenset({HOSTS, EXACT, PREFIX, SHARES, ADDRESSES, AUTH_SERVERS, CANARIES, SLOTS})
"""Maps whose keys are compared as they are: HAProxy accepts every key, and their order has no effect."""
SOCKET: Final = "unix@run/haproxy.sock"
SERVED_SOCKET: Final = "unix@../../run/worker.sock"
"""The socket of the worker of an HAProxy that rulegen runs, from the folder of a release."""
SERVED: Final = "proc.digest"
"""The variable of the worker with the digest of the configuration that it serves."""
RESOLVERS: Final = {"own": "127.0.0.1", "other": "127.0.0.2"}
"""The address of the DNS resolver for connections to the ports of HAProxy itself, and the one for all others."""
FRONTEND: Final = "ingress"
NO_LOCATION: Final = "none"
"""The backend of requests that match no location; with a valid model, there are none."""
HEALTHY: Final = "healthy"


def mark(*texts: object) -> str:
    """Return 16 hexadecimal digits that identify a list of texts; nobody can find other texts with the same digits."""
    return hashlib.sha256("\0".join(map(str, texts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def server_id(host: str) -> str:
    """Return the name of a host in maps and conditions."""
    return f"h{mark(host)}"


def map_file(kind: str, *texts: object) -> str:
    """Return the path of a map or of a list of addresses that belongs to one location or one host."""
    return f"maps/{kind}-{mark(*texts)}.map"
