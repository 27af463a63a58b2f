"""Releases: whole or not there, cheap, private, and never written through what others planted."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rulegen.errors import ApplyError, HostError
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.disk import writing
from rulegen.host.proxy.disk.releases import Releases
from rulegen.languages.configuration import Configuration, SecretContent
from tests.host.nginx.examples import configuration, name, server
from tests.rights import needs_mounts, needs_root

KEY = "secrets/0123456789abcdef.pem"
PASSWORDS = "secrets/fedcba9876543210.htpasswd"
FIRST = configuration(
    {"a.test": server("a.test"), "b.test": server("b.test")},
    secrets={KEY: SecretContent(b"key"), PASSWORDS: SecretContent(b"user:hash", for_workers=True)},
)
SECOND = configuration(
    {"a.test": server("a.test"), "b.test": server("b.test", body="changed")}, secrets={KEY: SecretContent(b"key")}
)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "nginx", NGINX, worker_group=33)


def mode(path: Path) -> tuple[str, int]:
    status = path.lstat()
    return f"{stat.S_IMODE(status.st_mode):o}", status.st_gid


def test_what_is_written_is_read_back(releases):
    releases.write(FIRST)
    assert releases.current() is None

    releases.switch(FIRST.digest)

    assert releases.current() == FIRST


@needs_root
def test_only_those_who_must_can_read_secrets(releases):
    before = os.umask(0o077)
    try:
        place = releases.write(FIRST)
    finally:
        os.umask(before)

    assert mode(place / KEY) == ("600", os.getegid())
    assert mode(place / PASSWORDS) == ("640", 33)
    assert mode(place / name("a.test")) == ("600", os.getegid())
    assert mode(place / "hosts") == ("700", os.getegid())
    assert mode(place / "secrets") == ("710", 33)
    for folder in (place, place.parent, releases.folder / "logs", releases.folder / "run", releases.folder):
        assert mode(folder) == ("710", 33)


def test_logs_of_an_older_nginx_are_closed_to_others(releases):
    releases.prepare()
    log = releases.folder / "logs" / "access.log"
    log.touch()
    log.chmod(0o644)

    releases.prepare()

    assert mode(log)[0] == "640"


def test_a_change_of_one_host_writes_one_host(releases):
    before = releases.write(FIRST)
    releases.switch(FIRST.digest)
    after = releases.write(SECOND)

    same = {path for path in (*FIRST.files, KEY) if (after / path).samefile(before / path)}
    assert same == {name("a.test"), KEY}


def test_without_hard_links_files_are_copied(releases, monkeypatch):
    def no_link(*_args, **_options):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    before = releases.write(FIRST)
    releases.switch(FIRST.digest)
    monkeypatch.setattr(writing.os, "link", no_link)
    monkeypatch.setattr(Releases, "_keep_for_old_workers", lambda *_: None)
    after = releases.write(SECOND)
    releases.switch(SECOND.digest)

    assert not (after / KEY).samefile(before / KEY)
    assert releases.current() == SECOND


def test_password_files_stay_for_old_workers_for_one_release(releases):
    releases.write(FIRST)
    releases.switch(FIRST.digest)
    second = releases.write(SECOND)
    releases.switch(SECOND.digest)

    assert (second / PASSWORDS).read_bytes() == b"user:hash"
    assert PASSWORDS not in releases.current().secrets
    third = releases.write(configuration())
    assert not (third / PASSWORDS).exists()


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "hosts/../../evil.conf",
        "/etc/passwd",
        "hosts/evil.conf",
        "hosts/0123456789abcdef.conf\n",
        "MANIFEST",
        "",
    ],
)
def test_names_that_no_release_has_are_refused(releases, path):
    with pytest.raises(HostError, match="is not a file of a release"):
        releases.write(Configuration(files={path: ""}, digest="0" * 32))
    assert not releases.folder.exists()


@pytest.mark.parametrize("digest", ["", "../x", "current", "0" * 65])
def test_digests_that_name_no_release_are_refused(releases, digest):
    with pytest.raises(HostError, match="does not name a release"):
        releases.write(Configuration(files={"nginx.conf": ""}, digest=digest))


def test_a_text_cannot_stand_among_secrets(releases):
    with pytest.raises(HostError, match="not a file of a release"):
        releases.write(Configuration(files={KEY: "text"}, digest="0" * 32))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.chmod(0o777), "may be written to by others"),
        pytest.param(lambda path: os.chown(path, 65534, 65534), "belongs to user 65534", marks=needs_root),
    ],
)
def test_a_folder_of_others_is_refused(releases, spoil, problem):
    releases.folder.mkdir()
    spoil(releases.folder)

    with pytest.raises(HostError, match=problem):
        releases.write(FIRST)


def test_a_planted_link_is_not_followed(releases, tmp_path):
    (tmp_path / "victim").mkdir()
    releases.folder.symlink_to(tmp_path / "victim")

    with pytest.raises(HostError, match="is a symbolic link"):
        releases.write(FIRST)
    assert list((tmp_path / "victim").iterdir()) == []


def test_of_releases_the_live_and_the_confirmed_one_stay(releases):
    all_of_them = [configuration({"a.test": server("a.test", body=str(i))}) for i in range(6)]
    for each in all_of_them:
        releases.write(each)
    releases.switch(all_of_them[1].digest)
    releases.confirm(all_of_them[0].digest)
    (releases.folder / "releases" / f"{'0' * 32}.partial").mkdir()

    releases.prune(3)

    left = {path.name for path in (releases.folder / "releases").iterdir()}
    assert left == {all_of_them[i].digest for i in (0, 1, 5)}


def test_a_damaged_release_is_reported(releases):
    place = releases.write(FIRST)
    releases.switch(FIRST.digest)
    (place / "MANIFEST").write_text("[]")

    with pytest.raises(HostError, match="damaged"):
        releases.current()


@needs_mounts
def test_a_full_disk_leaves_what_was_live(tmp_path):
    """In a mount namespace of its own: a disk of 64 kB, with a release that fits and one that does not."""
    script = tmp_path / "full.py"
    script.write_text(FULL)
    argv = ["unshare", "--mount", sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)

    assert ended.stdout.splitlines() == [
        "No space left on device",
        "live is the first",
        "no half is left",
        "small fits",
    ], ended.stderr


FULL = """
import ctypes, sys
from pathlib import Path
from rulegen.errors import ApplyError
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.disk.releases import Releases
from tests.host.nginx.examples import configuration, server

