"""Configurations on disk: each a folder of its own that never changes, one of them live.

    DIR/releases/<digest>/    a release: nginx.conf, hosts/, upstreams/, secrets/, and MANIFEST, its list of contents
    DIR/current               the release that nginx reads, a symbolic link
    DIR/good                  the release that nginx last proved to serve with, a symbolic link

A release is built beside its place and renamed when it is complete, and a link is replaced by a rename: whatever kills
us leaves the old or the new, whole. Files that did not change are hard links, so a release costs what changed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import ApplyError, HostError
from rulegen.host.nginx.disk import check_ours, exchange, hint, holds, linked, reason, synchronize, write_new
from rulegen.host.nginx.locks import locked
from rulegen.kube.wording import printable
from rulegen.languages.nginx.configuration import SECRETS, Configuration, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEEP: Final = 3
"""Releases that stay on disk, the live one among them."""

CURRENT: Final = "current"
GOOD: Final = "good"

_MANIFEST: Final = "MANIFEST"
_PARTIAL: Final = ".partial"
_NAME: Final = re.compile(r"(?:nginx\.conf|(?:hosts|upstreams|secrets)/[0-9a-f]{8,64}(?:\.[a-z]{1,12})?)\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}\Z")
_FOLDERS: Final = (("hosts", 0o755), ("upstreams", 0o755), ("secrets", 0o711))
"""Whoever may not list `hosts` would include nothing by `hosts/*.conf`, and hear no complaint."""
_TEXT_MODE: Final = 0o644
_SECRET_MODE: Final = 0o600
_WORKERS_MODE: Final = 0o640


class _Wanted(NamedTuple):
    """A file of a release: its bytes, who may read it, and the group of those."""

    content: bytes
    mode: int
    group: int


class Releases:
    """The releases in one folder.

    Attributes:
        folder: DIR. It is made where it is not there; it must be ours, and nobody else may write to it.
    """

    def __init__(self, folder: Path, *, worker_group: int | None = None) -> None:
        """Take a folder.

        Args:
            folder: DIR.
            worker_group: Id of the group that may read files which workers read; None leaves them to us alone.
        """
        self.folder = folder
        # without privileges nginx's workers run as we do
        self._group = os.getegid() if worker_group is None or os.geteuid() != 0 else worker_group
        self._latest: Path | None = None  # what is tried shares its files with what was tried before, too

    def prepare(self) -> None:
        """Make the folder and those in it.

        Raises:
            HostError: It cannot be made, is not ours, or others may write to it.
        """
        try:
            for path, mode in (
                (self.folder, 0o755),
                (self.folder / "releases", 0o711),
                (self.folder / "run", 0o711),
                (self.folder / "logs", 0o711),
            ):
                path.mkdir(mode=mode, parents=True, exist_ok=True)
                check_ours(path)
        except OSError as error:
            raise HostError(f"the folder of nginx cannot be used: {reason(error)}", hint=hint(error)) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other writers out; wait for the one that is at work.

        Raises:
            HostError: The folder cannot be used.
        """
        self.prepare()
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "run" / "apply.lock"))
            except OSError as error:
                raise HostError(f"the folder of nginx cannot be used: {reason(error)}", hint=hint(error)) from None
            yield

    def path(self, digest: str) -> Path:
        """Return the folder of a release, whether it is there or not."""
        if not _DIGEST.match(digest):
            raise HostError(f"{printable(digest)!r} does not name a release")
        return self.folder / "releases" / digest

    def write(self, configuration: Configuration) -> Path:
        """Write a release and return its folder; one that is there already stays, unless somebody changed it.

        Raises:
            HostError: A file has a name that no release has, or the folder cannot be used.
            ApplyError: It could not be written; nothing of it is left, and what was live still is.
        """
        wanted = self._wanted(configuration)
        place = self.path(configuration.digest)
        self.prepare()
        partial = place.with_name(place.name + _PARTIAL)
        try:
            if self._is_whole(place, wanted):
                return place
            if partial.exists():
                shutil.rmtree(partial)
            self._build(partial, configuration, wanted)
            if place.exists():
                exchange(partial, place)
                shutil.rmtree(partial)
            else:
                partial.rename(place)
            self._latest = place
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise self._not_written(configuration, error) from None
        return place

    def is_whole(self, configuration: Configuration) -> bool:
        """Tell whether a release is on disk just as it is meant to be.

        Raises:
            HostError: A file has a name that no release has.
        """
        return self._is_whole(self.path(configuration.digest), self._wanted(configuration))

    def switch(self, digest: str) -> None:
        """Make a release the live one: what nginx reads at its next start or reload.

        Raises:
            ApplyError: It cannot be done; the release that was live still is.
        """
        self._point(CURRENT, digest)

    def confirm(self, digest: str) -> None:
        """Note that nginx serves with a release: what to go back to when a later one fails."""
        self._point(GOOD, digest)

    def forget(self) -> None:
        """Have no live release: what nothing is served with is not started after a reboot either."""
        with suppress(FileNotFoundError):
            (self.folder / CURRENT).unlink()

    def live(self) -> str:
        """Return the digest of the live release; empty where there is none."""
        return self._pointed(CURRENT)

    def good(self) -> str:
        """Return the digest of the release that nginx last proved to serve with; empty where there is none."""
        return self._pointed(GOOD)

    def current(self) -> Configuration | None:
        """Return the live configuration as it is on disk; None where there is none.

        Raises:
            HostError: It is there but cannot be read.
        """
        digest = self.live()
        return self.read(digest) if digest else None

    def read(self, digest: str) -> Configuration:
        """Return a release as it is on disk, with what others put where nginx would read it, without what they took.

        Raises:
            HostError: It cannot be read.
        """
        place = self.path(digest)
        try:
            listed = json.loads((place / _MANIFEST).read_bytes())
            names = {*(name for name in listed["files"] if _NAME.match(name)), *_included(place)}
            files = {name: text for name in sorted(names) if (text := _text_of(place / name)) is not None}
            secrets = {name: bool(workers) for name, workers in listed["secrets"].items() if _NAME.match(name)}
            kept = {
                n: Secret((place / n).read_bytes(), workers) for n, workers in secrets.items() if (place / n).exists()
            }
        except OSError as error:
            raise HostError(f"release {digest} of nginx cannot be read: {reason(error)}", hint=hint(error)) from None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise HostError(f"release {digest} of nginx is damaged: {place / _MANIFEST} is no list") from None
        return Configuration(files=files, secrets=kept, digest=digest)

    def discard(self, digest: str) -> None:
        """Take a release away, unless it is live or to be gone back to."""
        if digest not in {self.live(), self.good()}:
            shutil.rmtree(self.path(digest), ignore_errors=True)

    def prune(self, keep: int = KEEP) -> None:
        """Take away all but the youngest `keep` releases, and what was never completed.

        The live one stays, and so does the one that nginx last proved to serve with.
        """
        spared = {self.live(), self.good()} - {""}
        try:
            entries = sorted(os.scandir(self.folder / "releases"), key=lambda e: e.stat().st_mtime_ns, reverse=True)
        except OSError:
            return  # nothing was written yet
        others = [entry for entry in entries if entry.name not in spared]
        young = {entry.name for entry in others if _DIGEST.match(entry.name)}
        room = max(keep - len(spared), 0)
        kept = [entry.name for entry in others if entry.name in young][:room]
        for entry in others:
            if entry.name not in kept:
                shutil.rmtree(entry.path, ignore_errors=True)

    def _wanted(self, configuration: Configuration) -> dict[str, _Wanted]:
        wanted = {
            name: _Wanted(text.encode("utf-8", "surrogateescape"), _TEXT_MODE, os.getegid())
            for name, text in configuration.files.items()
        }
        for name, secret in configuration.secrets.items():
            mode, group = (_WORKERS_MODE, self._group) if secret.for_workers else (_SECRET_MODE, os.getegid())
            wanted[name] = _Wanted(secret.content, mode, group)
        wrong = next((name for name in wanted if not _NAME.match(name)), None)
        if wrong is None:
            wrong = next((name for name in configuration.files if name.startswith(SECRETS)), None)
        if wrong is None:
            wrong = next((name for name in configuration.secrets if not name.startswith(SECRETS)), None)
        if wrong is not None:
            raise HostError(f"{printable(wrong)!r} is no file of a release")
        return wanted

    def _is_whole(self, place: Path, wanted: Mapping[str, _Wanted]) -> bool:
        if not all((place / name).exists() for name in (_MANIFEST, "hosts", "upstreams", "secrets")):
            return False
        # one more file would be read where the main file includes `hosts/*.conf`
        there = {f"{name}/{entry.name}" for name in ("hosts", "upstreams") for entry in os.scandir(place / name)}
        return there <= wanted.keys() and all(holds(place / name, *file) for name, file in wanted.items())

    def _build(self, partial: Path, configuration: Configuration, wanted: Mapping[str, _Wanted]) -> None:
        for place, mode in ((partial, 0o755), *((partial / name, mode) for name, mode in _FOLDERS)):
            place.mkdir()
            place.chmod(mode)  # whatever our umask is
        live = self.path(self.live()) if self.live() else None
        sources = [place for place in (live, self._latest) if place is not None]
        new = [partial / _MANIFEST]
        for name, (content, mode, group) in wanted.items():
            same = [source / name for source in sources if holds(source / name, content, mode, group)]
            if not same or not linked(same[0], partial / name):
                write_new(partial / name, content, mode, group)
                new.append(partial / name)
        if live is not None:
            self._keep_for_old_workers(live, partial, wanted)
        secrets = {name: secret.for_workers for name, secret in configuration.secrets.items()}
        listed = json.dumps({"files": sorted(configuration.files), "secrets": secrets}).encode()
        write_new(partial / _MANIFEST, listed, _SECRET_MODE, os.getegid())
        # before it gets its name, and so before it can be live: a power cut must not leave empty files
        synchronize(partial, new)

    def _keep_for_old_workers(self, before: Path, partial: Path, wanted: Mapping[str, _Wanted]) -> None:
        """Link password files which are no longer wanted: old workers open them by `current` at each request."""
        try:
            listed = json.loads((before / _MANIFEST).read_bytes())["secrets"]
        except (OSError, ValueError, KeyError):
            return  # a damaged release: those few requests are answered with an error
        for name, for_workers in listed.items():
            if for_workers and name not in wanted and _NAME.match(name) and (before / name).is_file():
                os.link(before / name, partial / name)

    def _point(self, name: str, digest: str) -> None:
        target = self.path(digest)
        temporary = self.folder / f".{name}.new"
        try:
            if not target.is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such release", str(target))
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(f"releases/{digest}")
            temporary.replace(self.folder / name)
        except OSError as error:
            raise ApplyError(
                f"release {digest} cannot be made {name}: {reason(error)}; {self._served()}",
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
        there = folder == "releases" and _DIGEST.match(digest) and (self.folder / target / _MANIFEST).exists()
        return digest if there else ""

    def _served(self) -> str:
        return f"release {self.live()} is served as before" if self.live() else "nothing was served before"

    def _not_written(self, configuration: Configuration, error: OSError) -> ApplyError:
        return ApplyError(
            f"the configuration of nginx cannot be written: {reason(error)}; {self._served()}",
            applied=(),
            pending=(f"release {configuration.digest}",),
            hint=hint(error),
        )


def _included(place: Path) -> list[str]:
    """Return what nginx reads of a release beside its main file: the main file names folders, not files."""
    return sorted(
        str(path.relative_to(place)) for name in ("hosts", "upstreams") for path in (place / name).glob("*.conf")
    )


def _text_of(path: Path) -> str | None:
    """Return what a file says; None where it is gone, nothing for what is no file, which is not waited for."""
    if not path.exists():
        return "" if path.is_symlink() else None
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""
