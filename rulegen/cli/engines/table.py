"""The ingress engines, one row each. A new engine is one more row here; see docs/design.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.cli.engines.haproxy.row import HAPROXY
from rulegen.cli.engines.nginx.row import NGINX

if TYPE_CHECKING:
    from rulegen.cli.engines.row import EngineRow

ENGINES: Final[dict[str, EngineRow]] = {row.name: row for row in (NGINX, HAPROXY)}
"""By name, the default first."""
DEFAULT: Final = next(iter(ENGINES))
