"""Whatever commands and the agent leave on a node, other users of it find only what the documentation says.

All of it is made as root under umask 0, in namespaces with fresh file systems where something may be written, and is
then walked: each file, folder and socket is really tried by processes that have become other users.
"""

from __future__ import annotations

import fnmatch
import http.client
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy import process_list as processes
from rulegen.languages.nginx.sockets import SIGNIN_SOCKET
from tests.cli.ingress.test_ingress import ingress, pem, secret, world
from tests.otheruser import NOBODY, as_user
from tests.project.places import ROOT
from tests.rights import needs_nginx, needs_sandbox
from tests.servers.fakeapi import FakeApi

pytestmark = [
    needs_nginx,
    needs_sandbox,
    pytest.mark.slow,
    pytest.mark.kernel,
    pytest.mark.xdist_group("users"),  # they share what an agent has left
]

DIR = Path("/var/lib/rulegen/nginx")
STRANGER = 4321
WORKERS = pwd.getpwnam("www-data") if any(user.pw_name == "www-data" for user in pwd.getpwall()) else None
"""Who nginx's workers run as here."""

ADDRESS = {"type": "InternalIP", "address": "127.0.0.1"}

WRITABLE = ("/run", "/var/lib", "/var/log", "/var/tmp", "/dev/shm")
"""All that can be written to; /run/tmp stands for /tmp."""

FILE_SYSTEMS = """
set -eu
mount --make-rprivate /
ip link set lo up
for place in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 none $place; done
for place in /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 none $place; done
mkdir -m 1777 /run/tmp
mkdir -m 700 /run/given
touch /run/xtables.lock
chmod 644 /run/xtables.lock
mount -o remount,bind,ro /
rm -rf /run/mount
"""


# -- on the node -------------------------------------------------------------------------------------------------------


def on_the_node() -> None:
    """Make everything, walk it, and print what other users could do."""
    os.umask(0)
    subprocess.run(["sh", "-c", FILE_SYSTEMS], check=True)
    chain, key = pem("c.test")
    objects = [
        *world(
            ingress("blog", "b.test", auth_type="basic", auth_secret="users"),
            ingress("cert", "c.test", "tls"),
            ingress("ask", "d.test", auth_url="http://auth.example.com/", auth_cache_key="$http_cookie"),
        ),
        secret("users", auth=b"u:{PLAIN}p\n"),
        secret("tls", tls_crt=chain, tls_key=key),
        {"kind": "Node", "metadata": {"name": "node1"}, "status": {"addresses": [ADDRESS]}},
        {"kind": "IngressClass", "metadata": {"name": "rulegen"}, "spec": {"controller": "rulegen.io/ingress"}},
    ]
    nouns = {"IngressClass": "ingressclasses", "Ingress": "ingresses"}
    with FakeApi() as api:
        for manifest in objects:
            api.put(nouns.get(manifest["kind"], f"{manifest['kind'].lower()}s"), manifest)
        cluster = ["--kubeconfig", api.kubeconfig(Path("/run/given")), "--node", "node1"]
        call("apply", "--ingress", "--yes", "--variant", "nft", *cluster)
        fill_a_temporary_file()
        agent = start("run", "--ingress", "--keep-serving", "--no-events", "--no-update-status", *cluster)
        try:
            await_true(is_healthy)
            call("export", "-o", "/run/out", "--nginx", "/run/site", "--with-secrets", *cluster)
            call("doctor", may_complain=True)
            open_logs_anew()
            json.dump(findings(), sys.stdout)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(60)


