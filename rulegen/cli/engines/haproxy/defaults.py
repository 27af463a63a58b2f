"""Defaults of the options of HAProxy."""

from __future__ import annotations

from typing import Final

HAPROXY_DIR: Final = "/var/lib/rulegen/haproxy"
NAMES_PORT: Final = 10354
