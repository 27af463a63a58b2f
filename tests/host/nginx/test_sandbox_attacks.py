"""While nginx is tried, other users of the node look into its process and for its files, and find nothing."""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rulegen.host.commands.runner import Command, Completed, run
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.disk.releases import Releases
from rulegen.host.proxy.sandbox import identity
from rulegen.host.proxy.sandbox import trial as sandbox
from rulegen.languages.configuration import SecretContent
from tests.host.nginx.examples import configuration, server
from tests.otheruser import NOBODY, as_user, reachable_folder
from tests.rights import needs_nginx, needs_sandbox

pytestmark = [needs_nginx, needs_sandbox, pytest.mark.slow]

KEY = "secrets/0123456789abcdef.pem"
USERS = "secrets/fedcba9876543210.htpasswd"
MARK = b"# the-key-of-this-test\n"
HOSTS = 1500
"""So many that nginx reads them for a while."""

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
MEMORY = {"environ", "maps", "smaps", "mem", "auxv", "pagemap", "stack", "syscall", "io", "numa_maps"}
"""What the kernel shows of a process to those alone who may trace it (proc(5))."""


def without_namespaces(command: Command) -> Completed:
    if command.argv[0] == "unshare":
        return Completed(1, "", "unshare: unshare failed: Operation not permitted\n")
    return run(command)


def tried_processes(own: int) -> list[int]:
    """Return the processes of nginx that a sandbox of ours runs: not those that started it."""
    result = []
    for process in (path for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            is_nginx = b"-t" in words and re.search(rb"/nginx(-to-try)?$", words[0])
            if is_nginx and f"\nUid:\t{own}\t" in (process / "status").read_text():
                result.append(int(process.name))
    return result


@contextmanager
def stopped_nginx(folder: Path, runner, own: int) -> Iterator[int]:
    """Yield nginx as it tries a release, held in the middle of it; afterwards it goes on, and must pass."""
    hosts = {f"h{number}.test": server(f"h{number}.test", port=80) for number in range(HOSTS)}
    hosts["a.test"] = server("a.test", port=80, extra=f"include {KEY};")
    each = configuration(hosts, secrets={KEY: SecretContent(MARK), USERS: SecretContent(MARK, for_workers=True)})
    place = Releases(folder, NGINX, worker_group=33).write(each)
    verdicts: list[sandbox.TrialResult] = []
    trial = threading.Thread(target=lambda: verdicts.append(sandbox.try_release(place, folder, runner, NGINX)))
    trial.start()
    try:
        result: list[int] = []
        while not result and trial.is_alive():
            result = tried_processes(own)
        assert result, verdicts
        os.kill(result[0], signal.SIGSTOP)
        try:
            assert Path(f"/proc/{result[0]}/comm").read_text().startswith("nginx")
            yield result[0]
        finally:
            os.kill(result[0], signal.SIGCONT)
    finally:
        trial.join()
    assert [verdict.message for verdict in verdicts] == [None]


def looks(pid: int) -> list[str]:
    """Return what can be seen of a process beyond what everybody is shown."""
    seen = []
    for path in Path(f"/proc/{pid}").iterdir():
        if path.name in {"root", "cwd", "exe"}:
            with suppress(OSError):
                seen.append(f"{path.name} -> {path.readlink()}")
        if path.name in {"root", "cwd", "fd", "map_files"}:
            with suppress(OSError):
                seen += [f"{path.name}/{inner.name}" for inner in path.iterdir()]
        elif path.name in MEMORY:
            with suppress(OSError), path.open("rb", buffering=0) as file:
                file.read(0 if path.name in {"mem", "pagemap"} else 64)
                seen.append(path.name)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_ATTACH, pid, None, None) == 0:
        seen.append("ptrace")
        os.waitpid(pid, 0)
        libc.ptrace(_PTRACE_DETACH, pid, None, signal.SIGSTOP)
    return seen


def finds(pid: int, places: list[str]) -> list[str]:
    """Return the files with the key that can be read below some places, or in the root of a process."""
    result = []
    for top in (*places, *(f"/proc/{pid}/root{place}" for place in places)):
        for parent, _, names in os.walk(top):
            for name in names:
                with suppress(OSError), Path(parent, name).open("rb") as file:
                    if MARK in file.read(1 << 16):
                        result.append(f"{parent}/{name}")
    return result


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number that the sandbox draws."""
    number = identity.unused()
    monkeypatch.setattr(identity, "unused", lambda: number)
    return number


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that every user may enter; what is in it stands for all of the node."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture
def scratch(place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a trial without namespaces has its copy: everybody may write there, as to /tmp."""
    folder = place / "scratch"
    folder.mkdir()
    folder.chmod(0o1777)
    tmp_path_factory.getbasetemp()  # pytest asks once where temporary files go, and not here
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("runner", [run, without_namespaces], ids=["sealed", "bare"])
@pytest.mark.slow
def test_other_users_see_nothing_of_it_and_root_does(place, scratch, namespace, own, runner):
    www_data = pwd.getpwnam("www-data")
    folder = place / "nginx"
    places = [str(place)]
    with stopped_nginx(folder, runner, own) as pid:
        for uid, gid in ((NOBODY, NOBODY), (www_data.pw_uid, www_data.pw_gid), (4321, 4321)):
            groups = (gid, NOBODY, www_data.pw_gid)
            assert as_user(uid, lambda: looks(pid), gid=gid) == []
            assert as_user(uid, lambda: finds(pid, places), gid=gid) == []
            # not even in the groups of the sandbox's neighbours, but what the workers' group may read
            assert as_user(uid, lambda: looks(pid), gid=gid, groups=groups) == []
        everything = as_user(0, lambda: looks(pid))
        keys = as_user(0, lambda: finds(pid, places))
    assert {"environ", "maps", "mem", "ptrace"} <= set(everything)
    assert any(KEY in path for path in keys)
    assert any("/proc/" in path for path in keys)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("runner", [run, without_namespaces], ids=["sealed", "bare"])
def test_not_even_a_process_of_the_same_user_sees_into_it(place, scratch, namespace, own, runner):
    with stopped_nginx(place / "nginx", runner, own) as pid:
        assert as_user(own, lambda: looks(pid)) == []
        if runner is run:  # else it is the user for whom the copy is made
            assert as_user(own, lambda: finds(pid, [str(place)])) == []


@pytest.mark.slow
def test_what_is_tried_cannot_change_what_is_tried(place, scratch, namespace, own):
    with stopped_nginx(place / "nginx", without_namespaces, own):
        (copy,) = scratch.iterdir()

        def change() -> list[str]:
            changed = []
            for path in [copy, *copy.rglob("*")]:
                if path.name in {"run", "logs"} or {"run", "logs"} & {parent.name for parent in path.parents}:
                    continue
                if os.access(path, os.W_OK, effective_ids=True):
                    changed.append(str(path))
            return changed

        assert as_user(own, change) == []
        assert as_user(own, (copy / "conf" / KEY).read_bytes) == MARK
