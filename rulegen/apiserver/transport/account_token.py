"""Checks who can read the ServiceAccount's token of a Pod."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def exposure(path: Path = TOKEN_FILE) -> str:
    """Return why other users of the Pod (nginx's workers) can read the token; empty if they cannot, or there is none.

    The kubelet creates it with mode 0600 if all containers of a Pod run as one user (runAsUser), otherwise 0644, and
    0640 if the Pod has an fsGroup.
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
        "set runAsUser: 0, and no fsGroup, in the Pod's securityContext"
    )
