"""IPVS on this host: virtual servers as they are, and commands written to the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.runner import Command as Call
from rulegen.host.runner import privilege_hint
from rulegen.languages.ipvs import text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rulegen.host.runner import Runner
    from rulegen.languages.ipvs.script import Command
    from rulegen.languages.ipvs.state import Objects, Timeouts

_TABLE = Path("/proc/thread-self/net/ip_vs")


def is_loaded() -> bool:
    """Return whether this kernel has IPVS now; where it has not, there are no virtual servers."""
    return _TABLE.exists()


def load(run: Runner, schedulers: Collection[str]) -> None:
    """Have the kernel load IPVS and the schedulers named.

    Raises:
        HostError: It has none of the kind.
    """
    for name in ("ip_vs", *(f"ip_vs_{scheduler}" for scheduler in sorted(schedulers))):
        ended = run(Call(("modprobe", name)))
        if ended.code != 0:
            what = f"the scheduler {name.removeprefix('ip_vs_')}" if name != "ip_vs" else "IPVS"
            raise HostError(f"this kernel does not offer {what}: {ended.complaint}", hint="load its module, or another")


def observe(run: Runner) -> Objects:
    """Return all virtual and real servers; none where IPVS is not loaded.

    Raises:
        HostError: They cannot be read.
    """
    return text.read(_told(run, "-Sn"), "ipvsadm on this host") if is_loaded() else {}


def timeouts(run: Runner) -> Timeouts | None:
    """Return how long connections are remembered; None where IPVS is not loaded."""
    return text.read_timeouts(_told(run, "-Ln", "--timeout")) if is_loaded() else None


def write(run: Runner, commands: Sequence[Command]) -> None:
    """Do the commands in order; adding what is there makes it as wanted, and deleting what is not is no fault.

    Raises:
        HostError: One was refused; those before it were done.
    """
    for command in commands:
        ended = run(Call(("ipvsadm", *str(command).split())))
        if ended.code != 0 and "already exists" not in ended.stderr:
            raise HostError(f"ipvsadm {command}: {ended.complaint}", hint=privilege_hint(ended.stderr))


def set_timeouts(run: Runner, told: Timeouts) -> None:
    """Set how long connections are remembered.

    Raises:
        HostError: They were refused.
    """
    _told(run, "--set", *(str(number) for number in told))


def _told(run: Runner, *arguments: str) -> str:
    ended = run(Call(("ipvsadm", *arguments)))
    if ended.code != 0:
        raise HostError(f"ipvsadm {' '.join(arguments)}: {ended.complaint}", hint=privilege_hint(ended.stderr))
    return ended.stdout
