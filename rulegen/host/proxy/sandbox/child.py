"""The program inside the sandbox, which `rulegen.host.proxy.sandbox.trial` runs in new namespaces.

It reads its task as JSON from standard input, builds a root with programs, their settings and a copy of one release in
memory, drops all privileges and executes a test, such as `nginx -t`. It imports nothing of rulegen, because
it is started as a file.

The files there belong to root and to a group without other members. The program cannot change them, and no other
user can enter the folders above. The program can be executed and not read, so that the kernel lets only root inspect
the process, and not even another process of the same user (PR_SET_DUMPABLE in prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 4096, 8192, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # the same number on all architectures; libc has no function for it
_AT_RECURSIVE, _AT_EMPTY_PATH, _AT_FDCWD = 0x8000, 0x1000, -100
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 1, 8, 38  # prctl(2)
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAPABILITY_VERSION = 0x20080522  # of capset(2): 64 capabilities
CAP_NET_BIND_SERVICE = 10
LATE = "rulegen: the time limit of the test has ended"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_PROGRAMS = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_PAGE = 1 << 14  # for the largest blocks, and for inodes
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_HIDDEN = ("/etc/kubernetes", "/etc/rulegen", "/etc/rancher", "/etc/cni")
_ELF = b"\x7fELF"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_SETTINGS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ip_nonlocal_bind": "1",
    "net/ipv6/ip_nonlocal_bind": "1",
}

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Execute the task on standard input, and return the exit code of the program as a shell does."""
    order = json.load(sys.stdin)
    os.umask(0o022)  # for any umask: the user must enter the folders above the release
    if order["root"]:
        _build(order)
    os.chdir(order["folder"])
    child, late = os.fork(), []
    if child == 0:
        _become(order)

    def end(*_: object) -> None:
        late.append(True)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, order["seconds"])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if late or -code == signal.SIGXCPU:
        sys.stderr.write(f"{LATE}\n")
    return code if code >= 0 else 128 - code


def _become(order: dict[str, Any]) -> NoReturn:
    """Replace this process, a new child, by the program, with another user if the task has one."""
    try:
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        _limit(order)
        if order["user"]:
            _drop(order["user"], order["capabilities"])
        os.execve(order["argv"][0], order["argv"], {})  # noqa: S606 - no shell is what we want
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
    os._exit(126)


