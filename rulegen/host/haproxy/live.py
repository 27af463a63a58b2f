"""Changes a running HAProxy without a reload, where its socket can do that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.haproxy.names import WORD_MAPS
from rulegen.host.haproxy import worker
from rulegen.host.haproxy.pending import state_meanwhile
from rulegen.languages.haproxy.commands import changes
from rulegen.languages.haproxy.parser import UnreadableError
from rulegen.languages.haproxy.runtime import MAPS, holds, state_of, structure_of
from rulegen.languages.haproxy.text import UnwritableError

if TYPE_CHECKING:
    from rulegen.compiler.ingress.engine import DeployOutcome
    from rulegen.host.haproxy.worker import HeldState
    from rulegen.host.proxy.service import ProxyService
    from rulegen.languages.configuration import Configuration
    from rulegen.languages.haproxy.runtime import RuntimeState

_NONE = "0" * 32
"""The digest of no configuration."""
_OWN_WORDS = ("maps/texts-", "maps/numbers-", "maps/networks-")
"""Maps of single backends with keys that HAProxy accepts."""


def is_held(service: ProxyService, configuration: Configuration) -> bool:
    """Return whether the running HAProxy has the state of a configuration's files; true if this is unknown."""
    seen = worker.observe(service.folder)
    return seen is None or holds(seen.state, state_of(configuration))


def update(service: ProxyService, configuration: Configuration) -> DeployOutcome | None:
    """Serve a configuration by commands for the socket; None if this is not possible, or nothing has to be done.

    Raises:
        HostError: The folder cannot be used. Nothing has changed.
        ApplyError: The configuration could not be written. The one before is still served.
    """
    if not service.folder.is_dir():
        return None
    seen = worker.observe(service.folder)
    wanted = state_of(configuration)
    if seen is None or seen.state.structure != wanted.structure:
        return None
    is_live = service.releases.live() == configuration.digest == seen.state.digest
    if is_live and holds(seen.state, wanted) and service.releases.is_whole(configuration):
        return None
    return service.update(configuration, lambda: _changed(service, seen, wanted, configuration))


def update_meanwhile(
    service: ProxyService, before: Configuration, configuration: Configuration
) -> DeployOutcome | None:
    """Write the part of a configuration that needs no reload to a running HAProxy; None if the reload must not wait.

    The files have the whole configuration, as for a restart.

    Raises:
        HostError: The folder cannot be used. Nothing has changed.
        ApplyError: The configuration could not be written. The one before is still served.
    """
    seen = worker.observe(service.folder)
    if seen is None or seen.state.structure != structure_of(before):
        return None
    wanted = state_meanwhile(seen.state, before, configuration)
    if wanted is None:
        return None
    return service.update(
        configuration, lambda: _changed(service, seen, wanted, configuration, whole=False), confirms=False
    )


def _changed(
    service: ProxyService,
    seen: HeldState,
    wanted: RuntimeState,
    configuration: Configuration,
    *,
    whole: bool = True,
) -> bool:
    """Return whether the worker was changed as wanted, and now answers the digest of the configuration if `whole`."""
    secrets = {path: secret.content for path, secret in configuration.secrets.items()}
    try:
        commands = changes(seen.state, wanted, seen.listed, secrets)
        with worker.connected(service.folder) as link:
            worker.change(link, commands)
            if not holds(worker.held(link).state, wanted):
                worker.confirm(link, _NONE)  # it is reloaded, also if it had the digest of the configuration before
                return False
            if not whole:
                return True
            worker.confirm(link, wanted.digest)
            return worker.digest(link) == wanted.digest
    except (OSError, UnreadableError, UnwritableError):
        return False


def differs_in_data(before: Configuration, after: Configuration) -> bool:
    """Return whether HAProxy accepts a configuration because it has accepted the one before, with the same structure.

    They differ only in servers and in maps whose keys are compared as they are.
    """
    return all(before.secrets.get(path) == secret for path, secret in after.secrets.items()) and all(
        before.files.get(path) == text
        for path, text in after.files.items()
        if path.startswith(MAPS) and path not in WORD_MAPS and not path.startswith(_OWN_WORDS)
    )
