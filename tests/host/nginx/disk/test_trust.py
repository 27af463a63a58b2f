"""Only root, or we, can exchange the folder that nginx is run from: nobody by a folder above, a link, or later on."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.files.trust import UntrustedError, open_folder
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy import process_list
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.disk.releases import Releases
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.processes.supervisor import Held
from tests.host.nginx.examples import configuration, server
from tests.otheruser import NOBODY, as_user, reachable_folder
from tests.rights import needs_nginx, needs_root

USER = 4321
"""A local user who owns a folder of the host."""


@pytest.fixture
def top() -> Iterator[Path]:
    """Return a folder that every user may enter, as /srv."""
    with reachable_folder() as folder:
        yield folder


def opens(path: Path) -> bool:
    try:
        os.close(open_folder(path))
    except UntrustedError:
        return False
    return True


def owned(path: Path) -> None:
    os.chown(path, USER, USER)


def linked_by_a_user(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    os.chown(path, USER, USER, follow_symlinks=False)


def linked_into_a_users_folder(path: Path) -> None:
    home = path.parent / "home"
    home.mkdir()
    path.rename(home / "real")
    owned(home)
    path.symlink_to("home/real")


def looping(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


ATTACKS = {
    "owned by a user": owned,
    "open to all": lambda path: path.chmod(0o777),
    "open to its group": lambda path: path.chmod(0o775),
    "a user's link": linked_by_a_user,
    "a link through a user's folder": linked_into_a_users_folder,
    "a link to itself": looping,
}


@needs_root
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_folder_that_a_user_could_exchange_is_refused(top, attack, depth):
    place = top / "a" / "b" / "c"
    (place / "nginx").mkdir(parents=True)
    assert opens(place / "nginx")
    attacked = [top / "a", top / "a" / "b", place][depth]
    attack(attacked)

    with pytest.raises(HostError) as caught:
        Releases(place / "nginx", NGINX).prepare()

    error = caught.value
    assert str(attacked.parent) in error.message
    assert "\n" not in error.message
    assert error.hint
    assert not opens(place / "nginx")
    if attack is owned:
        assert f"{attacked} belongs to user {USER} (mode 0755)" in error.message
        assert f"chown 0 {attacked} && chmod go-w {attacked}" in error.hint


@needs_root
def test_the_users_rename_that_this_is_about(top):
    """What `owned` makes possible: the user moves root's folder away, and puts another in its place."""
    (top / "user" / "nginx").mkdir(parents=True)
    owned(top / "user")

    def attack() -> None:
        (top / "user" / "nginx").rename(top / "user" / "old")
        (top / "user" / "nginx").mkdir()

    assert as_user(USER, attack) is None
    assert (top / "user" / "nginx").stat().st_uid == USER


@needs_root
def test_what_only_root_can_change_is_fine(top):
    (top / "a" / "nginx").mkdir(parents=True)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    (top / "sticky" / "nginx").mkdir()
    (top / "link").symlink_to("a")
    (top / "far").symlink_to(top / "link" / ".." / "link")

    assert opens(top / "a" / "nginx")
    assert opens(top / "sticky" / "nginx")
    assert opens(top / "link" / "nginx")
    assert opens(top / "far" / "nginx")


