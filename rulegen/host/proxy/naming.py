"""Serves a configuration with a proxy, and the names that it asks for with the DNS resolver of its supervisor."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.files import trust
from rulegen.host.proxy.disk import writing
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.resolver import control
from rulegen.host.proxy.resolver.settings import Naming
from rulegen.host.proxy.service import ProxyService
from rulegen.safe_files import read_regular, write_at

if TYPE_CHECKING:
    from rulegen.model.ingress.ir import IngressModel

_POLL_S: Final = 0.02


def naming_of(model: IngressModel) -> Naming | None:
    """Return the settings of the resolver process; None if the proxy does not use it."""
    port = model.defaults.names_port
    return Naming.of(port, model.resolvers, model.forbidden) if port else None


class NamingService(ProxyService):
    """The proxy of one folder, with a DNS resolver.

    Attributes:
        naming: The settings of the resolver process for the next configuration; None if the proxy does not use it.
    """

    naming: Naming | None = None

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
