"""Whatever stands in nginx's folder, nothing outside it is read, written or waited for."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rulegen.errors import RulegenError
from rulegen.host.commands.runner import run
from rulegen.host.nginx import status
from rulegen.host.nginx.program import NGINX
from rulegen.host.nginx.service import NginxService
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.disk.last_read import StoredObjects
from rulegen.host.proxy.disk.releases import Releases
from rulegen.host.proxy.processes import supervision, supervisor
from rulegen.languages.configuration import SecretContent
from tests.host.nginx.examples import configuration, server
from tests.otheruser import NOBODY, reachable_folder
from tests.sizes import examples

MARK = "what stands outside"
KEY = "secrets/0123456789abcdef.pem"
USERS = "secrets/fedcba9876543210.htpasswd"
LIVE = configuration(
    {"a.test": server("a.test")}, secrets={KEY: SecretContent(b"key"), USERS: SecretContent(b"user", for_workers=True)}
)
NEXT = configuration({"b.test": server("b.test")}, secrets={KEY: SecretContent(b"key")})
HOST = next(name for name in LIVE.files if name.startswith("hosts/"))
OLD, NEW = f"releases/{LIVE.digest}", f"releases/{NEXT.digest}"
PLACES = [
    "current", "good", ".current.new", "default.pem", "known", "known/a.json",
    "run", "run/keeper.pid", "run/keeper.lock", "run/apply.lock", "run/status.sock", "run/nginx.pid",
    "logs", "logs/error.log", "logs/start.log", "logs/keeper.log",
    "releases", OLD, f"{OLD}/MANIFEST", f"{OLD}/hosts", f"{OLD}/{HOST}", f"{OLD}/hosts/0000000000000000.conf",
    f"{OLD}/secrets", f"{OLD}/{KEY}", f"{OLD}/{USERS}", NEW, f"{NEW}.partial", f"{NEW}.partial/hosts",
]  # fmt: skip
LONGEST_S = 60
"""An operation that has not ended by then waits for what never comes."""


def file(path: Path, _: Path) -> None:
    path.write_text("planted\n")


def folder(path: Path, _: Path) -> None:
    path.mkdir()


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def endpoint(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, suppress(OSError):  # a path that is too long for a socket
        listener.bind(str(path))


def link_to_a_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def link_to_a_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def link_to_a_release(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "release")


def link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "new")


def link_to_a_fifo(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "fifo")


def link_to_itself(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


KINDS = [
    file, folder, fifo, endpoint, link_to_a_file, link_to_a_folder, link_to_a_release, link_to_nothing, link_to_a_fifo,
    link_to_itself,
]  # fmt: skip
OPERATIONS: dict[str, Callable[[NginxService], object]] = {
    "write": lambda service: service.releases.write(NEXT),
    "write the live one": lambda service: service.releases.write(LIVE),
    "switch": lambda service: service.releases.switch(LIVE.digest),
    "confirm": lambda service: service.releases.confirm(LIVE.digest),
    "current": lambda service: service.releases.current(),
    "read": lambda service: service.releases.read(LIVE.digest),
    "prune": lambda service: service.releases.prune(1),
    "discard": lambda service: service.releases.discard(NEXT.digest),
    "forget": lambda service: service.releases.forget(),
    "status": lambda service: service.status(),
    "supervisor": lambda service: supervision.supervisor_pid(service.folder),
    "ask": lambda service: status.ask(service.folder, timeout_s=0.5),
    "held": lambda service: supervisor.Held.of(service.folder).close(),
    "certificate": lambda service: default_certificate.load(service.folder),
    "new certificate": lambda service: default_certificate.store(service.folder, b"made"),
    "known": lambda service: StoredObjects(service.folder).objects,
    "keep": lambda service: StoredObjects(service.folder).keep({}),
    "drain": lambda service: service.drain(0.1),
    "remove": lambda service: service.drain(0.1, remove=True),
}


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it waits for what never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plant(top: Path, planted: list[tuple[str, Callable[[Path, Path], None], int, bool]], outside: Path) -> None:
    for name, kind, mode, is_anothers in planted:
        path = top / name
        if not path.parent.is_dir() or path.parent.resolve() != path.parent:
            continue
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        kind(path, outside)
        if os.path.lexists(path) and not path.is_symlink():
            path.chmod(mode)
        if is_anothers and os.geteuid() == 0 and os.path.lexists(path):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def make_outside(outside: Path) -> None:
    (outside / "release" / "hosts").mkdir(parents=True)
    (outside / "release" / "MANIFEST").write_text('{"files": ["nginx.conf"], "secrets": {}}')
    (outside / "release" / "nginx.conf").write_text(MARK)
    (outside / "release" / "hosts" / "0123456789abcdef.conf").write_text(MARK)
    (outside / "file").write_text(MARK)
    os.mkfifo(outside / "fifo")


def picture(top: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is below a folder, when it was written to, and what it says."""
    collected = {}
    for path in sorted((top, *top.rglob("*"))):
        status_ = path.lstat()
        said = path.read_bytes() if path.is_file() else b""
        collected[str(path)] = (
            status_.st_mode,
            status_.st_uid,
            status_.st_nlink,
            status_.st_mtime_ns,
            status_.st_ctime_ns,
            said,
        )
    return collected  # fmt: skip


def planted() -> st.SearchStrategy[list[tuple[str, Callable[[Path, Path], None], int, bool]]]:
    modes = st.sampled_from([0o700, 0o600, 0o755, 0o777, 0o000])
    entry = st.tuples(st.sampled_from(PLACES), st.sampled_from(KINDS), modes, st.booleans())
    return st.lists(entry, min_size=1, max_size=4)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(planted(), st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=6))
@example([("run", link_to_a_folder, 0o700, False)], ["supervisor", "status", "held"])
@example([("run/keeper.pid", fifo, 0o600, False)], ["supervisor", "status"])
@example([(f"releases/{LIVE.digest}", link_to_a_release, 0o700, False)], ["current", "write the live one"])
def test_whatever_stands_there_nothing_outside_is_touched(names: list, operations: list[str]) -> None:
    with reachable_folder() as place:
        outside, service = place / "outside", NginxService(place / "nginx", run, worker_group=33)
        make_outside(outside)
        service.releases.write(LIVE)
        service.releases.switch(LIVE.digest)
        plant(service.folder, names, outside)
        before = picture(outside)
        with in_time():
            for name in operations:
                with suppress(RulegenError, OSError):
                    assert MARK not in repr(OPERATIONS[name](service))
        assert picture(outside) == before


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", [fifo, link_to_a_release], ids=lambda kind: kind.__name__)
@pytest.mark.slow
def test_each_place_and_each_operation(kind: Callable[[Path, Path], None], name: str) -> None:
    for at in PLACES:
        with reachable_folder() as place:
            outside, service = place / "outside", NginxService(place / "nginx", run)
            make_outside(outside)
            service.releases.write(LIVE)
            service.releases.switch(LIVE.digest)
            plant(service.folder, [(at, kind, 0o600, False)], outside)
            before = picture(outside)
            # the supervisor is told of an OSError; all else is an error of our own
            errors = (RulegenError, OSError) if name == "held" else (RulegenError,)
            with in_time(), suppress(*errors):
                assert MARK not in repr(OPERATIONS[name](service)), at
            assert picture(outside) == before, at


def test_releases_of_a_folder_that_is_gone_are_none(tmp_path):
    assert Releases(tmp_path / "nginx", NGINX).current() is None
    assert Releases(tmp_path / "nginx", NGINX).live() == ""
