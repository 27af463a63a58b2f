"""nginx as a program that rulegen starts, supervises, tests and reloads. The supervisor loads this: small imports."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from typing import TYPE_CHECKING, Final

from rulegen.host.nginx import status
from rulegen.host.proxy import process_list
from rulegen.host.proxy.process_list import ProxyProcess, Role
from rulegen.host.proxy.program import ReleaseForm
from rulegen.host.proxy.resolver.control import NamesProcess
from rulegen.languages.nginx.main_file import MAIN
from rulegen.languages.nginx.sockets import STATUS_SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rulegen.host.proxy.program import Companion

_MASTER: Final = b"nginx: master process"
_WORKER: Final = b"nginx: worker process"
_OTHER: Final = b"nginx: cache "
_LEAVING: Final = b"is shutting down"
_PREFIX: Final = re.compile(r"^(?:nginx: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )(?:\[\w+\] )?(?:\d+#\d+: )?")
_REFUSED: Final = re.compile(r"bind\(\) to \S+:(?P<port>[0-9]{1,5}) failed \(98: ")
_FAULT: Final = re.compile(r"\[(?:emerg|alert|crit|error)\]")


class NginxProgram:
    """See `ProxyProgram`."""

    name = "nginx"
    folder_option = "--nginx-dir"
    module = "rulegen.host.nginx.supervisor"
    form = ReleaseForm(
        main=MAIN,
        folders=("hosts", "upstreams", "secrets"),
        included=("hosts", "upstreams"),
        names=re.compile(r"(?:nginx\.conf|(?:hosts|upstreams|secrets)/[0-9a-f]{8,64}(?:\.[a-z]{1,12})?)\Z"),
        for_workers=frozenset({"", "secrets"}),
    )
    logs: tuple[str, ...] = ("error.log",)
    serious = re.compile(r"\[emerg\] .*")
    may_pass = re.compile(r" bind\(\) to \S+ failed ")  # nginx tries to bind five times before it fails
    reload = signal.SIGHUP
    may_miss_reload = False
    finish = signal.SIGQUIT
    reopen: signal.Signals | None = signal.SIGUSR1

    def command(self, folder: Path, program: str) -> list[str]:
        """See `ProxyProgram`."""
        return [program, "-e", "stderr", "-p", f"{folder}/", "-c", f"{folder}/current/{MAIN}", "-g", "daemon off;"]

    def test_command(self, program: str, folder: Path, release: Path) -> list[str]:
        """See `ProxyProgram`."""
        return [program, "-t", "-q", "-e", "stderr", "-p", f"{folder}/", "-c", str(release / MAIN)]

    def failure(self, text: str) -> str:
        """See `ProxyProgram`."""
        return f"nginx: [emerg] {text}"

    def refuses(self, code: int, said: str) -> bool:
        """See `ProxyProgram`."""
        return code == 1 and "[emerg]" in said and " bind() " not in said

    def test_lines(self, lines: Sequence[str]) -> Sequence[str]:
        """See `ProxyProgram`."""
        if not any(line.startswith("nginx: ") for line in lines):
            return ()
        return [line for line in lines if _FAULT.search(line)] or lines

    def short(self, line: str) -> str:
        """See `ProxyProgram`."""
        return _PREFIX.sub("", line)

    def refused_port(self, message: str) -> int:
        """See `ProxyProgram`.

        >>> NGINX.refused_port("bind() to 0.0.0.0:80 failed (98: Address already in use)")
        80
        """
        match = _REFUSED.search(message)
        return int(match["port"]) if match else 0

    def processes(self, folder: Path) -> tuple[ProxyProcess, ...]:
        """See `ProxyProgram`. A master runs as our user; a worker has the same folder, and another user."""
        try:
            home = folder.stat()
        except OSError:
            return ()
        ours = [each for pid in process_list.all_ids() if (each := _look(pid, (home.st_dev, home.st_ino)))]
        return tuple(sorted(ours, key=lambda process: (process.started, process.pid)))

    def serves(self, folder: Path) -> str | None:
        """See `ProxyProgram`."""
        return status.ask(folder)

    def worker_serves(self, folder: Path) -> str | None:
        """See `ProxyProgram`."""
        return status.ask(folder)

    def hindrance(self, folder: Path) -> str:  # noqa: ARG002 - its master answers nothing
        """See `ProxyProgram`."""
        return ""

    def has_socket(self, folder: Path) -> bool:
        """See `ProxyProgram`."""
        return (folder / STATUS_SOCKET).exists()

    def close_sockets(self, run: int) -> None:
        """See `ProxyProgram`."""
        status.close_to_others(run)

    def inherited(self, orphans: tuple[ProxyProcess, ...], run: int) -> dict[str, str] | None:
        """See `ProxyProgram`."""
        from rulegen.host.proxy import inherited_sockets  # noqa: PLC0415 - takes memory, and only a child needs it

        for worker in process_list.workers(orphans):
            sockets = inherited_sockets.listening(worker.pid)
            if sockets:
                return {"NGINX": inherited_sockets.variable(sockets)}
        for name in status.SOCKETS:  # left by a killed master; nginx could not bind them
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=run)
        return None

    def companion(self, write: Callable[[str], None]) -> Companion:
        """Return the DNS resolver for nginx."""
        return NamesProcess(write, self.name)


def _look(pid: int, home: tuple[int, int]) -> ProxyProcess | None:
    title = process_list.read(pid, "cmdline").replace(b"\0", b" ")
    role = _role(title)
    if role is None:
        return None
    seen = process_list.Seen.of(pid, "cwd")
    if seen is None or seen.place != home or not seen.program.startswith("nginx"):
        return None
    if role is Role.MASTER and seen.user != os.geteuid():
        return None
    return process_list.identified(pid, role)


def _role(title: bytes) -> Role | None:
    if title.startswith(_MASTER):
        return Role.MASTER
    if title.startswith(_WORKER):
        return Role.LEAVING if _LEAVING in title else Role.WORKER
    return Role.CACHE if title.startswith(_OTHER) else None


NGINX: Final = NginxProgram()
