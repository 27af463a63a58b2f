"""The folder of the proxy: releases, the sockets of the supervisor and of HAProxy, locks.

Only root can write to it, list it, and connect to the sockets. A release is a subfolder with one complete
configuration, named by the digest of its content. HAProxy reads it without any right, so all users may read it. There
is one folder for each network namespace.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.files import trust

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

CURRENT: Final = "current"
"""A link to the release that HAProxy is started with."""
CONTROL: Final = "haproxy.sock"
REQUESTS: Final = "supervisor.sock"
LOCK: Final = "supervisor.lock"
WRITE_LOCK: Final = "write.lock"
SUPERVISOR_LOG: Final = "supervisor.log"
LOG: Final = "haproxy.log"
CHECK_LOG: Final = "check.log"
"""What `haproxy -c` says; HAProxy may be started at the same time."""
INSTANCES: Final = "haproxy.pids"
"""The process id and the start of each HAProxy, the newest last."""
RELAY: Final = "relay.sock"
RELAY_OBJECTS: Final = "relay.objects"
"""The objects of UDP that the relay is started with."""
RELAY_PROCESS: Final = "relay.pid"
"""The process id and the start of the relay."""
PREFIX: Final = "release-"

_PARENT: Final = "/run/rulegen"
_MODE: Final = 0o711
_NEW_MODE: Final = 0o700
_RELEASE_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_DIGITS: Final = 24


def of_this_namespace() -> Path:
    """Return the path of the folder for the network namespace of this thread."""
    return Path(_PARENT) / f"proxy-{os.stat('/proc/thread-self/ns/net').st_ino}"  # noqa: PTH116 - the kernel's link


@contextlib.contextmanager
def opened(path: Path, *, make: bool = False) -> Iterator[int]:
    """Yield a descriptor of the folder, which no other user can write to or replace.

    Args:
        path: The folder.
        make: Whether a missing folder is created.

    Raises:
        FileNotFoundError: It does not exist.
        HostError: Another user could change it, or it cannot be opened.
    """
    try:
        descriptor = trust.open_folder(path, make_mode=_MODE if make else None)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostError(f"the folder of the proxy, {error.filename or path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_release(path: Path, files: Mapping[str, str]) -> str:
    """Write a complete release, and return its name; a release that exists is complete.

    Raises:
        HostError: It cannot be written.
    """
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(files.items())).encode())
    name = f"{PREFIX}{digest.hexdigest()[:_DIGITS]}"
    new = path / f"new-{os.getpid()}"
    try:
        if (path / name).is_dir():
            return name
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=_NEW_MODE)
        for each, text in files.items():
            descriptor = os.open(new / each, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                os.fchmod(descriptor, _FILE_MODE)
                file.write(text)
        new.chmod(_RELEASE_MODE)
        new.rename(path / name)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise HostError(f"writing the configuration of the proxy to {path}: {error.strerror}") from error
    return name


def make_current(home: int, release: str) -> None:
    """Make a release the one that HAProxy is started with.

    Args:
        home: The descriptor of the folder.
        release: The name of the release.

    Raises:
        OSError: The link cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{CURRENT}.new", dir_fd=home)
    os.symlink(release, f"{CURRENT}.new", dir_fd=home)
    os.replace(f"{CURRENT}.new", CURRENT, src_dir_fd=home, dst_dir_fd=home)


def current(home: int) -> str:
    """Return the name of the release that HAProxy is started with; empty if there is none."""
    try:
        return os.readlink(CURRENT, dir_fd=home)
    except OSError:
        return ""


def has(home: int, name: str) -> bool:
    """Whether there is a file with a name, such as a socket."""
    try:
        os.stat(name, dir_fd=home, follow_symlinks=False)
    except OSError:
        return False
    return True


def remove_others(path: Path, keep: Collection[str]) -> None:
    """Remove releases, and parts of releases, that are not in `keep`; a failure leaves them there."""
    for entry in os.scandir(path):
        if entry.name.startswith((PREFIX, "new-")) and entry.name not in keep:
            shutil.rmtree(entry.path, ignore_errors=True)
