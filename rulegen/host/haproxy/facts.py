"""Facts of the installed HAProxy, from its own output."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import VERSION_S, Command, MissingToolError

if TYPE_CHECKING:
    from rulegen.host.commands.runner import Runner

OLDEST: Final = (2, 6)
"""The oldest version that takes the configurations of rulegen."""
_VERSION: Final = re.compile(r"HAProxy version (\d+)\.(\d+)")
_INSTALL: Final = "apt install haproxy"


def check_version(run: Runner, binary: str) -> None:
    """Check that HAProxy is installed and not too old.

    Raises:
        HostError: It is not installed, older than `OLDEST`, or its output has another format.
    """
    try:
        answer = run(Command((binary, "-v"), timeout_s=VERSION_S))
    except MissingToolError:
        raise HostError(f"{binary} is not installed", hint=_INSTALL) from None
    version = _VERSION.search(answer.stdout)
    if answer.code != 0 or version is None:
        raise HostError(f"{binary} -v shows no version of HAProxy: {answer.complaint}", hint=_INSTALL)
    if (int(version[1]), int(version[2])) < OLDEST:
        raise HostError(f"HAProxy {version[1]}.{version[2]} is too old: rulegen needs 2.6", hint=_INSTALL)
