"""What the common code must know of a proxy, the program that serves Ingresses. The supervisor loads this.

Each engine has one object with these properties. The imports are small, because the supervisor lives long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import re
    import signal
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rulegen.host.proxy.process_list import ProxyProcess


class ReleaseForm(NamedTuple):
    """The files of a release.

    Attributes:
        main: The main file.
        folders: The folders with files.
        included: The folders in which the program reads every file, so that another file would be read too.
        names: Matches the names of files, such as `secrets/<hash>.pem`.
        for_workers: The folders that workers enter after they have given up their rights, the release itself as "".
    """

    main: str
    folders: tuple[str, ...]
    included: tuple[str, ...]
    names: re.Pattern[str]
    for_workers: frozenset[str]


class Companion(Protocol):
    """A process that the supervisor runs beside the program."""

    @property
    def is_wanted(self) -> bool:
        """Whether the program uses it, as far as known."""

    def tend(self, run: int, logs: int) -> None:
        """Start, inform or end the process; both arguments are descriptors of folders."""

    def end(self) -> None:
        """End the process."""


class NoCompanion:
    """A program that needs no other process; see `Companion`."""

    is_wanted = False

    def tend(self, run: int, logs: int) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class ProxyProgram(Protocol):
    """A program that rulegen starts, supervises, tests and reloads.

    Attributes:
        name: The name in messages.
        folder_option: The option for its folder.
        module: The module that is started as its supervisor.
        form: The files of a release.
        logs: The names of its logs, beside the messages at its start.
        serious: Matches the part of a line of a log that reports a failure.
        may_pass: Matches a failure that the program tries to overcome.
        reload: The signal that makes the master read `current`.
        may_miss_reload: Whether a master that is just starting can miss that signal. While it obeys it, it does not
            answer.
        finish: The signal that ends it after its open requests; SIGTERM ends it at once.
        reopen: The signal that makes it open its logs again; None if it keeps them.
        installation: The hint if it is not installed.
    """

    name: str
    folder_option: str
    module: str
    form: ReleaseForm
    logs: tuple[str, ...]
    serious: re.Pattern[str]
    may_pass: re.Pattern[str]
    reload: signal.Signals
    may_miss_reload: bool
    finish: signal.Signals
    reopen: signal.Signals | None

    def command(self, folder: Path, program: str) -> list[str]:
        """Return the command line that serves the release `current` of a folder in the foreground."""

    def test_command(self, program: str, folder: Path, release: Path) -> list[str]:
        """Return the command line that tests a release and reports faults on standard error."""

    def failure(self, text: str) -> str:
        """Return a line for a failure at start as the program itself would report it."""

    def refuses(self, code: int, said: str) -> bool:
        """Return whether the program has ended at its start because it rejects its configuration."""

    def test_lines(self, lines: Sequence[str]) -> Sequence[str]:
        """Return the lines that the program itself has written about faults during a test; empty if it has not run."""

    def short(self, line: str) -> str:
        """Return a line of the program without prefixes such as a time."""

    def refused_port(self, message: str) -> int:
        """Return the port that a message reports as in use; 0 for other messages."""

    def processes(self, folder: Path) -> tuple[ProxyProcess, ...]:
        """Return all processes of the program in a folder, oldest first, except those that are just starting."""

    def serves(self, folder: Path) -> str | None:
        """Return the digest that the workers of a folder serve; None without an answer."""

    def worker_serves(self, folder: Path) -> str | None:
        """Return the digest that a worker of a folder serves, also if its master hangs; None without an answer."""

    def hindrance(self, folder: Path) -> str:
        """Return why the program cannot be reloaded although it serves, as far as known; the answer takes seconds."""

    def has_socket(self, folder: Path) -> bool:
        """Return whether the socket for such questions exists."""

    def close_sockets(self, run: int) -> None:
        """Restrict the sockets in the folder `run`, given by its descriptor, to those who need them."""

    def inherited(self, orphans: tuple[ProxyProcess, ...], run: int) -> dict[str, str] | None:
        """Return the environment that hands over the sockets of workers without a master; None if there are none.

        Without any, sockets of a killed master are deleted from the folder `run`.
        """

    def companion(self, write: Callable[[str], None]) -> Companion:
        """Return the process that the supervisor runs beside it; `write` writes to the supervisor's log."""