@pytest.mark.parametrize("umask", [0, 0o077])
def test_folders_on_the_way_are_ours_and_passable_for_all(tmp_path, umask):
    before = os.umask(umask)
    try:
        Releases(tmp_path / "a" / "b" / "nginx", NGINX).prepare()
    finally:
        os.umask(before)

    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    for folder in (tmp_path / "a" / "b" / "nginx", tmp_path / "a" / "b" / "nginx" / "run"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_with_what_is_not_ours_keeps_its_mode(tmp_path):
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx" / "README").touch()
    (tmp_path / "nginx").chmod(0o755)

    Releases(tmp_path / "nginx", NGINX).prepare()

    assert stat.S_IMODE((tmp_path / "nginx").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "nginx" / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("attack", ["a link in logs", "no run"])
def test_a_start_that_is_refused_for_months_leaves_nothing_open(tmp_path, attack):
    Releases(tmp_path / "nginx", NGINX).prepare()
    if attack == "no run":
        (tmp_path / "nginx" / "run").rmdir()
    else:
        (tmp_path / "nginx" / "logs" / "error.log").symlink_to("/etc/passwd")
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(3):
        with pytest.raises(OSError, match=r"error\.log|run"):
            Held.of(tmp_path / "nginx")

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_nginx_is_not_started_where_it_would_write_elsewhere(tmp_path):
    releases = Releases(tmp_path / "nginx", NGINX)
    releases.prepare()
    (tmp_path / "nginx" / "logs" / "access.log").symlink_to("/dev/stdout")

    with pytest.raises(HostError, match=r"access\.log is a symbolic link: the program would write somewhere else"):
        releases.prepare()


@needs_root
@pytest.mark.parametrize("name", ["apply.lock", "keeper.lock", "keeper.pid", "names.json"])
def test_a_file_of_another_user_in_run_is_refused(tmp_path, name):
    """Who owned the folder before left it there, and may keep it locked for ever, or name another process in it."""
    releases = Releases(tmp_path / "nginx", NGINX)
    releases.prepare()
    planted = tmp_path / "nginx" / "run" / name
    planted.touch(mode=0o600)
    os.chown(planted, NOBODY, -1)

    with pytest.raises(HostError, match=f"{name} belongs to user {NOBODY}") as caught:
        releases.prepare()
    assert caught.value.hint == f"remove it: rm {planted}"
    with pytest.raises(UntrustedError, match=name):
        Held.of(tmp_path / "nginx")
    planted.unlink()
    releases.prepare()


@needs_root
def test_logs_belong_to_the_user_of_workers(tmp_path):
    """It is nginx that gives them to that user, when it opens them anew (USR1)."""
    releases = Releases(tmp_path / "nginx", NGINX)
    releases.prepare()
    log = tmp_path / "nginx" / "logs" / "error.log"
    log.touch(mode=0o600)
    os.chown(log, NOBODY, -1)
    releases.prepare()


@needs_root
@pytest.mark.parametrize("right", ["owner", "mode"])
def test_a_certificate_of_another_user_is_not_served(tmp_path, right):
    """Its key may be known."""
    folder = tmp_path / "nginx"
    Releases(folder, NGINX).prepare()
    default_certificate.store(folder, default_certificate.make())
    assert default_certificate.load(folder)
    if right == "owner":
        os.chown(folder / "default.pem", NOBODY, -1)
    else:
        (folder / "default.pem").chmod(0o602)
    assert default_certificate.load(folder) is None
    default_certificate.store(folder, default_certificate.make())
    assert default_certificate.load(folder)


def test_a_path_that_is_no_folder_is_reported(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(HostError, match="file: is not a folder"):
        Releases(tmp_path / "file" / "nginx", NGINX).prepare()


@needs_root
@needs_nginx
@pytest.mark.parametrize("planted", ["folder", "link"])
def test_nginx_is_not_started_from_a_folder_of_another_user(
    folder: Path, service, top, eventually: Callable[..., None], planted
):
    """The folder above was root's at the apply, and is a user's when nginx must be started again."""
    service.apply(configuration({"a.test": server("a.test")}))
    supervisor, nginx = supervision.supervisor_pid(folder), NGINX.processes(folder)
    assert supervisor
    old, victim = folder.with_name("old"), top / "victim"
    victim.mkdir()
    for name in ("run", "logs"):
        (victim / name).mkdir()
    folder.rename(old)
    if planted == "link":
        folder.symlink_to(victim)
    else:
        shutil.copytree(victim, folder)
        shutil.copytree(old / "releases", folder / "releases")
        (folder / "current").symlink_to((old / "current").readlink())
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
    owned(folder.parent)
    try:
        for process in nginx:
            process_list.send(process, signal.SIGKILL)
        eventually(lambda: "nginx is not started: " in (old / "logs" / "keeper.log").read_text())

        assert NGINX.processes(folder) == ()
        assert NGINX.processes(old) == ()
        assert [str(path.relative_to(victim)) for path in sorted(victim.rglob("*"))] == ["logs", "run"]
    finally:
        os.kill(supervisor, signal.SIGKILL)
        os.chown(folder.parent, os.geteuid(), os.getegid())
