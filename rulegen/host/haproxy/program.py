"""HAProxy as a program that rulegen starts, supervises, tests and reloads. The supervisor loads this: small imports."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Final

from rulegen.host.haproxy import status
from rulegen.host.proxy import process_list
from rulegen.host.proxy.process_list import ProxyProcess, Role
from rulegen.host.proxy.program import ReleaseForm
from rulegen.host.proxy.resolver.control import NamesProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rulegen.host.proxy.program import Companion

MAIN: Final = "haproxy.cfg"
USERS: Final = "secrets/users.cfg"
_FILES: Final = ("-f", MAIN, "-f", USERS)
_RELEASE: Final = "cwd/.."
HANGS: Final = "the master of HAProxy does not answer: changes that need a reload wait"
_PREFIX: Final = re.compile(r"^(?:\[\w+\]\s+)?(?:\(\d+\) : )?(?:config : )?")
_SUMMARY: Final = ("Error(s) found in configuration file", "Fatal errors found in configuration")
_REFUSED: Final = re.compile(r"cannot bind socket \(Address already in use\) (?:for )?\[\S*:(?P<port>[0-9]{1,5})\]")


class HaproxyProgram:
    """See `ProxyProgram`. A master, as our user, starts workers, as the user of the configuration."""

    name = "haproxy"
    folder_option = "--haproxy-dir"
    module = "rulegen.host.haproxy.supervisor"
    form = ReleaseForm(
        main=MAIN,
        folders=("maps", "secrets"),
        included=(),
        names=re.compile(
            r"(?:haproxy\.cfg|rulegen\.lua|(?:certificates|spares)\.list"
            r"|maps/[a-z]+(?:-[a-z]+)*(?:-[0-9a-f]{16})?\.map"
            r"|secrets/(?:users\.cfg|[0-9a-f]{8,64}(?:\.[a-z]{1,12})?))\Z"
        ),
        for_workers=frozenset(),
    )
    logs: tuple[str, ...] = ()
    # Fewer connections than wanted are served (`no strict-limits`); there may be no endpoints, and no syslog.
    serious = re.compile(r"\[ALERT\] (?!.*(?:FD limit|has no server available|in logger #)).*")
    may_pass = re.compile("cannot bind socket")
    reload = signal.SIGUSR2
    may_miss_reload = True
    finish = signal.SIGUSR1
    reopen: signal.Signals | None = None

    def command(self, folder: Path, program: str) -> list[str]:
        """See `ProxyProgram`. Every reload goes to the folder `current` again, and its working directory names it."""
        master = f"unix@../../run/{status.SOCKET},mode,600"
        return [program, "-W", "-db", "-S", master, "-C", f"{folder}/current", *_FILES]

    def test_command(self, program: str, folder: Path, release: Path) -> list[str]:
        """See `ProxyProgram`."""
        del folder
        return [program, "-c", "-C", str(release), *_FILES]

    def failure(self, text: str) -> str:
        """See `ProxyProgram`."""
        return f"[ALERT] {text}"

    def refuses(self, code: int, said: str) -> bool:
        """See `ProxyProgram`."""
        return code == 1 and "[ALERT]" in said and not self.may_pass.search(said)

    def test_lines(self, lines: Sequence[str]) -> Sequence[str]:
        """See `ProxyProgram`."""
        alerts = [line for line in lines if line.startswith("[ALERT]")]
        return [line for line in alerts if not any(text in line for text in _SUMMARY)] or alerts

    def short(self, line: str) -> str:
        """See `ProxyProgram`.

        >>> HAPROXY.short("[ALERT]    (12) : config : parsing [haproxy.cfg:3] : unknown keyword")
        'parsing [haproxy.cfg:3] : unknown keyword'
        """
        return _PREFIX.sub("", line)

    def refused_port(self, message: str) -> int:
        """See `ProxyProgram`.

        >>> HAPROXY.refused_port("frontend f: cannot bind socket (Address already in use) for [0.0.0.0:80]")
        80
        """
        match = _REFUSED.search(message)
        return int(match["port"]) if match else 0

    def processes(self, folder: Path) -> tuple[ProxyProcess, ...]:
        """See `ProxyProgram`. The youngest worker of a master takes connections; its older ones finish theirs."""
        try:
            home = (folder / "releases").stat()
        except OSError:
            return ()
        place = (home.st_dev, home.st_ino)
        ours = [each for pid in process_list.all_ids() if (each := _look(pid, place))]
        ours += _wrapped_masters(ours, place)
        ours.sort(key=lambda process: (process.started, process.pid))
        masters = {process.pid for process in ours if process.role is Role.MASTER}
        workers = [process for process in ours if process.pid not in masters and process.parent in masters]
        return tuple(
            process._replace(role=Role.LEAVING)
            if process in workers
            and any(other.parent == process.parent for other in workers[workers.index(process) + 1 :])
            else process
            for process in ours
        )

    def serves(self, folder: Path) -> str | None:
        """See `ProxyProgram`."""
        return status.serves(folder)

    def worker_serves(self, folder: Path) -> str | None:
        """See `ProxyProgram`."""
        return status.worker_serves(folder)

    def hindrance(self, folder: Path) -> str:
        """See `ProxyProgram`."""
        if status.ask(folder, "show proc") is not None or status.worker_serves(folder) is None:
            return ""
        return HANGS

    def has_socket(self, folder: Path) -> bool:
        """See `ProxyProgram`."""
        return (folder / "run" / status.SOCKET).exists()

    def close_sockets(self, run: int) -> None:
        """Do nothing: HAProxy creates its socket for our user only."""

    def inherited(self, orphans: tuple[ProxyProcess, ...], run: int) -> dict[str, str] | None:
        """Return None: workers end with their master, and HAProxy replaces its socket."""

    def companion(self, write: Callable[[str], None]) -> Companion:
        """Return the DNS resolver for HAProxy."""
        return NamesProcess(write, "HAProxy")


def _look(pid: int, releases: tuple[int, int]) -> ProxyProcess | None:
    if b"haproxy" not in process_list.read(pid, "cmdline"):
        return None
    seen = process_list.Seen.of(pid, _RELEASE)
    if seen is None or seen.place != releases or not seen.program.startswith("haproxy"):
        return None
    there = process_list.identified(pid, Role.WORKER)
    if there is None or seen.user != os.geteuid():
        return there
    parent = process_list.Seen.of(there.parent, _RELEASE)
    is_child = parent is not None and parent.place == releases and parent.program.startswith("haproxy")
    return there if is_child else there._replace(role=Role.MASTER)


def _wrapped_masters(ours: list[ProxyProcess], releases: tuple[int, int]) -> list[ProxyProcess]:
    """Return the masters that are starting themselves again by another program, such as a script: they have workers."""
    known = {process.pid for process in ours}
    results = []
    for pid in {process.parent for process in ours if process.role is Role.WORKER} - known:
        seen, there = process_list.Seen.of(pid, _RELEASE), process_list.identified(pid, Role.MASTER)
        if seen is not None and there is not None and seen.place == releases and seen.user == os.geteuid():
            results.append(there)
    return results


HAPROXY: Final = HaproxyProgram()
