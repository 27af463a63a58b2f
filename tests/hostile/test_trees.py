"""Whatever stands where rulegen expects its files, it reads, writes, follows and waits for nothing outside of them.

Files, folders, links, FIFOs, sockets and devices, of any owner and mode, are put in place of what is expected; then all
commands run. What is outside is as it was, nobody has read it, no output holds it, and each command ends by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rulegen.host.proxy.disk import default_certificate
from tests.cli.test_plan import BLOG, HOST
from tests.rights import needs_nginx, needs_sandbox
from tests.sizes import examples

FEW = settings(
    max_examples=examples(4),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
IS_ROOT = os.geteuid() == 0
CANARY = "canary-of-another-folder"
ENDLESS = 1 << 40
AWHILE_S = 400
NODE = "---\n{apiVersion: v1, kind: Node, metadata: {name: node1}}\n"
INGRESS = """---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: blog, namespace: demo}
spec:
  ingressClassName: nginx
  rules:
    - host: blog.test
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: blog, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: rulegen.io/ingress}
"""
CONFIG = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n"
SAVED = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\nCOMMIT\n*mangle\nCOMMIT\n"

SITE = ("--ingress", "--nginx-dir", "nginx", "--http-port", "8099", "--https-port", "8499", "--no-services")
OBJECTS = ("-f", "objects", "--host", "host", "--node", "node1")
Commands = tuple[tuple[str, ...], ...]
COMMANDS: Commands = (
    ("plan", *OBJECTS, "--config", "config", "--observed", "dumps"),
    ("plan", "--kubeconfig", "kubeconfig", "--host", "host", "--observed", "none"),
    ("export", *OBJECTS, "--config", "config", "-o", "out", "--nginx", "site"),
    ("plan", *OBJECTS, *SITE, "--nginx-templates", "templates", "-o", "json"),
    ("doctor", "--config", "config"),
)
"""What may run anywhere."""
WRITING: Commands = (
    ("apply", *OBJECTS, *SITE, "--yes"),
    ("apply", *OBJECTS, *SITE, "--nginx-templates", "templates", "--yes"),
    ("cleanup", "--ingress", "--nginx-dir", "nginx", "--no-services", "--yes"),
    ("apply", *OBJECTS, *SITE, "--yes"),
    ("cleanup", "--ingress", "--nginx-dir", "nginx", "--no-services", "--yes"),
)
"""What starts nginx: as root, where nobody else is."""

NGINX = (
    *("nginx", "nginx/run", "nginx/logs", "nginx/releases", "nginx/known", "nginx/current", "nginx/good"),
    *("nginx/.current.new", "nginx/.good.new", "nginx/default.pem", "nginx/run/apply.lock", "nginx/run/keeper.lock"),
    *("nginx/run/keeper.pid", "nginx/run/nginx.pid", "nginx/run/status.sock", "nginx/logs/start.log"),
    *("nginx/logs/error.log", "nginx/logs/access.log", "nginx/logs/keeper.err", "nginx/known/a.json"),
    *(f"nginx/releases/{'0' * 32}", "nginx/releases/a.partial"),
)
IN_A_RELEASE = (
    *(
        "release.json",
        "nginx.conf",
        "hosts",
        "upstreams",
        "secrets",
        "hosts/a.conf",
        "secrets/a.pem",
        "upstreams/a.conf",
    ),
)
EXPORTS = (
    *("out", "out/model.json", "out/iptables.save", "out/ip6tables.save", "out/sysctl.conf", "site", "site/nginx.conf"),
    *("site/provenance.json", "site/hosts", "site/upstreams", "site/secrets", "site/run", "site/logs"),
    *(f"site/secrets/{'a' * 32}.pem", f"site/hosts/{'a' * 16}.conf"),
)
INPUTS = (
    *("objects/a.yaml", "objects/blog.yaml", "objects/sub", "objects/kustomization.yaml", "objects/Chart.yaml"),
    *("templates/nginx.conf.j2", "templates/a.j2", "dumps/iptables.save", "dumps/ip6tables.save", "dumps/a"),
)
NAMED = ("config", "host", "kubeconfig", "out", "site")
"""Files and folders that a user names one by one: a link is followed wherever it leads, as it is for any tool."""
PLACES = (*NGINX, *(f"RELEASE/{name}" for name in IN_A_RELEASE), *EXPORTS, *INPUTS, *NAMED)
KINDS = (
    *("file", "empty", "folder", "full-folder", "fifo", "socket", "endless", "loop", "dangling"),
    *("link-to-file", "link-to-folder", "hard-link", *(("device",) if IS_ROOT else ())),
)


class Planted(NamedTuple):
    place: str
    kind: str
    owner: int
    mode: int


PLANTS = st.lists(
    st.builds(
        Planted,
        st.sampled_from(PLACES),
        st.sampled_from(KINDS),
        st.sampled_from([0, 0, 65534, 4321]),
        st.sampled_from([0o600, 0o644, 0o666, 0o000, 0o755, 0o1777, 0o4755, 0o700]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda entry: entry.place,
)

DRIVER = """
import gc, json, os, sys
from rulegen.cli.main import main
from rulegen.cli.commands import apply, cleanup, doctor, export, plan
from rulegen.host.dataplane import apply, kernel, observe
from rulegen.host.files import dumps
from rulegen.host.nginx import engine
from rulegen.host.proxy import service
gc.freeze()
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    child = os.fork()
    if child == 0:
        try:
            main(words)
        except SystemExit as stop:
            sys.stdout.flush()
            os._exit(stop.code or 0)
        os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("code", code, flush=True)
    if code not in (0, 1, 2):
        sys.exit(3)
