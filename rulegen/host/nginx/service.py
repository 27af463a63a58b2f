"""Serves a configuration with nginx, and the names that nginx asks for with the DNS resolver of its supervisor."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.nginx.program import NGINX
from rulegen.host.nginx.resolver import control
from rulegen.host.proxy.disk import trust, writing
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.service import CONFIRM_S, ProxyService
from rulegen.safe_files import read_regular, write_at

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.commands.runner import Runner
    from rulegen.host.nginx.resolver.settings import Naming

_POLL_S: Final = 0.02


class NginxService(ProxyService):
    """The nginx of one folder.

    Attributes:
        naming: The settings of the resolver process for the next configuration; None if nginx does not use it.
    """

    naming: Naming | None = None

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

    def _inform(self) -> None:
        """Write the settings of the resolver process; without any, it ends.

        Raises:
            HostError: The settings cannot be written.
        """
        naming = self.naming
        try:
            with trust.folder(self.folder) as home, trust.inner(home, "run", self.folder / "run") as run:
                try:
                    known = read_regular(control.FILE, control.LARGEST, dir_fd=run)
                except OSError:  # missing or unusable: it is written again
                    known = b""
                if naming is not None and known != naming.line:
                    write_at(control.FILE, naming.line, 0o600, dir_fd=run)
                elif naming is None and known:
                    os.unlink(control.FILE, dir_fd=run)
                else:
                    return
        except OSError as error:
            said = f"{self.folder}/run/{control.FILE} cannot be written: {writing.reason(error, self.folder)}"
            raise HostError(said, hint=writing.hint(error)) from None
        supervision.tell(self.folder, signal.SIGHUP)

    def _await_companion(self, patience_s: float = 0.0) -> list[str]:
        """Wait until the resolver process answers; return a warning if it does not."""
        naming, until = self.naming, time.monotonic() + patience_s
        while naming is not None:
            if (user := control.stranger(naming.port)) is not None:
                return [control.taken_by(naming.port, user)]
            if control.answers(naming.port):
                break
            if time.monotonic() > until:
                where = f"{self.folder}/logs/{control.LOG}"
                return [f"names cannot be resolved: nothing answers on port {naming.port}; see {where}"]
            time.sleep(_POLL_S)
        return []
