"""Runs tools: the only module that starts processes.

A command is a value, a runner is a function. All code that uses a tool takes a runner, so a test can pass one that
answers from memory, or one that enters a namespace first.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import msgspec

from rulegen.errors import HostError
from rulegen.text import printable
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Debian installs the tools; the PATH of an ordinary user lacks these folders."""

PACKAGES = MappingProxyType(
    {
        "conntrack": "conntrack",
        "depmod": "kmod",
        "ip": "iproute2",
        "ipset": "ipset",
        "ipvsadm": "ipvsadm",
        "kmod": "kmod",
        "lsmod": "kmod",
        "modprobe": "kmod",
        "nft": "nftables",
    }
)
"""Debian package of each tool; all tools with `tables` in their name come from `iptables`."""

READ_TIMEOUT_S = 60.0
"""No read takes longer: a dump of 110,000 rules takes about 1 s."""

VERSION_S = 10.0
"""The time limit for a program that prints its version."""

_KILLED_S = 2.0
_LONGEST_COMPLAINT = 500
_SIGNATURE = re.compile(r"^[\w.-]+ v[0-9.]+( \([\w-]+\))?: ")
"""What netfilter tools print before a message: `iptables-nft-save v1.8.9 (nf_tables): …`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One call of a tool.

    Attributes:
        argv: The tool's name, looked up on PATH and in the system folders, and its arguments.
        stdin: Its input.
        environment: Additional variables, beyond our own and `LC_ALL=C`.
        timeout_s: After this time the tool is killed; None for no limit.
    """

    argv: tuple[str, ...]
    stdin: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_s: float | None = READ_TIMEOUT_S

    def __str__(self) -> str:
        return " ".join(self.argv)


class Completed(msgspec.Struct, frozen=True):
    """Result of a tool.

    Attributes:
        code: Exit code; the negative number of the signal if it was killed.
        stdout: Its output. Invalid UTF-8 is kept as surrogates (PEP 383), so that foreign text is written back
            unchanged.
        stderr: Its error output, in the same form.
    """

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def complaint(self) -> str:
        """Its error output in one line, for people; the exit code if there is none."""
        lines = [_SIGNATURE.sub("", line.strip()) for line in self.stderr.splitlines()]
        said = "; ".join(line for line in lines if line and not line.startswith("Try `"))
        return printable(said, _LONGEST_COMPLAINT) or f"exit code {self.code} without a message"


class Runner(Protocol):
    """Runs one command to its end."""

    def __call__(self, command: Command) -> Completed:
        """Return its result, whatever its exit code.

        Raises:
            MissingToolError: The tool is not installed.
            HostError: It could not be started or took too long.
        """


class ToolTimeoutError(HostError):
    """A tool has taken too long and was killed: nothing is known about its input."""

    def __init__(self, command: Command) -> None:
        super().__init__(
            f"{command} did not end within {command.timeout_s:g} s and was killed",
            hint="find out what the tool waits for, such as a slow disk, a lock, or a busy host",
        )


class MissingToolError(HostError):
    """A tool is not installed.

    Attributes:
        tool: Its name, or the path that was given for it.
    """

    def __init__(self, tool: str) -> None:
        if "/" in tool:  # a path was given, and no package is known for it
            what = "is not executable" if os.path.isfile(tool) else "does not exist"  # noqa: PTH113 - a word of the user
            super().__init__(f"{tool} {what}", hint="correct the path, or restore this file")
        else:
            super().__init__(f"{tool} is not installed", hint=f"install the package {package_of(tool)}")
        self.tool = tool


def package_of(tool: str) -> str:
    """Return the Debian package of `tool`; the name of the tool if the package is unknown.

    >>> package_of("ip6tables-nft-save"), package_of("nft")
    ('iptables', 'nftables')
    """
    return "iptables" if "tables" in tool else PACKAGES.get(tool, tool)


def find(tool: str) -> str | None:
    """Return the path of `tool`, from PATH or else from the system folders; None if there is none."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SYSTEM_FOLDERS]
    return shutil.which(tool, path=os.pathsep.join(folders))


def run(command: Command) -> Completed:
    """Run a command on this host, in the caller's namespaces, without a shell. See `Runner`."""
    return run_noting(command, lambda _: None)


def run_noting(command: Command, note: Callable[[int], None]) -> Completed:
    """Run a command as `run` does.

    Args:
        command: What to run.
        note: Called with the process id as soon as it is known.
    """
    return finish(start(command, located(command)), command, note)


def located(command: Command) -> str:
    """Return the path of a command's tool.

    Raises:
        MissingToolError: There is no such tool.
    """
    tool = command.argv[0]
    path = find(tool)
    if path is None:
        raise MissingToolError(tool)
    return path


def start(command: Command, path: str) -> subprocess.Popen[bytes]:
    """Start the tool of a command; it has read nothing yet. The caller must finish or kill it.

    Raises:
        HostError: It could not be started.
        StoppingError: This process is stopping.
    """
    WAITS.check(str(command))
    environment = {**os.environ, "LC_ALL": "C", **command.environment}
    pipe, argv = subprocess.PIPE, (path, *command.argv[1:])
    try:  # in a group of its own, so that what it starts can be killed with it
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, process_group=0)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in an argument
        raise HostError(f"{command} could not be started: {error}") from error


def finish(process: subprocess.Popen[bytes], command: Command, note: Callable[[int], None]) -> Completed:
    """Give a started tool its input, and return its result; `note` as in `run_noting`.

    Raises:
        ToolTimeoutError: It took too long.
        StoppingError: This process is stopping.
    """
    kill = partial(kill_group, process)
    try:
        with WAITS.waiting(str(command), pid=process.pid, limit_s=command.timeout_s, end=kill) as wait:
            note(process.pid)
            stdout, stderr = process.communicate(command.stdin.encode("utf-8", "surrogateescape"), command.timeout_s)
            wait.check()
    except subprocess.TimeoutExpired:
        raise ToolTimeoutError(command) from None
    finally:  # also if this process is interrupted: the tool must not continue alone
        end(process)
    return Completed(process.returncode, _text(stdout), _text(stderr))


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a started tool unless it has ended, and close its pipes."""
    if process.poll() is None:
        kill_group(process)
        with suppress(subprocess.TimeoutExpired):  # the kernel ends no process that waits for a disk
            process.wait(_KILLED_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # the tool has not read all of its input
                pipe.close()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a started tool, and the programs that it has started, such as those of a script."""
    if process.returncode is None:  # else its id may already belong to another process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def privilege_hint(complaint: str) -> str:
    """Return a hint if a tool reports missing rights; else nothing."""
    words = ("Permission denied", "you must be root", "Operation not permitted")
    return "run as root, or with CAP_NET_ADMIN" if any(word in complaint for word in words) else ""


def _text(output: bytes) -> str:
    return output.decode("utf-8", "surrogateescape")
