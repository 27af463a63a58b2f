"""Tests a release with the program itself in a sandbox, as with `nginx -t`.

A test executes the configuration: the program opens files, binds sockets and may load libraries. So it runs with an
exclusive user id, without capabilities, in its own namespaces: an empty network, and a root with read-only programs and
a copy of the release in memory. Without namespaces (a container without CAP_SYS_ADMIN), only the user id, the copy and
the limits remain.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, MissingToolError, find
from rulegen.host.files import trust
from rulegen.host.proxy.disk import writing
from rulegen.host.proxy.sandbox import child, identity
from rulegen.host.proxy.sandbox.child import LATE
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.host.commands.runner import Completed, Runner
    from rulegen.host.proxy.program import ProxyProgram

TEST_S: Final = 30.0
FILE_S: Final = 0.01
"""The time limit of a test, and for each file: 5,000 hosts with certificates take about 7 s."""

_MEMORY: Final = 8 << 30
_CELL: Final = Path(__file__).with_name("child.py")
_LONGEST: Final = 600
_GRACE_S: Final = 10.0
_MISSING: Final = "in a container without CAP_SYS_ADMIN, add the capabilities CHOWN, SETUID and SETGID"
_NAMESPACES: Final = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child")


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a test.

    Attributes:
        message: Why the program rejects the release, one line for each fault, with paths of the release; None if it
            does not.
        note: The protections that this node does not support; empty if it supports all.
    """

    message: str | None
    note: str = ""


class TrialTimeoutError(HostError):
    """A test has no result, because it took too long or was killed: the same test may succeed later."""


def try_release(
    release: Path, folder: Path, run: Runner, kind: ProxyProgram, *, binary: str = "", timeout_s: float = TEST_S
) -> TrialResult:
    """Return the result of the test of a release.

    Args:
        release: The folder of the release.
        folder: DIR, the folder of the program.
        run: Runs the tools.
        kind: The program.
        binary: The name or path of the program; by default its usual name.
        timeout_s: The time limit in seconds.

    Raises:
        TrialTimeoutError: The test took longer, which says nothing about the configuration.
        HostError: The program or a tool is missing, or the sandbox cannot be built.
    """
    program = find(binary or kind.name)
    if program is None:
        raise MissingToolError(binary or kind.name)
    if os.geteuid() != 0:
        return _bare(release, run, kind, program, timeout_s, f"not run as root: {kind.name} is tested as the same user")
    if find("unshare") is None:
        raise HostError("unshare is not installed", hint="install the package util-linux")
    refused = run(Command(("unshare", *_NAMESPACES, "true")))
    if refused.code != 0:
        return _bare(release, run, kind, program, timeout_s, f"no namespaces here ({refused.complaint})")
    return _sealed(release, folder, run, kind, program, timeout_s)


def _sealed(
    release: Path, folder: Path, run: Runner, kind: ProxyProgram, program: str, timeout_s: float
) -> TrialResult:
    user = identity.unused()
    real = Path(program).resolve()
    hides = child.is_binary(real)
    order = {
        "root": True,
        "folder": str(folder.resolve()),
        "release": str(release.resolve()),
        "folders": kind.form.folders,
        "program": str(real) if hides else "",
        "copy": _copy_of(kind),
        "more": _outside(program),
        "hidden": [],
        "group": user,
        "user": user,
        "capabilities": [],
        "memory": _MEMORY,
        "seconds": timeout_s,
        "argv": kind.test_command(f"/{_copy_of(kind)}" if hides else str(real), folder.resolve(), release.resolve()),
    }
    argv = ("unshare", *_NAMESPACES, sys.executable, "-I", "-S", str(_CELL))
    return TrialResult(_judge(_limited(run, argv, order, timeout_s), release, kind, timeout_s))


def _bare(release: Path, run: Runner, kind: ProxyProgram, program: str, timeout_s: float, note: str) -> TrialResult:
    """Test a copy of a release without namespaces, in a folder that only the test user and our user can enter."""
    is_root = os.geteuid() == 0
    user = identity.unused() if is_root else os.getegid()
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f"rulegen-{kind.name}-")).absolute()
        try:
            os.close(trust.open_folder(scratch))
            argv = _copied(release, scratch, kind, program, user)
            order = {
                "root": False,
                "folder": str(scratch),
                "user": user if is_root else 0,
                "capabilities": [child.CAP_NET_BIND_SERVICE],
                "memory": _MEMORY,
                "seconds": timeout_s,
                "argv": argv,
            }
            ended = _limited(run, (sys.executable, "-I", "-S", str(_CELL)), order, timeout_s)
            return TrialResult(_judge(ended, scratch / "conf", kind, timeout_s), f"{note}: tested without a sandbox")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise HostError(
            f"the configuration of {kind.name} cannot be copied for a test: {writing.reason(error)}",
            hint=_MISSING if is_root and isinstance(error, PermissionError) else writing.hint(error),
        ) from None


def _copied(release: Path, scratch: Path, kind: ProxyProgram, program: str, group: int) -> list[str]:
    """Copy a release and the program to a folder; return the command of the test."""
    folders = kind.form.folders
    child.write_release(scratch / "conf", child.read_release(release, folders), folders, group)
    for name in ("run", "logs"):
        child.make_folder(scratch / name, 0o770, group)
    real = Path(program).resolve()
    if os.geteuid() == 0 and child.is_binary(real) and not os.statvfs(scratch).f_flag & os.ST_NOEXEC:
        child.copy_program(real, scratch / _copy_of(kind), group)
        program = str(scratch / _copy_of(kind))
    os.chown(scratch, -1, group)
    scratch.chmod(0o710)
    return kind.test_command(program, scratch, scratch / "conf")


def _copy_of(kind: ProxyProgram) -> str:
    """Return the name of the copy of the program that can only be executed."""
    return f"{kind.name}-to-try"


def _limited(run: Runner, argv: tuple[str, ...], order: object, timeout_s: float) -> Completed:
    return run(Command(argv, stdin=json.dumps(order), timeout_s=timeout_s + _GRACE_S))


def _outside(program: str) -> list[str]:
    """Return the program if it is outside the folders of programs, such as below /opt."""
    path = Path(program).resolve()
    return [] if path.parts[1] in {"usr", "bin", "sbin"} else [str(path)]


def _judge(ended: Completed, release: Path, kind: ProxyProgram, timeout_s: float) -> str | None:
    """Return why the program rejects a release; None if it does not."""
    if ended.code == 0:
        return None
    if LATE in ended.stderr:
        raise TrialTimeoutError(
            f"the test of {kind.name} timed out after {timeout_s:g} s: the cause is not an Ingress, and the"
            " test will be repeated",
            hint="find out why the test is slow: a slow disk, or a busy host",
        )
    if ended.code == 128 + signal.SIGKILL:
        raise TrialTimeoutError(f"the test of {kind.name} was killed by another process, or for lack of memory")
    if ended.code > 128:
        return f"the test of {kind.name} was killed by signal {ended.code - 128} ({signal.strsignal(ended.code - 128)})"
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    own = kind.test_lines(lines)
    if not own:
        raise HostError(
            f"the sandbox for {kind.name} cannot be built: {printable(lines[-1] if lines else '', _LONGEST)}"
        )
    return "\n".join(clean(line, release, kind) for line in own)


def clean(line: str, release: Path, kind: ProxyProgram) -> str:
    """Return a line of a program with paths of the release, in printable characters and with limited length."""
    short = kind.short(line.strip())
    for place in {f"{release}/", f"{release.resolve()}/"}:
        short = short.replace(place, "")
    return printable(short, _LONGEST)
