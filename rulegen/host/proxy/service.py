"""Serves a configuration: writes it, tests it, switches to it, and confirms it by the answers of new workers.

    write release ─► try it ─► current ─► start, or reload ─► ask for the digest ─► good
                                                              └─ no proof ─► current back ─► reload ─► ask ─► error

If this process is killed at any point, `current` is a complete old or new release, and the next apply continues from
there.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome
from rulegen.errors import ApplyError, HostError
from rulegen.host.files import trust
from rulegen.host.proxy import process_list as processes
from rulegen.host.proxy.disk import writing
from rulegen.host.proxy.disk.releases import Releases
from rulegen.host.proxy.processes import ports, supervision
from rulegen.host.proxy.processes.confirmation import Complaints, ReleaseRefusedError, answers, still_answers, wait_for
from rulegen.host.proxy.processes.ending import ended
from rulegen.host.proxy.sandbox import trial
from rulegen.waits import WAITS, StoppingError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from rulegen.host.commands.runner import Runner
    from rulegen.host.proxy.program import ProxyProgram
    from rulegen.languages.configuration import Configuration

CONFIRM_S: Final = 30.0
"""The time limit for the answers of new workers; each file adds `_PER_FILE_S`. 5,000 hosts with TLS take 18 s."""
GENERATIONS: Final = 4
"""The most generations of old workers with open connections beside the new workers."""
_PER_FILE_S: Final = 0.01
_ENDED_S: Final = 5.0
_NEW_S, _KNOWN_S = 10.0, 1.0
"""The time limits for an answer of the process beside the program: a new one, and a running one."""
_NO_SCRATCH: Final = "cannot create a folder to test the configuration"
_RENEWED: Final = "the supervisor ran another version of rulegen and was replaced"


class HinderedError(HostError):
    """The program serves, but cannot be reloaded now. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Status:
    """The processes of a folder.

    Attributes:
        master: The process id of the program's master; 0 if none runs.
        supervisor: The process id of the supervisor; 0 if none runs.
        digest: The answer of the workers; empty without an answer.
        workers: The number of workers that take new connections.
        leaving: The number of workers that only finish their requests.
        generations: The number of generations of workers, including the new one.
    """

    master: int
    supervisor: int
    digest: str
    workers: int
    leaving: int
    generations: int


