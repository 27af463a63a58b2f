"""The ServiceAccount's token that a Pod is given: who beside us may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def exposure(path: Path = TOKEN_FILE) -> str:
    """Return why other users of the Pod, as nginx's workers, may read the token; empty where they may not, or none is.

    The kubelet makes it 0600 where all containers of a Pod run as one user (runAsUser), else 0644, and 0640 where
    the Pod has an fsGroup.
    """
    try:
        status = path.stat()
    except OSError:
        return ""
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == os.geteuid() and not mode & 0o077:
        return ""
    return (
        f"other users may read the ServiceAccount's token (user {status.st_uid}, mode {mode:04o}): "
        "say runAsUser: 0, and no fsGroup, in the Pod's securityContext"
    )
