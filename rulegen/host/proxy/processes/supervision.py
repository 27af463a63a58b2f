"""Functions of commands for the supervisor: find, start and signal it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rulegen
from rulegen.errors import HostError
from rulegen.host.commands.runner import MissingToolError, find
from rulegen.host.files import trust
from rulegen.host.locks.file_locks import locked_or_not
from rulegen.host.proxy import process_list
from rulegen.host.proxy.disk.space import shortage
from rulegen.host.proxy.processes.supervisor import LOCK, PID_FILE
from rulegen.safe_files import read_kernel_text, read_regular
from rulegen.text import printable
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from rulegen.host.proxy.process_list import ProxyProcess
    from rulegen.host.proxy.program import ProxyProgram

_START_S: Final = 20.0
_LEAVES_S: Final = 10.0
_MOST_BYTES: Final = 256


def supervisor_pid(folder: Path) -> int:
    """Return the process id of the supervisor of a folder; 0 if there is none."""
    try:
        with trust.folder(folder) as home, trust.inner(home, "run", folder / "run") as run:
            with locked_or_not(LOCK, dir_fd=run, make=False) as free:
                if free:
                    return 0
            pid, started = (int(word) for word in read_regular(PID_FILE, _MOST_BYTES, dir_fd=run).split())
    except (OSError, ValueError):  # the folder is missing or belongs to another user, or a supervisor is just starting
        return 0
    return pid if process_list.started(pid) == started else 0


def ensure(folder: Path, binary: str, kind: ProxyProgram) -> bool:
    """Start a supervisor unless one runs; return whether it was started. One that is stopped by a signal is replaced.

    Raises:
        HostError: The supervisor cannot be started.
    """
    program = find(binary)
    if program is None:
        raise MissingToolError(binary)
    pid = supervisor_pid(folder)
    if pid and not (process_list.is_stopped(pid) and process_list.end(pid, _LEAVES_S)):
        return False
    words = (str(folder), program, code(kind.module))
    start(kind.module, words, folder, of=kind.name, hint=f"see {folder}/logs/keeper.err")
    return True


def start(module: str, words: tuple[str, ...], folder: Path, *, of: str, hint: str = "") -> None:
    """Start a supervisor, and wait until it has detached itself and runs.

    Args:
        module: The module that becomes the supervisor.
        words: Its arguments.
        folder: The folder that it writes to.
        of: What it supervises, for messages.
        hint: The hint if it ends with an error.

    Raises:
        HostError: It cannot be started.
    """
    argv = (sys.executable, "-P", "-s", "-m", module, *words)
    WAITS.check(f"starting the supervisor of {of}")
    try:
        with WAITS.waiting(f"the start of the supervisor of {of}", limit_s=_START_S):
            ended = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PYTHONPATH": str(_root()), "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                cwd="/",
                timeout=_START_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"the supervisor of {of} cannot be started: {error}") from error
    if ended.returncode != 0:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        why = "; ".join(filter(None, (printable(said[-1] if said else "", 300), shortage(folder))))
        raise HostError(f"the supervisor of {of} cannot be started: {why}", hint=hint)


def renew(folder: Path, binary: str, kind: ProxyProgram) -> bool:
    """Replace a supervisor with other code than ours, such as after an upgrade; return whether there was one.

    The program and its connections stay: the old supervisor lets it run, and the new one finds it.

    Raises:
        HostError: The new supervisor cannot be started.
    """
    pid = supervisor_pid(folder)
    if not pid or _code_of(pid) in {"", code(kind.module)} or not tell(folder, signal.SIGUSR2):
        return False
    until = time.monotonic() + _LEAVES_S
    while supervisor_pid(folder) == pid:
        if time.monotonic() > until:  # it waits for the end of the program, or is stopped
            return False
        time.sleep(0.01)
    return ensure(folder, binary, kind)


@cache
def code(module: str) -> str:
    """Return a checksum of the code of a supervisor module; it is the last word of its command line."""
    package = _root() / "rulegen"
    mark = zlib.crc32(f"{sys.executable}\0{_root()}\0".encode("utf-8", "surrogateescape"))
    own = _root().joinpath(*module.split(".")[:-1])
    common = [path for name in ("files", "locks", "proxy") for path in (package / "host" / name).rglob("*.py")]
    for path in sorted((*package.glob("*.py"), *own.rglob("*.py"), *common)):
        mark = zlib.crc32(path.read_bytes(), mark)
    return f"{mark:08x}"


def _root() -> Path:
    return Path(rulegen.__file__).resolve().parents[1]


def _code_of(pid: int) -> str:
    """Return the checksum of a supervisor's code; another word if it has none; empty for a process that is ending."""
    try:
        argv = read_kernel_text(f"/proc/{pid}/cmdline").split("\0")
    except OSError:  # the process has ended
        return ""
    return argv[-2] if len(argv) > 1 else ""


def tell(folder: Path, number: signal.Signals) -> bool:
    """Signal the supervisor of a folder; return whether one runs."""
    pid = supervisor_pid(folder)
    return bool(pid) and process_list.send(_as_process(pid), number)


def _as_process(pid: int) -> ProxyProcess:
    return process_list.ProxyProcess(pid, process_list.started(pid), 0, process_list.Role.MASTER)
