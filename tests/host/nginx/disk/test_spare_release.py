"""A release made of the folder of an earlier one holds what a release that is written anew holds."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.host.commands.runner import run
from rulegen.host.nginx.program import NGINX
from rulegen.host.nginx.service import NginxService
from rulegen.host.proxy.disk import writing
from rulegen.host.proxy.disk.releases import Releases
from rulegen.languages.configuration import Configuration, SecretContent
from tests.host.nginx.examples import configuration, name, server
from tests.sizes import examples

KEY = "secrets/0123456789abcdef.pem"
PASSWORDS = "secrets/fedcba9876543210.htpasswd"


def made(**bodies: str) -> Configuration:
    """Return a configuration with a host for each name; `key` and `users` are secret files."""
    secrets = {KEY: SecretContent(bodies.pop("key", "key").encode())}
    if users := bodies.pop("users", ""):
        secrets[PASSWORDS] = SecretContent(users.encode(), for_workers=True)
    return configuration({host: server(host, body=body) for host, body in bodies.items()}, secrets=secrets)


class Stage:
    """Releases of a process that serves one configuration after the other."""

    def __init__(self, folder: Path) -> None:
        self.releases = Releases(folder / "nginx", NGINX, keeps_spare=True)

    def serve(self, wanted: Configuration) -> Path:
        self.releases.write(wanted)  # to be tried
        return self.go_live(wanted)

    def go_live(self, wanted: Configuration) -> Path:
        place = self.releases.write(wanted)
        self.releases.switch(wanted.digest)
        self.releases.confirm(wanted.digest)
        self.releases.prune()
        self.releases.prepare_next(wanted)
        return place

    @property
    def spare(self) -> Path:
        (spare,) = (self.releases.folder / "releases").glob("*.spare")
        return spare


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def files_of(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_only_what_differs_is_written_or_linked(stage, monkeypatch):
    stage.serve(made(a="1", b="1", c="1"))
    linked = []
    link = os.link
    monkeypatch.setattr(writing.os, "link", lambda *names, **named: (linked.append(names), link(*names, **named)))

    place = stage.releases.write(made(a="1", b="1", c="2"))

    assert linked == []
    assert b"2" in (place / name("c")).read_bytes()


@pytest.mark.parametrize("seed", range(examples(40)))
def test_any_row_of_releases_is_as_written_anew(tmp_path, seed):
    chance = random.Random(seed)
    stage = Stage(tmp_path)
    for number in range(8):
        hosts = {host: chance.choice("12") for host in chance.sample("abcdef", chance.randint(1, 5))}
        wanted = made(**hosts, key=chance.choice("12"), users=chance.choice(["", "", "1", "2"]))
        if chance.random() < 0.3:  # one that nginx refuses
            stage.releases.write(wanted)
            stage.releases.discard(wanted.digest)
            continue
        place = stage.serve(wanted)

        anew = Releases(tmp_path / f"anew-{number}", NGINX).write(wanted)
        assert stage.releases.current() == wanted
        left = {PASSWORDS} - wanted.secrets.keys()  # old workers may open them
        there = {path: content for path, content in files_of(place).items() if path not in left}
        assert there == files_of(anew)
        assert {path: (place / path).stat().st_mode for path in there} == {
            path: (anew / path).stat().st_mode for path in there
        }


def in_place(path: Path) -> None:
    """Write other bytes to a file, which is that of the live release too, and give it its old time again."""
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.chmod(0o644),
        lambda path: (path.unlink(), path.write_bytes(b"server {}")),
        lambda path: path.with_name(f"{'0' * 16}.conf").write_bytes(b"server {}"),
        in_place,
        lambda path: (path.unlink(), os.link(path.parent.parent / name("b"), path)),
        lambda path: (path.rename(path.with_suffix(".away")), path.parent.rename(path.parent.with_name("gone"))),
        lambda path: path.parent.chmod(0o777),
    ],
    ids=["deleted", "link", "folder", "mode", "content", "added", "in place", "hard link", "no folder", "open folder"],
)
def test_a_changed_spare_folder_is_repaired_before_use(stage, spoil):
    stage.serve(made(a="1", b="1"))
    spoil(stage.spare / name("a"))
    wanted = made(a="1", b="2")

    place = stage.serve(wanted)

    assert stage.releases.is_whole(wanted)
    assert files_of(place) == files_of(Releases(stage.releases.folder.parent / "anew", NGINX).write(wanted))


def test_a_folder_that_another_process_took_away_is_not_needed(stage):
    stage.serve(made(a="1", b="1"))
    Releases(stage.releases.folder, NGINX).prune()
    wanted = made(a="1", b="2")

    stage.serve(wanted)

    assert stage.releases.current() == wanted


def test_a_command_keeps_no_such_folder(tmp_path):
    releases = Releases(tmp_path / "nginx", NGINX)
    for body in "123456":
        wanted = made(a=body)
        releases.write(wanted)
        releases.switch(wanted.digest)
        releases.confirm(wanted.digest)
        releases.prune()
        releases.prepare_next(wanted)

    assert len(list((releases.folder / "releases").iterdir())) == 3


def test_a_changed_spare_folder_rejects_no_configuration(folder, namespace):
    service = NginxService(folder, run, confirm_s=10, keeps_spare=True)
    hosts = {host: server(host) for host in ("a.test", "b.test")}
    service.apply(configuration(hosts))
    (spare,) = (folder / "releases").glob("*.spare")
    changed = spare / name("a.test")
    changed.unlink()
    changed.write_text("nonsense;")
    changed.chmod(0o600)
    wanted = configuration({**hosts, "b.test": server("b.test", body="new")})

    assert service.test(wanted).message is None
    assert service.apply(wanted, tested=True).action is DeployAction.RELOADED