"""
ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def make_valid(top: Path) -> None:
    for name in ("objects", "dumps"):
        (top / name).mkdir()
    (top / "objects" / "blog.yaml").write_text(BLOG + NODE + INGRESS)
    (top / "host").write_text(HOST)
    (top / "config").write_text(CONFIG)
    (top / "kubeconfig").write_text(KUBECONFIG)
    (top / "dumps" / "iptables.save").write_text("# Generated by iptables-save v1.8.9\n" + SAVED)
    (top / "dumps" / "ip6tables.save").write_text("# Generated by ip6tables-save v1.8.9\n" + SAVED)
    shutil.copytree(Path(__file__).parents[2] / "nginx_templates", top / "templates")


def make_outside(outside: Path) -> None:
    """Make what nobody is to touch: text that any reader would understand, so that reading it would show."""
    (outside / "folder").mkdir(parents=True)
    texts = {
        "file": f"{CANARY}: [\n",
        "folder/a.yaml": f"{{apiVersion: v1, kind: Node, metadata: {{name: {CANARY}}}}}\n",
        "folder/nginx.conf.j2": f"# {CANARY}\n",
        "folder/iptables.save": f"*nat\n:{CANARY} - [0:0]\nCOMMIT\n",
        f"folder/{'a' * 32}.pem": CANARY,
        "folder/model.json": f'{{"schemaVersion": 1, "kind": "Model", "x": "{CANARY}"}}',
        "folder/default.pem": default_certificate.make().decode() + f"# {CANARY}\n",
    }
    for name, text in texts.items():
        path = outside / name
        path.write_text(text)
        path.chmod(0o644)
        os.utime(path, (1_000_000_000, 1_600_000_000))  # whoever reads it now changes the time of the last reading


def seen(outside: Path) -> dict[str, tuple[object, ...]]:
    """Return what there is to see outside without looking into a file."""
    collected: dict[str, tuple[object, ...]] = {}
    for path in (outside, *outside.rglob("*")):
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        collected[str(path)] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_size if is_file else 0),
            *((status.st_atime_ns, status.st_mtime_ns) if is_file else ()),
        )
    return collected


def plant(top: Path, outside: Path, entry: Planted) -> None:
    """Put something in a place, instead of what is there; nothing where its folder is none, or leads out already."""
    release = next((path for path in (top / "nginx" / "releases").glob("?" * 32) if path.is_dir()), None)
    path = top / entry.place
    if entry.place.startswith("RELEASE/"):
        if release is None:
            return
        path = release / entry.place.removeprefix("RELEASE/")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        leads_out = path.parent.resolve(strict=True) != path.parent
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        return
    if leads_out or not path.parent.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make(path, outside, entry.kind if entry.place not in NAMED or "link" not in entry.kind else "loop")
    if entry.kind == "hard-link" or path.is_symlink():
        return
    if IS_ROOT:
        os.chown(path, entry.owner, -1)
    path.chmod(entry.mode)


def make(path: Path, outside: Path, kind: str) -> None:
    links = {
        "loop": path,
        "dangling": outside / "new",
        "link-to-file": outside / "file",
        "link-to-folder": outside / "folder",
    }
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_text("anything\n"),
        "empty": path.touch,
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),  # /dev/zero never ends
    }
    if kind in links:
        path.symlink_to(links[kind])
    elif kind in makers:
        makers[kind]()
    elif kind == "full-folder":
        path.mkdir()
        (path / "file.conf").write_text("anything\n")
        (path / "link.conf").symlink_to(outside / "file")
        (path / "link.yaml").symlink_to(outside / "folder" / "a.yaml")
        os.mkfifo(path / "fifo.json")
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            with socket.socket(socket.AF_UNIX) as entry:
                entry.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "endless":
        with path.open("wb") as file:
            file.truncate(ENDLESS)
    else:
        # Of a file that is there for this: what others may write to, it may not change.
        os.link(outside / "file", path)


def run(top: Path, commands: Commands, *, alone: bool) -> tuple[int, str]:
    """Run commands one after the other; return how that ended, and all that was said."""
    words = [*(ALONE if alone else ()), sys.executable, "-c", DRIVER, json.dumps(commands)]
    said = top.parent / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            words, cwd=top, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(AWHILE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = 124
    return code, said.read_bytes().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where all is as it should be, with what commands have written before, where they can."""
    top = tmp_path_factory.mktemp("valid") / "top"
    top.mkdir()
    make_valid(top)
    run(top, (COMMANDS[2],), alone=False)
    return top


