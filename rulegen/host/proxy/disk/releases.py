"""Configurations on disk: each a folder of its own that never changes, one of them live.

    DIR/releases/<digest>/    a release: the files of a configuration, and MANIFEST, its list of contents
    DIR/current               the release that the program reads, a symbolic link
    DIR/good                  the release that it last proved to serve with, a symbolic link

A release is built beside its place and renamed when it is complete, and a link is replaced by a rename: whatever kills
us leaves the old or the new, whole. Files that did not change are hard links, so a release costs what changed.

The program reads them as root, workers of nginx open password files alone: so all is ours, and the workers' group may
enter folders on the way to those. What stands in DIR may still be anything: nothing is read through a link or a FIFO.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from rulegen.errors import ApplyError, HostError
from rulegen.host.files import trust
from rulegen.host.locks.file_locks import locked
from rulegen.host.proxy.disk.release_files import (
    MANIFEST,
    WantedFile,
    WrittenRelease,
    check_names,
    close_files,
    contents,
    is_folder,
    listed,
    rights,
    unwanted_password_files,
)
from rulegen.host.proxy.disk.spare import SpareRelease
from rulegen.host.proxy.disk.verified_files import VerifiedFiles
from rulegen.host.proxy.disk.writing import exchange, hint, not_written, reason, remove, synchronize, write_new
from rulegen.languages.configuration import Configuration
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from rulegen.host.proxy.program import ProxyProgram

KEEP: Final = 3
"""Releases that stay on disk, the live one among them."""

CURRENT: Final = "current"
GOOD: Final = "good"

_PARTIAL: Final = ".partial"
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}\Z")
_OURS: Final = frozenset({"releases", "run", "logs", "known", "current", "good", "default.pem", "lost+found"})
_PRIVATE_FOLDER: Final = 0o700
_PASSED_FOLDER: Final = 0o710
_PRIVATE_MODE: Final = 0o600
_WORKERS_MODE: Final = 0o640


class Releases:
    """The releases in one folder.

    Attributes:
        folder: DIR. It is made where it is not there; it must be ours, and nobody else may write to it.
    """

    def __init__(
        self, folder: Path, program: ProxyProgram, *, worker_group: int | None = None, keeps_spare: bool = False
    ) -> None:
        """Take a folder.

        Args:
            folder: DIR.
            program: The program that reads the releases.
            worker_group: Id of the group that may read files which workers read; None leaves them to us alone.
            keeps_spare: Whether a folder is kept of which the next release is made.
        """
        self.folder = folder
        self._form, self._name = program.form, program.name
        # without privileges workers run as we do
        shares = worker_group is not None and os.geteuid() == 0
        self._group = worker_group if worker_group is not None and shares else os.getegid()
        self._folder_mode = _PASSED_FOLDER if shares else _PRIVATE_FOLDER
        self._workers_mode = _WORKERS_MODE if shares else _PRIVATE_MODE
        self._verified = VerifiedFiles()
        self._latest: Path | None = None  # what is tried shares its files with what was tried before, too
        self._keeps_spare = keeps_spare
        self._spare = SpareRelease(program.form.folders)
        self._written: dict[str, WrittenRelease] = {}
        self._checked: tuple[Configuration, dict[str, WantedFile]] | None = None

    def prepare(self) -> None:
        """Create the folder and its subfolders, and restrict access to the users that need it.

        A folder that holds other things than ours keeps its mode.

        Raises:
            HostError: It cannot be made, or another user could write to it or exchange it.
        """
        try:
            with trust.folder(self.folder, make_mode=_PRIVATE_FOLDER) as home:
                self._close(home)
                for name in ("releases", "run", "logs"):
                    with trust.inner(home, name, self.folder / name, make=True) as inner:
                        trust.give(inner, self._folder_mode, self._group)
                        if name != "releases":
                            trust.check_written(inner, self.folder / name, all_ours=name == "run")
                        if name == "logs":
                            close_files(inner)
        except OSError as error:
            raise self._unusable(error) from None

    def _close(self, home: int) -> None:
        """Have none but us and the workers enter the folder: a process in there may pass for a worker of ours."""
        others = [name for name in os.listdir(home) if name not in _OURS and not name.startswith(".")]
        if not others:
            trust.give(home, self._folder_mode, self._group)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder; wait while another writer has the lock.

        Raises:
            HostError: The folder cannot be used.
        """
        self.prepare()
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "run" / "apply.lock"))
            except OSError as error:
                raise self._unusable(error) from None
            yield

    def _unusable(self, error: OSError) -> HostError:
        return HostError(f"the folder of {self._name} cannot be used: {reason(error, self.folder)}", hint=hint(error))

    def path(self, digest: str) -> Path:
        """Return the folder of a release, which need not exist."""
        if not _DIGEST.match(digest):
            raise HostError(f"{printable(digest)!r} does not name a release")
        return self.folder / "releases" / digest

    def write(self, configuration: Configuration) -> Path:
        """Write a release and return its folder; an existing one stays, unless another program changed it.

        Raises:
            HostError: A file has a name that no release has, or the folder cannot be used.
            ApplyError: It could not be written; nothing of it is left, and the live release stays live.
        """
        wanted = self._wanted(configuration)
        place = self.path(configuration.digest)
        self.prepare()
        partial = place.with_name(place.name + _PARTIAL)
        try:
            if self._is_whole(place, wanted):
                self._written[configuration.digest] = WrittenRelease.of(configuration, wanted)
                return place
            self._remove(partial)
            self._build(partial, configuration, wanted)
            if os.path.lexists(place):
                exchange(partial, place)
                self._remove(partial)
            else:
                partial.rename(place)
            self._latest = place
            self._written[configuration.digest] = WrittenRelease.of(configuration, wanted)
        except OSError as error:
            with suppress(OSError):
                self._remove(partial)
            raise not_written(configuration, self._name, self._served(), error, self.folder) from None
        return place

    def _remove(self, place: Path) -> None:
        with self._all() as releases:
            remove(place.name, dir_fd=releases)

    def is_whole(self, configuration: Configuration) -> bool:
        """Return whether a release on disk has exactly the intended files; raises HostError as `write` does."""
        return self._is_whole(self.path(configuration.digest), self._wanted(configuration))

    def write_for_good(self, configuration: Configuration) -> None:
        """Write a release that becomes live without a test: files that another program has changed are written again.

        Errors are as for `write`.
        """
        if not self._is_whole(self.write(configuration), self._wanted(configuration), reads_all=False):
            self.write(configuration)

    def switch(self, digest: str) -> None:
        """Make a release live: the program reads it at its next start or reload.

        Raises:
            ApplyError: It cannot be done; the release that was live still is.
        """
        self._point(CURRENT, digest)

    def confirm(self, digest: str) -> None:
        """Record that the program serves a release: the supervisor reverts to it if a later one fails."""
        self._point(GOOD, digest)

    def forget(self) -> None:
        """Remove the link to the live release, so that the program is not started with it after a reboot."""
        try:
            with suppress(FileNotFoundError), trust.folder(self.folder) as home:
                os.unlink(CURRENT, dir_fd=home)
        except OSError as error:
            raise HostError(f"{CURRENT} cannot be removed: {reason(error, self.folder)}", hint=hint(error)) from None

    def live(self) -> str:
        """Return the digest of the live release; empty if there is none."""
        return self._pointed(CURRENT)

    def good(self) -> str:
        """Return the digest of the last release that the program has confirmed; empty if there is none."""
        return self._pointed(GOOD)

    def current(self) -> Configuration | None:
        """Return the live configuration as it is on disk; None if there is none.

        Raises:
            HostError: It is there but cannot be read.
        """
        digest = self.live()
        return self.read(digest) if digest else None

    def read(self, digest: str) -> Configuration:
        """Return a release as it is on disk, with files that others added, and without those that they deleted.

        Raises:
            HostError: It cannot be read.
        """
        place = self.path(digest)
        try:
            with self._opened(digest) as folders:
                files, secrets = contents(folders, self._form)
        except OSError as error:
            raise HostError(
                f"release {digest} of {self._name} cannot be read: {reason(error, self.folder)}", hint=hint(error)
            ) from None
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise HostError(f"release {digest} of {self._name} is damaged: {place / MANIFEST} is not a list") from None
        return Configuration(files=files, secrets=secrets, digest=digest)

    @contextmanager
    def _all(self) -> Iterator[int]:
        """Yield a descriptor of the folder with all releases.

        Raises:
            OSError: It is not there, or it or one above is not ours alone, or a link.
        """
        with (
            trust.folder(self.folder) as home,
            trust.inner(home, "releases", self.folder / "releases") as releases,
        ):
            yield releases

    @contextmanager
    def _opened(self, digest: str) -> Iterator[dict[str, int]]:
        """Yield descriptors of a release's folders by their names, its own under the empty one.

        Raises:
            OSError: One of them is not there, or one or a folder above is not ours alone, or a link.
        """
        place = self.path(digest)
        with ExitStack() as stack, self._all() as releases, trust.inner(releases, digest, place) as release:
            inner = {name: stack.enter_context(trust.inner(release, name, place / name)) for name in self._form.folders}
            yield {"": release, **inner}

    def discard(self, digest: str) -> None:
        """Delete a release, unless it is live or the last confirmed one."""
        if digest not in {self.live(), self.good()}:
            with suppress(OSError), self._all() as releases:
                self._retire(self.path(digest).name, releases)

    def prune(self, keep: int = KEEP) -> None:
        """Delete all but the newest `keep` releases, and incomplete ones.

        The live one stays, and so does the one that last proved to serve. One that goes may stay as the folder of which
        the next one is made.
        """
        spared = {self.live(), self.good()} - {""}
        with suppress(OSError), self._all() as releases:  # nothing was written yet
            entries = sorted(
                os.scandir(releases), key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns, reverse=True
            )
            others = [entry.name for entry in entries if entry.name not in spared | {self._spare.name}]
            room = max(keep - len(spared), 0)
            kept = [name for name in others if _DIGEST.match(name)][:room]
            for name in others:
                if name not in kept:
                    with suppress(OSError):
                        self._retire(name, releases)

    def _retire(self, name: str, releases: int) -> None:
        """Take a release away, or keep its folder for the next one."""
        written = self._written.pop(name, None)
        if written is None or not self._keeps_spare or not self._spare.retire(name, written, releases=releases):
            remove(name, dir_fd=releases)

    def prepare_next(self, configuration: Configuration) -> None:
        """Prepare the folder for the next release: hard links to the files of the live release.

        Where that cannot be done, the next release is written without.
        """
        if not self._keeps_spare or self._spare.name:
            return
        wanted = self._wanted(configuration)
        spare = self.path(configuration.digest)
        spare = spare.with_name(self._spare.name_for(spare.name))
        try:
            self._remove(spare)
            self._build(spare, configuration, wanted)
        except OSError:
            with suppress(OSError):
                self._remove(spare)
        else:
            self._spare.keep(spare.name, wanted)

    def _wanted(self, configuration: Configuration) -> dict[str, WantedFile]:
        if self._checked is not None and self._checked[0] is configuration:
            return self._checked[1]
        group = os.getegid()
        known = self._checked[1] if self._checked is not None else {}
        wanted = {
            name: file
            if (file := known.get(name)) is not None and file.written is text
            else WantedFile(text, _PRIVATE_MODE, group)
            for name, text in configuration.files.items()
        }
        for name, secret in configuration.secrets.items():
            readers = (self._workers_mode, self._group) if secret.for_workers else (_PRIVATE_MODE, group)
            wanted[name] = WantedFile(secret.content, *readers)
        check_names(configuration, wanted.keys() - known.keys(), self._form)
        self._checked = configuration, wanted
        return wanted

    def _is_whole(self, place: Path, wanted: Mapping[str, WantedFile], *, reads_all: bool = True) -> bool:
        holds = self._verified.reads if reads_all else self._verified.holds
        try:
            with self._opened(place.name) as folders:
                if any(rights(descriptor) != self._entrants(name) for name, descriptor in folders.items()):
                    return False
                if not stat.S_ISREG(os.stat(MANIFEST, dir_fd=folders[""], follow_symlinks=False).st_mode):
                    return False
                # one more file would be read where the main file includes `hosts/*.conf`
                there = {f"{name}/{inner}" for name in self._form.included for inner in os.listdir(folders[name])}  # noqa: PTH208
                return there <= wanted.keys() and all(holds(name, file, folders) for name, file in wanted.items())
        except OSError:
            return False

    def _entrants(self, name: str) -> tuple[int, int]:
        """Return the mode and the group of a folder of a release."""
        return (self._folder_mode, self._group) if name in self._form.for_workers else (_PRIVATE_FOLDER, os.getegid())

    def _build(self, partial: Path, configuration: Configuration, wanted: Mapping[str, WantedFile]) -> None:
        live = self.path(self.live()) if self.live() else None
        new = [partial / MANIFEST]
        with ExitStack() as stack:
            targets, stay = self._begun(partial, wanted, stack)
            sources: list[dict[str, int]] = []
            for source in filter(None, (live, self._latest)):
                with suppress(OSError):  # a damaged one: its files are written again
                    sources.append(stack.enter_context(self._opened(source.name)))
            for name, file in wanted.items():
                if name not in stay and not self._verified.linked(name, file, sources, targets):
                    write_new(partial / name, file.content, file.mode, file.group)
                    new.append(partial / name)
        self._verified.keep(wanted)
        if live is not None:
            self._keep_for_old_workers(live, partial, wanted)
        write_new(partial / MANIFEST, listed(configuration), _PRIVATE_MODE, os.getegid())
        # before it gets its name, and so before it can be live: a power cut must not leave empty files
        synchronize(partial, new)

    def _begun(
        self, partial: Path, wanted: Mapping[str, WantedFile], stack: ExitStack
    ) -> tuple[dict[str, int], Collection[str]]:
        """Return descriptors of a new release's folders, and the names of the files that it has already."""
        releases = stack.enter_context(self._all())
        begun = self._spare.begin(partial, wanted, releases, stack)
        if begun is not None:
            return begun
        targets = {}
        for name in ("", *self._form.folders):
            targets[name] = stack.enter_context(self._new_folder(partial / name, name))
        return targets, ()

    @contextmanager
    def _new_folder(self, place: Path, name: str) -> Iterator[int]:
        """Make a folder of a release, with the rights that it must have; yield a descriptor of it."""
        place.mkdir(_PRIVATE_FOLDER)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            trust.give(descriptor, *self._entrants(name))
            yield descriptor
        finally:
            os.close(descriptor)

    def _keep_for_old_workers(self, before: Path, partial: Path, wanted: Mapping[str, WantedFile]) -> None:
        """Link password files which are no longer wanted: old workers open them by `current` at each request."""
        known = self._written.get(before.name)
        if known is not None and not known.for_workers:
            return
        try:
            with self._opened(before.name) as folders:
                kept = unwanted_password_files(folders, wanted, self._form)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return  # a damaged release: those few requests are answered with an error
        for name in kept:
            os.link(before / name, partial / name, follow_symlinks=False)

    def _point(self, name: str, digest: str) -> None:
        target = self.path(digest)
        temporary = f".{name}.new"
        try:
            with trust.folder(self.folder) as home, trust.inner(home, "releases", target.parent) as releases:
                if not is_folder(digest, releases):
                    raise FileNotFoundError(errno.ENOENT, "no such release", str(target))
                remove(temporary, dir_fd=home)
                os.symlink(f"releases/{digest}", temporary, dir_fd=home)
                os.replace(temporary, name, src_dir_fd=home, dst_dir_fd=home)
        except OSError as error:
            raise ApplyError(
                f"release {digest} cannot be made {name}: {reason(error, self.folder)}; {self._served()}",
                applied=(),
                pending=(f"release {digest}",),
                hint=hint(error),
            ) from None

    def _pointed(self, name: str) -> str:
        try:
            target = os.readlink(self.folder / name)  # noqa: PTH115
        except OSError:
            return ""
        folder, _, digest = target.rpartition("/")
        there = folder == "releases" and _DIGEST.match(digest) and (self.folder / target / MANIFEST).exists()
        return digest if there else ""

    def _served(self) -> str:
        return f"release {self.live()} is served as before" if self.live() else "nothing was served before"