def _drop(user: int, kept: list[int]) -> None:
    """Change permanently to a user with only its own group, and with at most these capabilities.

    The right to read the program is dropped before it is executed; otherwise the kernel would let other processes of
    the user inspect it. setpriv(1) drops it too late.
    """
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails without CAP_SETPCAP; the next line is enough
        number += 1
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if kept:
        _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        raise OSError(
            error.errno, f"becoming user {user}, which requires SETUID and SETGID: {error.strerror}"
        ) from None
    only = sum(1 << number for number in kept)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    wanted = struct.pack("=6I", *[only & 0xFFFFFFFF] * 3, *[only >> 32] * 3)
    if _libc.capset(header, wanted) == 0:  # not permitted: the program reports what it could not do
        for number in kept:
            _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
    else:
        _check(_libc.capset(header, bytes(len(wanted))), "no capabilities")
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _limit(order: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
    # Not RLIMIT_AS: the zones of limits are large, shared, and empty during the test.
    resource.setrlimit(resource.RLIMIT_DATA, (order["memory"], order["memory"]))
    seconds = int(order["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _build(order: dict[str, Any]) -> None:
    """Create and enter a new root with read-only programs, one release, and empty writable folders."""
    folder, release, group = Path(order["folder"]), Path(order["release"]), order["group"]
    contents = read_release(release, order["folders"])
    _raise_loopback()
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    root = folder / "run"  # a mount point that hides no needed file
    size = sum(len(content) + _PAGE for content in contents.values()) + (256 << 20)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=750,gid={group},size={size}")
    _set_kernel(root / "proc")
    for path in (*_PROGRAMS, *order["more"]):
        _show(root, Path(path))
    for path in (*_HIDDEN, *order["hidden"]):
        if (root / path.lstrip("/")).is_dir():
            _mount("tmpfs", root / path.lstrip("/"), "tmpfs", _MS_RDONLY, "mode=755,size=4k")
    for path in _DEVICES:
        _bind(Path(path), root / path.lstrip("/"))
    inner = root / str(folder).lstrip("/")
    place = root / str(release).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    write_release(place, contents, order["folders"], group)
    for name in ("run", "logs"):
        make_folder(inner / name, 0o770, group)
    if order["program"]:
        copy_program(Path(order["program"]), root / order["copy"], group)
    os.chdir(root)
    _mount(".", "/", None, _MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def read_release(release: Path, folders: Sequence[str]) -> dict[str, bytes]:
    """Return the regular files of a release by name, without links.

    Raises:
        OSError: The release cannot be read.
    """
    contents: dict[str, bytes] = {}
    for folder in ("", *folders):
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(release / folder):
                if entry.is_file(follow_symlinks=False):
                    contents[f"{folder}/{entry.name}".lstrip("/")] = _content(entry.path)
    return contents


def write_release(place: Path, contents: dict[str, bytes], folders: Sequence[str], group: int) -> None:
    """Write a copy of a release that a group may read and only our user may write to.

    Raises:
        OSError: The copy cannot be written.
    """
    for folder in ("", *folders):
        make_folder(place / folder, 0o750, group)
    for name, content in contents.items():
        _write(place / name, content, 0o640, group)


def copy_program(program: Path, target: Path, group: int) -> None:
    """Copy a program that a group may execute and not read.

    Raises:
        OSError: The program cannot be copied.
    """
    _write(target, program.read_bytes(), 0o710, group)


def is_binary(program: Path) -> bool:
    """Return whether a program can be executed without the right to read it; a script cannot."""
    with program.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def make_folder(path: Path, mode: int, group: int) -> None:
    """Create a folder with exactly this mode and group.

    Raises:
        OSError: The folder cannot be created.
    """
    path.mkdir(0o700)
    os.chown(path, -1, group)
    path.chmod(mode)


def _content(path: str) -> bytes:
    descriptor = os.open(path, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        parts = []
        while part := os.read(descriptor, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, mode: int, group: int) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _show(root: Path, path: Path) -> None:
    """Mount a folder read-only at the same path below the new root; a link is created as a link."""
    target = root / str(path).lstrip("/")
    if path.is_symlink():
        target.symlink_to(path.readlink())
    elif path.exists():
        _bind(path, target)
        _read_only(target)


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _read_only(target: Path) -> None:
    attributes = struct.pack("=QQQQ", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    done = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, len(attributes))
    if done != 0:  # before Linux 5.12: mounts below stay writable, for root only
        _mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID)


def _mount(source: str | Path, target: str | Path, kind: str | None, flags: int, options: str = "") -> None:
    kind_bytes = kind.encode() if kind else None
    if _libc.mount(os.fsencode(source), os.fsencode(target), kind_bytes, flags, options.encode() or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", str(target))


def _set_kernel(proc: Path) -> None:
    """Let every user listen on all ports and addresses of this empty network namespace."""
    proc.mkdir()
    with contextlib.suppress(OSError):  # not permitted in a container: use /proc, unless it is read-only
        _mount("proc", proc, "proc", _MS_NOSUID | _MS_NODEV)
    base = proc if (proc / "sys").is_dir() else Path("/proc")
    for name, value in _SETTINGS.items():
        with contextlib.suppress(OSError):  # no IPv6, or /proc is read-only: the program reports what it could not do
            (base / "sys" / name).write_text(value)
    _libc.umount2(os.fsencode(proc), _MNT_DETACH)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


if __name__ == "__main__":
    sys.exit(main())
