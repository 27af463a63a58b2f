"""The spare folder: that of a release that is not needed any more; the next release reuses it.

To link 10,000 files takes longer than all else that a change of one host takes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from rulegen.host.files import trust
from rulegen.host.proxy.disk.writing import remove

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from rulegen.host.proxy.disk.release_files import WantedFile, WrittenRelease

_SPARE: Final = ".spare"


class SpareRelease:
    """At most one folder in `releases/`, and its files as far as this process knows them.

    Another process does not know it, and takes it away as a release that was never completed.
    """

    def __init__(self, folders: Collection[str]) -> None:
        """Have none; take the names of the folders of a release."""
        self._folders = folders
        self.name = ""
        self._held: Mapping[str, WantedFile] = {}

    def name_for(self, digest: str) -> str:
        """Return the name of a folder which becomes the spare one."""
        return digest + _SPARE

    def keep(self, name: str, held: Mapping[str, WantedFile]) -> None:
        """Record the name of the spare folder, and its files."""
        self.name, self._held = name, held

    def retire(self, digest: str, release: WrittenRelease, *, releases: int) -> bool:
        """Make the folder of a release the spare one; return False if there is another spare folder.

        Raises:
            OSError: It cannot be given another name.
        """
        if self.name:
            return False
        name = self.name_for(digest)
        remove(name, dir_fd=releases)
        os.rename(digest, name, src_dir_fd=releases, dst_dir_fd=releases)
        self.keep(name, release.files)
        return True

    def begin(
        self, place: Path, wanted: Mapping[str, WantedFile], releases: int, stack: ExitStack
    ) -> tuple[dict[str, int], Collection[str]] | None:
        """Move the spare folder to the place where a release is built; None if there is none.

        Args:
            place: The new folder; nothing is there.
            wanted: The files of the next release.
            releases: Descriptor of the folder that both are in.
            stack: Closes the descriptors.

        Returns:
            Descriptors of the release's folders, and the names of the files that it has already.

        Raises:
            OSError: The folder can be neither used nor deleted.
        """
        (name, held), (self.name, self._held) = (self.name, self._held), ("", {})
        if not name:
            return None
        try:
            os.rename(name, place.name, src_dir_fd=releases, dst_dir_fd=releases)
            release = stack.enter_context(trust.inner(releases, place.name, place))
            folders = {"": release}
            for inner in self._folders:
                folders[inner] = stack.enter_context(trust.inner(release, inner, place / inner))
            return folders, left_as_wanted(held, wanted, folders)
        except OSError:  # another process has taken it away, or was at work in there
            remove(place.name, dir_fd=releases)
            return None


def left_as_wanted(
    held: Mapping[str, WantedFile], wanted: Mapping[str, WantedFile], folders: Mapping[str, int]
) -> Collection[str]:
    """Delete unneeded files in folders of a former release; return the names of the files that stay.

    No file is read: before a release goes live, each of its files is.

    Args:
        held: The files of the former release.
        wanted: Those of the next one.
        folders: Descriptors by name, that of the release itself under the empty one.

    Raises:
        OSError: A file cannot be deleted.
    """
    stay = set()
    for folder, descriptor in folders.items():
        for base in os.listdir(descriptor):  # noqa: PTH208 - a descriptor's
            name = f"{folder}/{base}" if folder else base
            if name in folders:
                continue
            if name in wanted and held.get(name) == wanted[name]:
                stay.add(name)
            else:
                remove(base, dir_fd=descriptor)
    return stay