mounted = Path(sys.argv[1]) / "disk"
mounted.mkdir()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"tmpfs", bytes(mounted), b"tmpfs", 0, b"size=128k,mode=755") == 0
releases = Releases(mounted / "nginx", NGINX)
first = configuration()
releases.write(first)
releases.switch(first.digest)
try:
    releases.write(configuration({"a.test": server("a.test", body="x" * 200_000)}))
except ApplyError as error:
    print("No space left on device" if "No space left on device" in error.message else error.message)
    print("live is the first" if f"release {first.digest} is served as before" in error.message else error.message)
    assert "free space" in error.hint
left = [path.name for path in (releases.folder / "releases").iterdir()]
print("no half is left" if left == [first.digest] else left)
small = configuration({"b.test": server("b.test")})
releases.write(small)
releases.switch(small.digest)
print("small fits" if releases.current() == small else "not")
"""


@needs_mounts
def test_an_unwritable_folder_is_reported(tmp_path):
    script = tmp_path / "closed.py"
    script.write_text(CLOSED)
    argv = ["unshare", "--mount", sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)

    assert ended.stdout.splitlines() == ["True True", "True", "same"], ended.stderr


CLOSED = """
import ctypes, sys
from pathlib import Path
from rulegen.errors import HostError
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.disk.releases import Releases
from tests.host.nginx.examples import configuration, server

mounted = Path(sys.argv[1]) / "disk"
mounted.mkdir()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"tmpfs", bytes(mounted), b"tmpfs", 0, b"size=1m,mode=755") == 0
releases = Releases(mounted / "nginx", NGINX)
first, second = configuration(), configuration({"b.test": server("b.test")})
releases.write(first)
releases.switch(first.digest)
assert libc.mount(b"none", bytes(mounted), None, 32 | 1, None) == 0
try:
    releases.write(second)
except HostError as error:
    print("Read-only file system" in error.message, "run as root" in error.hint)
try:
    Releases(mounted / "other", NGINX).write(second)
except HostError as error:
    print("Read-only file system" in error.message)
print("same" if releases.current() == first else "changed")
"""


def test_switching_to_a_missing_release_changes_nothing(releases):
    releases.write(FIRST)
    releases.switch(FIRST.digest)

    with pytest.raises(ApplyError, match=f"no such release; release {FIRST.digest} is served as before"):
        releases.switch("0" * 32)
    assert releases.live() == FIRST.digest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: (place / name("a.test")).write_text("edited by hand"),
        lambda place: (place / "hosts" / "0000000000000000.conf").write_text("one more"),
        lambda place: (place / KEY).unlink(),
        lambda place: (place / KEY).chmod(0o644),
        lambda place: (place / "MANIFEST").unlink(),
        lambda place: (place / "upstreams").rmdir(),
    ],
)
def test_a_release_that_somebody_changed_is_mended(releases, spoil):
    place = releases.write(FIRST)
    releases.switch(FIRST.digest)
    assert releases.is_whole(FIRST)
    spoil(place)
    assert not releases.is_whole(FIRST)

    assert releases.write(FIRST) == place

    assert releases.is_whole(FIRST)
    assert releases.current() == FIRST
    assert [path.name for path in place.parent.iterdir()] == [FIRST.digest]


def test_bytes_that_changed_under_the_same_time_do_not_go_live(releases):
    """One file of all releases is edited and its time set back: the next release is read before it goes live."""
    long_ago = (10**18, 10**18)
    place = releases.write(FIRST)
    os.utime(place / name("a.test"), ns=long_ago)
    releases.switch(FIRST.digest)
    assert releases.is_whole(FIRST)
    edited = place / name("a.test")
    edited.write_bytes(edited.read_bytes().swapcase())
    os.utime(edited, ns=long_ago)

    assert releases.write(SECOND)
    assert releases.write(SECOND)

    assert releases.is_whole(SECOND)
    assert releases.read(SECOND.digest) == SECOND
