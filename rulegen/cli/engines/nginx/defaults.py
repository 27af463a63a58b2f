"""Defaults of the options of nginx."""

from __future__ import annotations

from typing import Final

NGINX_DIR: Final = "/var/lib/rulegen/nginx"
NAMES_PORT: Final = 10353
