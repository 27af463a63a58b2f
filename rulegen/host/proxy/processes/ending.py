"""Ends a proxy: signals its supervisor or its processes, and waits until all have ended."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.processes.draining import Draining
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.proxy.program import ProxyProgram


def ended(folder: Path, program: ProxyProgram, number: signal.Signals, timeout_s: float) -> bool:
    """Signal the supervisor and the program, and wait until all processes have ended; return whether they have.

    The supervisor repeats a signal to the program. Without a supervisor, it is repeated here.

    Args:
        folder: DIR.
        program: The program.
        number: The signal.
        timeout_s: The longest wait in seconds.
    """
    asked = signal.SIGQUIT if number == program.finish else number
    is_passed_on = supervision.tell(folder, asked) and number != signal.SIGKILL
    until, draining = time.monotonic() + timeout_s, Draining()
    with WAITS.waiting(f"the end of {program.name} in {folder}", limit_s=timeout_s):
        while (running := program.processes(folder)) or supervision.supervisor_pid(folder):
            now = time.monotonic()
            if now > until:
                return False
            if not (is_passed_on and supervision.supervisor_pid(folder)):
                draining.tell(running, number, now)
            time.sleep(0.05)
    return True
