"""The program `rulegen` on a reader's PATH, run in forks of a process that has imported it.

A fresh interpreter costs most of what a short command costs, and the pages have many. Each fork has the arguments, the
environment, the streams and the folder of the shell script that stands for it, and its exit code is that of the script.
"""

from __future__ import annotations

import os
import select
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from integration.lab.peer.templates import Forked, Templates

SCRIPT = """#!/bin/sh
# An agent is ended by the number of its process; a fork is in the folder of the reader's shell.
if [ "$1" = run ] || ! [ . -ef "{home}" ]; then exec "{python}" -m rulegen "$@"; fi
mkfifo "{folder}/$$"
# In subshells: this process keeps the streams that the fork gets from it.
(echo $$ >"{folder}/asked")
code=$(cat "{folder}/$$")
rm "{folder}/$$"
exit "$code"
"""
PAUSE_S = 0.01


class Forks:
    """Runs what the script asks for, until this process ends."""

    def __init__(self, home: Path) -> None:
        """Take the folder of the reader's shell, which this process is in."""
        self._home, self._folder = home, Path(tempfile.mkdtemp(dir=home))
        os.mkfifo(self._folder / "asked")
        self._asked = os.open(self._folder / "asked", os.O_RDWR)
        self._templates = Templates()
        self._running: dict[str, Forked] = {}
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def script(self) -> str:
        """The program."""
        return SCRIPT.format(home=self._home, folder=self._folder, python=sys.executable)

    def _serve(self) -> None:
        try:
            self._go_on()
        except Exception:  # noqa: BLE001 - nobody would answer a script
            traceback.print_exc()
            os._exit(1)

    def _go_on(self) -> NoReturn:
        while True:
            if select.select([self._asked], [], [], PAUSE_S if self._running else None)[0]:
                for pid in os.read(self._asked, 4096).decode().split():  # a line arrives whole
                    self._running[pid] = self._begun(Path("/proc", pid))
            for pid, forked in tuple(self._running.items()):
                if (code := forked.poll()) is not None:
                    del self._running[pid]
                    (self._folder / pid).write_text(f"{code if code >= 0 else 128 - code}\n")

    def _begun(self, script: Path) -> Forked:
        """Run rulegen as the process of a script was called."""
        words = (script / "cmdline").read_text().split("\0")[2:-1]
        env = dict(each.split("=", 1) for each in (script / "environ").read_text().split("\0") if "=" in each)
        with tempfile.TemporaryDirectory(dir=self._folder) as streams:
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                Path(streams, name).symlink_to(script / "fd" / str(number))
            return self._templates.fork([sys.executable, "-m", "rulegen", *words], env, Path(streams))
