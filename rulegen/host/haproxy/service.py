"""Serves a configuration with HAProxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.proxy.naming import NamingService
from rulegen.host.proxy.service import CONFIRM_S

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.commands.runner import Runner


class HaproxyService(NamingService):
    """The HAProxy of one folder."""

    def __init__(
        self,
        folder: Path,
        run: Runner,
        *,
        binary: str = "haproxy",
        confirm_s: float = CONFIRM_S,
        keeps_spare: bool = False,
    ) -> None:
        """Take a folder; see `ProxyService`."""
        super().__init__(folder, run, HAPROXY, binary=binary, confirm_s=confirm_s, keeps_spare=keeps_spare)
