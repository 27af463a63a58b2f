"""Sockets that a configuration names and other processes open; the supervisor loads this, so it stays small."""

from typing import Final

STATUS_SOCKET: Final = "run/status.sock"
"""Where the workers answer which configuration they serve with, in nginx's folder."""
SIGNIN_SOCKET: Final = "run/signin.sock"
"""Where the workers ask each other to escape a URL, in nginx's folder."""
