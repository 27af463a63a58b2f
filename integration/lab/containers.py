"""The driver that makes hosts of Docker containers, with a daemon of its own that no other program sees.

No registry is needed: the image is a tree of empty folders, and the machine's programs are mounted into it, read-only.
Containers have no network but what the lab lays into them, and of all privileges only those that rules need. The
daemon lives in namespaces of its own (network, mounts, processes): it can neither change the machine's rules nor leave
a mount or a process behind, even where the tests are killed.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.lab.lab import ROOT, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_START_S = 30
_IMAGE = "lab:bare"
_TREE = ("bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var/lib", "var/run")
_PROGRAMS = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr")
_TABLES = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/protocols", "/etc/services", "/etc/passwd")


class Containers:
    """Starts each host as a container, and the daemon before the first."""

    name = "containers"
    # /proc/sys is read-only in an unprivileged container: what must be set is set from outside.
    may_set_sysctls = False

    def __init__(self) -> None:
        missing = [tool for tool in ("dockerd", "containerd", "unshare", "setpriv") if not shutil.which(tool)]
        if missing:
            raise Unavailable(f"not installed: {', '.join(missing)}")
        if os.geteuid() != 0:
            raise Unavailable("a container daemon of our own needs root")
        try:
            import docker  # noqa: F401, PLC0415 - an optional extra, and slow to import
        except ImportError as error:
            raise Unavailable(f"the docker package is not installed: {error}") from error
        self._folder = Path(tempfile.mkdtemp(prefix=f"containers-{os.getpid()}-"))
        (self._folder / "store").mkdir()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._client: Any = None
        try:
            self._client = self._connect()
            self._client.api.import_image_from_data(_empty_tree(), repository=_IMAGE)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Any:
        """Start a daemon with the first storage driver that works here; return a client to it."""
        said = ""
        for storage in ("overlay2", "vfs"):
            self._daemon = self._launch(storage)
            client = self._await(self._daemon)
            if client is not None:
                return client
            said = (self._folder / "daemon.log").read_text(errors="replace").strip()[-600:]
            self._end_daemon()
        raise Unavailable(f"no container daemon can be started: {said}")

    def _launch(self, storage: str) -> subprocess.Popen[bytes]:
        with (self._folder / "daemon.log").open("wb") as log:
            return subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
                    # In memory, and gone with the mount namespace: nothing is written to a disk, or left on one.
                    *("sh", "-c", 'mount -t tmpfs -o mode=700 lab "$0" && exec "$@"', f"{self._folder}/store"),
                    *("dockerd", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"),
                    f"--storage-driver={storage}",
                    f"--data-root={self._folder}/store/images",
                    f"--exec-root={self._folder}/store/run",
                    f"--pidfile={self._folder}/daemon.pid",
                    f"--cgroup-parent=/{self._folder.name}",
                    f"--host=unix://{self._folder}/daemon.sock",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await(self, daemon: subprocess.Popen[bytes]) -> Any:
        """Return a client as soon as the daemon answers; None where it ends or stays silent."""
        import docker  # noqa: PLC0415

        path = f"{self._folder}/daemon.sock"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and daemon.poll() is None:
            with socket.socket(socket.AF_UNIX) as door:
                if door.connect_ex(path) == 0:
                    return docker.DockerClient(base_url=f"unix://{path}", timeout=60)
            time.sleep(0.1)
        return None

    def start(self, host: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a container for a host; the lab's folder is the one that TMPDIR names."""
        shared = env["TMPDIR"]
        volumes = {path: {"bind": path, "mode": "ro"} for path in _readable()}
        container = self._client.containers.create(
            _IMAGE,
            command=list(argv),
            name=f"{host}-{os.getpid()}",
            hostname=host,
            environment=dict(env),
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN", "NET_RAW", "KILL", "DAC_OVERRIDE"],
            security_opt=["no-new-privileges"],
            volumes=volumes | {shared: {"bind": shared, "mode": "rw"}},
        )
        container.start()

    def close(self) -> None:
        """End the daemon, and with it all containers; remove its folder."""
        if self._client is not None:
            self._client.close()
        self._end_daemon()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_daemon(self) -> None:
        """End the daemon's whole namespace at once: nothing in there is worth a farewell."""
        if self._daemon is None:
            return
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children")
        # The first process of the namespace: with it all others go, and its parent sees it off.
        for pid in children.read_text().split() if children.exists() else ():
            os.kill(int(pid), signal.SIGKILL)
        try:
            self._daemon.wait(10)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        self._daemon = None
        _remove_groups(self._folder.name)


def _remove_groups(name: str) -> None:
    """Remove what the containers leave in the control groups, of either version, now that all of them are empty."""
    root = Path("/sys/fs/cgroup")
    for parent in (root / name, *root.glob(f"*/{name}")):
        for group in (*parent.glob("*/"), parent):
            # Gone already, or the kernel is still busy with the last process: an empty group harms nobody.
            with contextlib.suppress(OSError):
                group.rmdir()


def _readable() -> list[str]:
    """Return what a container must see of the machine: programs, this Python, and this project."""
    python = {str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)}
    # A virtual environment names its Python by a path that may lead through links elsewhere.
    python |= {str(Path(sys.executable).parent), str(ROOT)}
    wanted = [*_PROGRAMS, *_TABLES, *python]
    there = sorted(path for path in wanted if Path(path).exists())
    return [path for path in there if not any(path != other and Path(path).is_relative_to(other) for other in there)]


def _empty_tree() -> bytes:
    """Return a tar of the folders that things are mounted on."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in _TREE:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name in {"tmp", "run"} else 0o755
            tar.addfile(folder)
    return packed.getvalue()
