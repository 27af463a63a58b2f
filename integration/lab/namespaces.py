"""The driver that makes hosts of bare network namespaces: one process each, and no name anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from integration.lab.lab import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Namespaces:
    """Starts each host as a process in a network namespace of its own, which ends with the process."""

    name = "namespaces"
    may_set_sysctls = True

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("network namespaces need root")
        missing = [tool for tool in ("unshare", "nsenter", "flock") if not shutil.which(tool)]
        if missing:
            raise Unavailable(f"not installed: {', '.join(missing)} (util-linux)")
        try:
            subprocess.run(["unshare", "--net", "true"], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"no network namespace can be made: {error.stderr.decode().strip()}") from error
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, host: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a host's process."""
        process = subprocess.Popen(
            # Started by exec all along: the process that is waited for is the one that reports.
            ["unshare", "--net", "--", *argv],
            stdin=subprocess.DEVNULL,
            env=dict(env),
            # Ctrl-C is the tests' to see; they close the wire, and the process ends by itself.
            start_new_session=True,
        )
        self._processes.append(process)

    def close(self) -> None:
        """Wait until all processes, whose wires are closed by now, have ended."""
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