def start(*words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TMPDIR": "/run/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([sys.executable, "-m", "rulegen", *words], env=environment, stdout=sys.stderr)


def call(*words: str, may_complain: bool = False) -> None:
    code = start(*words).wait(120)
    assert code == 0 or may_complain, (words, code)


def await_true(question: Callable[[], object]) -> None:
    until = time.monotonic() + 90
    while not question():
        assert time.monotonic() < until, question
        time.sleep(0.05)


def is_healthy() -> bool:
    with suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", 10256, timeout=5)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    return False


def fill_a_temporary_file() -> None:
    """Have nginx keep a body on disk, which nobody ever takes from it."""
    with socket.create_connection(("127.0.0.1", 80), timeout=5) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: c.test\r\nContent-Length: 999999\r\n\r\n" + b"x" * 99999)
        time.sleep(0.2)


def open_logs_anew() -> None:
    """As after a log has grown: nginx gives its workers the new ones."""
    (DIR / "logs/access.log").rename(DIR / "logs/access.log.1")
    master = processes.master(NGINX.processes(DIR))
    assert master is not None
    processes.send(master, signal.SIGUSR1)
    await_true((DIR / "logs/access.log").exists)
    await_true(lambda: (DIR / "logs/access.log").stat().st_uid != 0)


def entries() -> Iterator[Path]:
    for place in WRITABLE:
        for parent, folders, files in os.walk(place):
            folders[:] = [name for name in folders if Path(parent, name) != Path("/run/given")]
            yield from (Path(parent, name) for name in (*folders, *files))


def findings() -> dict[str, object]:
    paths = list(entries())
    assert WORKERS is not None
    users = {"stranger": (STRANGER, STRANGER), "nobody": (NOBODY, NOBODY), "worker": (WORKERS.pw_uid, WORKERS.pw_gid)}
    can = {who: as_user(uid, lambda: tried(paths), gid=gid) for who, (uid, gid) in users.items()}
    sockets = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    modes = {
        str(path.relative_to(DIR)): (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        for path in [DIR, *paths]
        if path.is_relative_to(DIR) and not stat.S_ISLNK((status := path.lstat()).st_mode)
    }
    return {"can": can, "abstract": [name for name in sockets if name.startswith("@")], "modes": modes}


def tried(paths: list[Path]) -> list[tuple[str, str]]:
    """Return what this user can do: path, and one of read, write, list, connect."""
    return [(str(path), what) for path in paths for what in possible(path)]


def possible(path: Path) -> Iterator[str]:
    try:
        mode = path.lstat().st_mode
    except OSError:  # not even entered
        return
    if stat.S_ISSOCK(mode):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            yield "connect"
    elif stat.S_ISDIR(mode):
        with suppress(OSError):
            list(path.iterdir())
            yield "list"
        with suppress(OSError):
            (path / "planted").touch(exist_ok=False)
            yield "write"
            (path / "planted").unlink()
    elif not stat.S_ISLNK(mode):
        for what, flag in (("read", os.O_RDONLY), ("write", os.O_WRONLY)):
            with suppress(OSError):
                os.close(os.open(path, flag | os.O_NONBLOCK))
                yield what


# -- what the documentation says ---------------------------------------------------------------------------------------


def documented() -> dict[str, tuple[int, bool, str]]:
    """Return the table of docs/ingress.md: pattern to mode, whether the group is the workers', and the owner."""
    text = (ROOT / "docs/ingress.md").read_text().partition("### Who may read and write them")[2]
    rows = re.findall(r"^\| (`.*`) \| (0[0-7]{3}) \| (\S+) \| (.*) \|$", text, re.MULTILINE)
    return {
        pattern.rstrip("/"): (int(mode, 8), group == "WORKERS", owner)
        for patterns, mode, group, owner in rows
        for pattern in re.findall(r"`([^`]+)`", patterns)
    }


@pytest.fixture(scope="module")
def seen() -> dict[str, object]:
    if WORKERS is None:
        pytest.skip("nginx's workers have no user here")
    code = "from tests.test_other_users import on_the_node; on_the_node()"
    namespaces = ("unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(
        [*namespaces, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


OPEN = {
    ("/var/lib/rulegen", "list"),
    ("/run/tmp", "list"),
    ("/run/tmp", "write"),
    ("/run/out", "list"),
    ("/run/site", "list"),
}
"""What every user may do: the way to DIR, /tmp, and an export, which is a user's to close."""


def is_open(path: str, what: str) -> bool:
    exported = re.match(r"/run/(?:out|site)/", path) and not path.startswith("/run/site/secrets")
    return (path, what) in OPEN or (bool(exported) and what in {"read", "list"})


@pytest.mark.parametrize("who", ["stranger", "nobody"])
@pytest.mark.slow
def test_another_user_finds_nothing_but_what_is_exported(seen, who):
    assert [pair for pair in map(tuple, seen["can"][who]) if not is_open(*pair)] == []
    assert ("/run/out/model.json", "read") in map(tuple, seen["can"][who])


def test_the_workers_find_what_they_serve_with(seen):
    assert WORKERS is not None
    theirs = {
        (str(DIR / path), what)
        for path, (_, uid, _) in seen["modes"].items()
        if uid == WORKERS.pw_uid
        for what in ("read", "write", "list")
    }
    more = [pair for pair in map(tuple, seen["can"]["worker"]) if not is_open(*pair) and pair not in theirs]

    signing_in = str(DIR / SIGNIN_SOCKET), "connect"
    assert signing_in in more
    passwords = [pair for pair in more if pair != signing_in]
    assert passwords
    assert all(what == "read" and path.endswith(".htpasswd") for path, what in passwords), more


def test_no_socket_is_open_to_all(seen):
    assert seen["abstract"] == []


def test_modes_are_those_that_are_documented(seen):
    assert WORKERS is not None
    table = documented()
    unseen = set(table)
    for path, (mode, uid, gid) in seen["modes"].items():
        name = "DIR" if path == "." else path
        at = name.count("/")
        pattern = next(
            (candidate for candidate in table if candidate.count("/") == at and fnmatch.fnmatch(name, candidate)), None
        )
        if pattern is None and re.match(r"run/(body|proxy|fastcgi|uwsgi|scgi)/", path):
            continue  # nginx's own, in folders that nobody else may enter
        if pattern is None and path.endswith(".log.1"):
            continue  # a log that was set aside, as it was
        assert pattern is not None, f"{path} is not documented"
        unseen.discard(pattern)
        wanted, is_workers, owner = table[pattern]
        owners = {0} if owner == "root" else {WORKERS.pw_uid} if owner == "the workers' user" else {0, WORKERS.pw_uid}
        group = WORKERS.pw_gid if is_workers else 0
        assert (oct(mode), uid in owners, gid) == (oct(wanted), True, group), path
    assert unseen == set()