@pytest.fixture(scope="module")
def served(valid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with all that nginx's folder has while it serves."""
    top = tmp_path_factory.mktemp("served") / "top"
    shutil.copytree(valid, top, symlinks=True)
    code, said = run(top, WRITING[:1], alone=True)
    assert code == 0, said
    assert (top / "nginx" / "current").is_symlink(), said
    for name in ("run", "known"):  # sockets cannot be copied, and their server has ended
        for path in (top / "nginx" / name).glob("*.sock"):
            path.unlink()
    return top


def judge(
    base: Path, tmp_path: Path, plants: list[Planted], commands: tuple[tuple[str, ...], ...], *, alone: bool
) -> None:
    place = tmp_path / os.urandom(8).hex()
    top, outside = place / "top", place / "outside"
    place.mkdir()
    try:
        shutil.copytree(base, top, symlinks=True)
        make_outside(outside)
        for entry in plants:
            plant(top, outside, entry)
        before = seen(outside)
        code, said = run(top, commands, alone=alone)
        assert code == 0, f"{'it did not end: ' if code == 124 else ''}{said[-3000:]}"
        assert "Traceback" not in said, said[-3000:]
        assert "internal error of rulegen" not in said, said[-3000:]
        after = seen(outside)
        if any(
            planted.kind == "hard-link" for planted in plants
        ):  # it is a file of the folder as well: may be read, not changed
            before, after = ({k: v[:4] + v[5:] for k, v in entry.items()} for entry in (before, after))
        else:
            assert CANARY not in said, said[-3000:]
        assert after == before
        assert (outside / "file").read_text() == f"{CANARY}: [\n"
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@FEW
@example(plants=[Planted("site/secrets", "link-to-folder", 0, 0o700)])
@example(plants=[Planted("nginx", "loop", 0, 0o700), Planted("nginx/run", "file", 0, 0o600)])
@example(plants=[Planted("nginx", "link-to-folder", 0, 0o700)])
@example(plants=[Planted("dumps/iptables.save", "link-to-file", 0, 0o644)])
@example(plants=[Planted("objects/a.yaml", "fifo", 0, 0o644), Planted("templates/a.j2", "link-to-file", 0, 0o644)])
@example(plants=[Planted("config", "endless", 0, 0o644), Planted("kubeconfig", "fifo", 0, 0o644)])
@example(plants=[Planted("nginx/default.pem", "fifo", 0, 0o600)])
@given(plants=PLANTS)
def test_nothing_outside_is_read_or_written(valid, tmp_path, plants):
    judge(valid, tmp_path, plants, COMMANDS, alone=False)


@needs_sandbox
@needs_nginx
@pytest.mark.slow
@pytest.mark.timeout(3600)
@FEW
@example(plants=[Planted("nginx/default.pem", "fifo", 0, 0o600)])
@example(plants=[Planted("nginx/known", "link-to-folder", 0, 0o700), Planted("nginx/logs/start.log", "dangling", 0, 0)])
@example(plants=[Planted("nginx/run/apply.lock", "fifo", 0, 0o600)])
@example(plants=[Planted("nginx/run/apply.lock", "hard-link", 0, 0o600)])
@example(plants=[Planted("nginx/logs/error.log", "hard-link", 0, 0o600)])
@example(plants=[Planted("nginx", "link-to-folder", 0, 0o700)])
@example(plants=[Planted("nginx/releases", "link-to-folder", 0, 0o711)])
@given(plants=PLANTS)
def test_nothing_outside_is_read_or_written_where_nginx_serves(served, tmp_path, plants):
    judge(served, tmp_path, plants, (COMMANDS[3], *WRITING), alone=True)
