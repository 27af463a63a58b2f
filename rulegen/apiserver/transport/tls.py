"""One TLS context for all connections to an API server, created again when one of its files changes.

A context contains the authorities (some hundred if the system's are used) and the client certificate. Reading them
takes longer than a handshake, so connections share it. kubelets and ServiceAccounts replace their files every few
hours; the next connection notices this.
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rulegen.safe_files import checked_name

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_READ_FROM = ("ca_certs", "ca_cert_data", "cert_file", "key_file")
MAX_BYTES: Final = 4 << 20
"""Maximum size of a file of certificates or a key: the authorities of a whole system have some 250 KB."""
_Stamp = tuple[int, int, int, int]


class SharedTls:
    """Creates the context when it is first needed; thread-safe."""

    def __init__(self, settings: MutableMapping[str, Any], sockets: type[ssl.SSLSocket] = ssl.SSLSocket) -> None:
        """Take the settings for the context out of the settings of a connection pool.

        Args:
            settings: `connection_pool_kw` of a urllib3 `PoolManager`; settings that each connection would read itself
                are removed from it.
            sockets: Class of the sockets of connections.
        """
        self._sockets = sockets
        self._settings = {name: settings.pop(name, None) for name in _READ_FROM}
        self._cert_reqs = settings.get("cert_reqs", ssl.CERT_REQUIRED)
        self._files = [Path(path) for name in _READ_FROM if name != "ca_cert_data" and (path := self._settings[name])]
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._stamps: list[_Stamp] = []

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        Raises:
            OSError: A file cannot be read or is invalid (`ssl.SSLError`); the next call tries again.
        """
        with self._lock:
            stamps = [_stamp(path) for path in self._files]  # first: a file that changes during the read is read again
            if self._context is None or stamps != self._stamps:
                self._context, self._stamps = self._made(), stamps
            return self._context

    def _made(self) -> ssl.SSLContext:
        from urllib3.util.ssl_ import create_urllib3_context  # noqa: PLC0415 - comes with the client

        context = create_urllib3_context(cert_reqs=self._cert_reqs)
        context.sslsocket_class = self._sockets
        authorities, text = self._settings["ca_certs"], self._settings["ca_cert_data"]
        if authorities:
            with checked_name(authorities, MAX_BYTES) as name:
                context.load_verify_locations(name, cadata=text or None)
        elif text:
            context.load_verify_locations(cadata=text)
        elif self._cert_reqs != ssl.CERT_NONE:
            context.load_default_certs()
        if certificate := self._settings["cert_file"]:
            key = self._settings["key_file"] or certificate
            with checked_name(certificate, MAX_BYTES) as name, checked_name(key, MAX_BYTES) as key_name:
                # Without a password, OpenSSL would ask the terminal for the password of an encrypted key.
                context.load_cert_chain(name, key_name, password="")
        return context


def _stamp(path: Path) -> _Stamp:
    """Return values that identify a version of a file, also behind a symbolic link."""
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
