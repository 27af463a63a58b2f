"""Serves a configuration with nginx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.naming import NamingService
from rulegen.host.proxy.service import CONFIRM_S

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.commands.runner import Runner


class NginxService(NamingService):
    """The nginx of one folder."""

    def __init__(
        self,
        folder: Path,
        run: Runner,
        *,
        binary: str = "nginx",
        worker_group: int | None = None,
        confirm_s: float = CONFIRM_S,
        keeps_spare: bool = False,
    ) -> None:
        """Take a folder; see `ProxyService`."""
        super().__init__(
            folder,
            run,
            NGINX,
            binary=binary,
            worker_group=worker_group,
            confirm_s=confirm_s,
            keeps_spare=keeps_spare,
        )
