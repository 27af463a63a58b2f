"""Ends a proxy: signals its supervisor or its processes, and waits until all have ended."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from rulegen.host.proxy import process_list as processes
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.processes.supervisor import ASKED_AGAIN_S
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
    until, again_at = time.monotonic() + timeout_s, 0.0
    with WAITS.waiting(f"the end of {program.name} in {folder}", limit_s=timeout_s):
        while (running := program.processes(folder)) or supervision.supervisor_pid(folder):
            now = time.monotonic()
            if now > until:
                return False
            if now >= again_at and not (is_passed_on and supervision.supervisor_pid(folder)):
                again_at = now + ASKED_AGAIN_S
                _signal(running, number)
            time.sleep(0.05)
    return True


def _signal(running: tuple[processes.ProxyProcess, ...], number: signal.Signals) -> None:
    """Signal the master and orphaned workers; SIGKILL also the workers of the master."""
    master = processes.master(running)
    some = ((master,) if master else ()) + processes.orphans(running)
    for process in running if number == signal.SIGKILL else some:
        processes.send(process, number)
