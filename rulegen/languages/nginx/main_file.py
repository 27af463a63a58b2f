"""The main file of a configuration of nginx."""

from typing import Final

MAIN: Final = "nginx.conf"
"""The file that nginx is started with; every other is included by it, by a path relative to it."""