class ProxyService:
    """The program of one folder."""

    def __init__(
        self,
        folder: Path,
        run: Runner,
        program: ProxyProgram,
        *,
        binary: str = "",
        worker_group: int | None = None,
        confirm_s: float = CONFIRM_S,
        keeps_spare: bool = False,
    ) -> None:
        """Take a folder.

        Args:
            folder: DIR, which the first apply creates.
            run: Runs the tools.
            program: The program.
            binary: Its name or path; by default its usual name.
            worker_group: The group id of workers, which reads files of theirs.
            confirm_s: The time limit for answers of new workers, without the part that depends on the configuration's
                size.
            keeps_spare: Whether the folder of an old release is kept for the next one; for a process that writes many.
        """
        self.folder = folder.absolute()
        self.releases = Releases(self.folder, program, worker_group=worker_group, keeps_spare=keeps_spare)
        self._run = run
        self._program = program
        self._binary = binary or program.name
        self._confirm_s = confirm_s

    @contextmanager
    def aside(self) -> Iterator[ProxyService]:
        """Yield a service of a temporary folder, so that a test leaves nothing in this folder.

        Raises:
            HostError: The folder cannot be created, or another user could replace it.
        """
        try:
            scratch = tempfile.mkdtemp(prefix=f"rulegen-{self._program.name}-")
            os.close(trust.open_folder(Path(scratch).absolute()))
        except trust.UntrustedError as error:
            raise HostError(f"{_NO_SCRATCH}: {error.filename} {error.strerror}", hint="set TMPDIR=/tmp") from None
        except OSError as error:
            raise HostError(f"{_NO_SCRATCH}: {writing.reason(error)}", hint=writing.hint(error)) from None
        try:
            yield ProxyService(Path(scratch), self._run, self._program, binary=self._binary)  # no worker enters it
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def taken_ports(self, listens: Collection[int]) -> tuple[ports.PortHolder, ...]:
        """Return the other listeners on the TCP ports of the program."""
        ours = {process.pid for process in self._program.processes(self.folder)}
        return ports.holders(listens, ours=ours)

    def test(self, configuration: Configuration) -> trial.TrialResult:
        """Return the result of a test of a configuration; the served one stays as it is.

        Raises:
            HostError: The configuration cannot be tested.
        """
        with self.releases.locked():
            return self._tried(configuration)

    def apply(
        self,
        configuration: Configuration,
        *,
        listens: Collection[int] = (),
        tested: bool = False,
    ) -> DeployOutcome:
        """Serve a configuration; return when all new connections are served with it.

        Args:
            configuration: The configuration.
            listens: Its TCP ports; a port in use is reported before any change.
            tested: Whether `test` has just accepted it.

        Raises:
            HostError: A port is in use, a program is missing, or the folder cannot be used. Nothing has changed.
            ApplyError: The configuration was rejected or could not be written. The one before is still served.
        """
        with self.releases.locked():
            digest = configuration.digest
            notes = [_RENEWED] if supervision.renew(self.folder, self._binary, self._program) else []
            served = self.releases.live() == digest and answers(self._program, self.folder, digest)
            if served and self.releases.is_whole(configuration):
                self._inform()
                outcome = self._nothing_to_do(digest, notes)
                self.releases.prepare_next(configuration)
                return outcome
            self._check_ports(listens)
            if hindrance := self.hindrance():
                raise HinderedError(hindrance)
            if not tested:
                verdict = self._tried(configuration)
                if verdict.message is not None:
                    raise self._refused(configuration, verdict.message)
                notes += [verdict.note] if verdict.note else []
            before = self.releases.good() or self.releases.live()
            self._write(configuration)
            notes += self._cap_generations()
            self._inform()
            if supervision.supervisor_pid(self.folder):
                notes += self._await_companion(_NEW_S)
            self.releases.switch(digest)
            outcome = self._bring_up(configuration, before, tuple(notes))
            outcome = replace(outcome, notes=tuple(dict.fromkeys((*outcome.notes, *self._await_companion(_NEW_S)))))
            self.releases.confirm(digest)
            self.releases.prune()
            self.releases.prepare_next(configuration)
            return outcome

    def update(
        self, configuration: Configuration, change: Callable[[], bool], *, confirms: bool = True
    ) -> DeployOutcome | None:
        """Serve a configuration by changes of the running program; None if it needs a start or a reload.

        The release is live before the program is changed, so that a restart at any time serves all of it.

        Args:
            configuration: The configuration, which the program accepts.
            change: Changes the program; returns whether it serves the configuration now.
            confirms: Whether it then serves all of it, so that another release that fails may be replaced by it.

        Raises:
            HostError: The folder cannot be used, or the configuration cannot be written. The one before is served.
        """
        began = time.monotonic()
        with self.releases.locked():
            if not supervision.supervisor_pid(self.folder):
                return None
            notes: tuple[str, ...] = (_RENEWED,) if supervision.renew(self.folder, self._binary, self._program) else ()
            self.releases.write_for_good(configuration)
            self._inform()
            notes = (*notes, *self._await_companion(_NEW_S))
            self.releases.switch(configuration.digest)
            if not change():
                return None
            if confirms:
                self.releases.confirm(configuration.digest)
            self.releases.prune()
            self.releases.prepare_next(configuration)
        return DeployOutcome(configuration.digest, DeployAction.UPDATED, time.monotonic() - began, notes)

    def answer(self) -> str:
        """Return the digest that a worker answers; empty without an answer within seconds."""
        return (self._program.worker_serves(self.folder) or "") if self.folder.is_dir() else ""

    def hindrance(self) -> str:
        """Return why the program cannot be reloaded although it serves, as far as known; empty if it can."""
        return self._program.hindrance(self.folder) if self.folder.is_dir() else ""

    def status(self) -> Status:
        """Return the running processes."""
        running = self._program.processes(self.folder)
        master = processes.master(running)
        current, old = len(processes.workers(running)), len(processes.leaving(running))
        return Status(
            master=master.pid if master else 0,
            supervisor=supervision.supervisor_pid(self.folder),
            digest=self._program.serves(self.folder) or "",
            workers=current,
            leaving=old,
            generations=(1 if current else 0) + -(-old // max(current, 1)),  # each as large as the present one
        )

    def has_begun(self) -> bool:
        """Return whether the folder has files of the program. Changes nothing.

        Raises:
            HostError: The folder has other files than those of the program.
        """
        try:
            names = {entry.name for entry in os.scandir(self.folder)}
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(
                f"the folder of {self._program.name} cannot be read: {writing.reason(error)}", hint=writing.hint(error)
            ) from None
        if names and "releases" not in names:
            raise HostError(
                f"{self.folder} is not the folder of an {self._program.name} that rulegen started: it has no releases/",
                hint=f"give the folder that `apply` or `run` was given: {self._program.folder_option} DIR",
            )
        return bool(names)

    def runs(self) -> bool:
        """Return whether the program or its supervisor runs in the folder. Changes nothing."""
        has_supervisor = (self.folder / "run").is_dir() and supervision.supervisor_pid(self.folder) != 0
        return has_supervisor or bool(self._program.processes(self.folder))

    def drain(self, timeout_s: float = 60.0, *, remove: bool = False) -> bool:
        """End the program after its open requests; return whether all of them ended.

        Args:
            timeout_s: After this time in seconds, open connections are closed.
            remove: Whether to delete the folder too.

        Raises:
            HostError: The program does not end, or the folder cannot be deleted.
        """
        if not self.folder.exists():
            return True
        with self.releases.locked():
            tried = ((self._program.finish, timeout_s), (signal.SIGTERM, _ENDED_S), (signal.SIGKILL, _ENDED_S))
            results = (ended(self.folder, self._program, number, limit_s) for number, limit_s in tried)
            in_time = next(results)
            if not in_time and not any(results):
                raise HostError(
                    f"{self._program.name} in {self.folder} does not stop", hint="find the remaining processes: ps -ef"
                )
            if remove:
                self._remove()
        return in_time

    def _remove(self) -> None:
        """Delete the folder, or only its content if it is a mount point."""
        try:
            if self.folder.is_mount():
                for path in self.folder.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            else:
                shutil.rmtree(self.folder)
        except OSError as error:
            raise HostError(f"{self.folder} cannot be removed: {error.strerror}") from None

    def _nothing_to_do(self, digest: str, notes: list[str]) -> DeployOutcome:
        if supervision.ensure(self.folder, self._binary, self._program):
            notes = [*notes, "the supervisor had ended and was started again"]
        if self.releases.good() != digest:
            self.releases.confirm(digest)
        patience_s = _NEW_S if notes else _KNOWN_S
        return DeployOutcome(digest, DeployAction.NOTHING, notes=(*notes, *self._await_companion(patience_s)))

    def _inform(self) -> None:
        """Write the settings of the process that the supervisor runs beside the program; by default there is none.

        Raises:
            HostError: They cannot be written.
        """

    def _await_companion(self, patience_s: float = 0.0) -> list[str]:  # noqa: ARG002 - of those that have one
        """Wait until that process answers; return a warning if it does not."""
        return []

    def _tried(self, configuration: Configuration) -> trial.TrialResult:
        verdict = self._test_of(configuration)
        if verdict.message is not None and not self.releases.is_whole(configuration):
            # A file was changed by another program: files shared with earlier releases were not read before.
            verdict = self._test_of(configuration)
        if verdict.message is not None:
            self.releases.discard(configuration.digest)
        return verdict

    def _write(self, configuration: Configuration) -> Path:
        """Write a release and return its folder; HostError is as for `Releases.write`."""
        with WAITS.waiting(f"the disk: writing release {configuration.digest} to {self.folder}"):
            return self.releases.write(configuration)

    def _test_of(self, configuration: Configuration) -> trial.TrialResult:
        limit_s = trial.TEST_S + trial.FILE_S * (len(configuration.files) + len(configuration.secrets))
        return trial.try_release(
            self._write(configuration), self.folder, self._run, self._program, binary=self._binary, timeout_s=limit_s
        )

    def _check_ports(self, listens: Collection[int]) -> None:
        taken = self.taken_ports(listens)
        if taken:
            numbers = "--http-port and --https-port choose other ports"
            raise HostError("; ".join(map(str, taken)), hint=f"stop it, or use another port: {numbers}")

    def _cap_generations(self) -> list[str]:
        """End the oldest workers if another reload would leave too many generations."""
        running = self._program.processes(self.folder)
        current, old = len(processes.workers(running)), processes.leaving(running)
        too_many = len(old) - (GENERATIONS - 1) * max(current, 1)
        cut = [process for process in old[: max(too_many, 0)] if processes.send(process, signal.SIGTERM)]
        if not cut:
            return []
        return [f"{len(cut)} old workers were ended with their connections: more than {GENERATIONS} generations ran"]

    def _bring_up(self, configuration: Configuration, before: str, notes: tuple[str, ...]) -> DeployOutcome:
        """Start or reload the program and confirm it; if this fails, return to the release before."""
        began = time.monotonic()
        digest = configuration.digest
        try:
            action = self._serve(digest, self._patience(configuration))
        except StoppingError:
            raise
        except (ReleaseRefusedError, HostError) as error:
            said = error.message
        else:
            return DeployOutcome(digest, action, time.monotonic() - began, notes)
        raise self._gone_back(configuration, before, said)

    def _serve(self, digest: str, patience_s: float) -> DeployAction:
        """Start or reload the program with the live release.

        Raises:
            RefusedError: The program does not serve it.
        """
        running = self._program.processes(self.folder)
        master = processes.master(running)
        complaints = Complaints(self.folder, self._program)
        if master is None:
            if not supervision.ensure(self.folder, self._binary, self._program):
                supervision.tell(self.folder, signal.SIGHUP)
            wait_for(self._program, self.folder, digest, (), complaints, patience_s)
            return DeployAction.STARTED
        if not self._program.has_socket(self.folder):
            # The socket was deleted, and a reload would keep it although no client can connect. A killed master is
            # replaced by one that takes over the other sockets, so that no connection is lost.
            supervision.ensure(self.folder, self._binary, self._program)
            processes.send(master, signal.SIGKILL)
            wait_for(self._program, self.folder, digest, (), complaints, patience_s)
            return DeployAction.STARTED
        processes.send(master, self._program.reload)
        supervision.ensure(self.folder, self._binary, self._program)
        before = processes.workers(running)
        wait_for(self._program, self.folder, digest, before, complaints, patience_s, reloads=master)
        return DeployAction.RELOADED

    def _gone_back(self, configuration: Configuration, before: str, reason: str) -> ApplyError:
        """Return to the release that was served before, and return the error for it."""
        if before == configuration.digest:
            return self._refused(configuration, reason, "it worked before; rulegen keeps trying")
        if not before:
            ended(self.folder, self._program, signal.SIGTERM, _ENDED_S)
            self.releases.forget()
            self.releases.discard(configuration.digest)
            return self._refused(configuration, reason, "nothing is served")
        self.releases.switch(before)
        state = f"release {before} is served as before"
        if self.answer() == before and (hindrance := self.hindrance()):
            state = f"{state}; {hindrance}"
        elif not still_answers(self._program, self.folder, before):
            try:
                self._serve(before, self._patience(configuration))
            except StoppingError:
                raise
            except (ReleaseRefusedError, HostError) as error:
                state = f"and reverting to release {before} failed too: {error.message}"
        self.releases.discard(configuration.digest)
        return self._refused(configuration, reason, state)

    def _refused(self, configuration: Configuration, reason: str, state: str = "") -> ApplyError:
        if not state:
            live = self.releases.live()
            state = f"release {live} is served as before" if live else "nothing was served before"
        return ApplyError(
            f"{self._program.name} does not accept the new configuration: {self._explained(reason)}; {state}",
            applied=(),
            pending=(f"release {configuration.digest}",),
        )

    def _explained(self, reason: str) -> str:
        """Return the listener on a port that the program could not bind."""
        taken = self._program.refused_port(reason)
        held = self.taken_ports({taken}) if taken else ()
        return f"{held[0]}" if held else reason

    def _patience(self, configuration: Configuration) -> float:
        return self._confirm_s + _PER_FILE_S * (len(configuration.files) + len(configuration.secrets))
