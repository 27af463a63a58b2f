"""A user-mode Linux as a process: booted with one job, spoken with in lines, and ended for certain."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.lab.lab import ROOT, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parent
MODULES = Path("/usr/lib/uml/modules")
INSIDE = "RULEGEN_UML_INSIDE"
"""Variable that is set inside, and nowhere else."""

_TOOLS = {
    "linux.uml": "user-mode-linux",
    "gcc": "gcc",
    "modprobe": "kmod",
    "ipset": "ipset",
    "ipvsadm": "ipvsadm",
    "conntrack": "conntrack",
    "ip": "iproute2",
}
_LOOK_S = 0.005
"""How often to look for what is said inside: a file of another kernel tells nobody that it grows."""


class MachineError(Exception):
    """The machine did not do what was asked, for reasons of its own; with the end of what it printed."""


def is_inside() -> bool:
    """Tell whether this runs in a machine of this module."""
    return INSIDE in os.environ


def require() -> None:
    """Raise `Unavailable` where this machine can run none."""
    if os.geteuid() != 0:
        raise Unavailable("user-mode Linux sees files as the user who starts it: it needs root")
    missing = sorted({package for tool, package in _TOOLS.items() if not shutil.which(tool)})
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")
    if not any(MODULES.glob("*/kernel/net/netfilter/ipvs/ip_vs.ko")):
        raise Unavailable(f"{MODULES} has no ip_vs")


class Machine:
    """A kernel that does one job and ends with it, or when it is closed, or when its time is over."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None, *, memory_mb: int, lifetime_s: int
    ) -> None:
        """Boot with a job: a command, run in the project's folder. Does not wait for it.

        Raises:
            Unavailable: This machine can run no user-mode Linux.
        """
        require()
        self._folder = Path(tempfile.mkdtemp(prefix=f"uml-{os.getpid()}-"))
        self._buffer = b""
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            # What is compiled outside is read, and what is compiled inside stays there.
            "PYTHONPYCACHEPREFIX": sys.pycache_prefix or "/run/bytecode",
            INSIDE: "1",
            **(environment or {}),
        }
        self._told = 0
        command = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv]
        (self._folder / "job").write_text(f"cd {shlex.quote(str(ROOT))}\nexec {shlex.join(command)}\n")
        try:
            shim = self._folder / "xstate.so"
            subprocess.run(
                ["gcc", "-O2", "-shared", "-fPIC", "-o", str(shim), str(HERE / "xstate.c"), "-ldl"], check=True
            )
            self._said = (self._folder / "said").open("w+b", buffering=0)
            self._process = self._boot(shim, memory_mb, lifetime_s)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _boot(self, shim: Path, memory_mb: int, lifetime_s: int) -> subprocess.Popen[bytes]:
        ours, self._life = os.pipe()
        argv = [
            *("linux.uml", "rootfstype=hostfs", "rw", "quiet", f"mem={memory_mb}M", f"init={HERE / 'init.sh'}"),
            *("con=null", "ssl=null", "con0=null,fd:1", f"umid={self._folder.name}", f"uml_dir={self._folder}/"),
            *(f"OUTSIDE={self._folder}", f"LIFETIME_S={lifetime_s}"),
        ]
        # Beside it, in its group, a guard that waits for the end of this process. It has many files open.
        guarded = 'ulimit -n $(ulimit -Hn); exec 3<&0 </dev/null; { read -r _ <&3; kill -KILL 0; } & exec "$@" 3<&-'
        try:
            with (self._folder / "console").open("wb") as console:
                return subprocess.Popen(
                    ["sh", "-c", guarded, "sh", *argv],
                    stdin=ours,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    env={"PATH": os.environ["PATH"], "LD_PRELOAD": str(shim), "TMPDIR": _memory_folder(memory_mb)},
                    # All processes of it are in one group, which can be ended as one.
                    start_new_session=True,
                )
        finally:
            os.close(ours)

    def tell(self, line: str) -> None:
        """Leave a line for the job: it finds the first in `/run/outside/told-1`, and so on."""
        self._told += 1
        new = self._folder / "new"
        new.write_text(line)
        new.rename(self._folder / f"told-{self._told}")

    def listen(self, within_s: float) -> str | None:
        """Return the next line of the job's standard output; None at its end.

        What the job does not write through (fsync) comes some seconds later, at its end at the latest.

        Raises:
            MachineError: There was none in time.
        """
        deadline = time.monotonic() + within_s
        while True:
            has_ended = self._process.poll() is not None
            self._buffer += self._said.read()
            if b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                return line.decode(errors="replace")
            if has_ended:
                return None
            if time.monotonic() > deadline:
                raise MachineError(f"no answer within {within_s:g} s\n{self.console()}")
            time.sleep(_LOOK_S)

    def console(self, longest: int = 4000) -> str:
        """Return the end of what the kernel and the job's standard error printed."""
        return (self._folder / "console").read_text(errors="replace")[-longest:]

    def close(self) -> None:
        """End it, and all that belongs to it."""
        self._said.close()
        os.close(self._life)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _memory_folder(memory_mb: int) -> str:
    """Return where the machine's memory is kept: a file, in memory if there is room."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > (memory_mb + 64) << 20
    return str(shared) if has_room else tempfile.gettempdir()
