"""Planning and ending nginx from the command line: a plan writes nothing, sees taken ports; cleanup tells the truth."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from pathlib import Path

import pytest
import yaml

from rulegen.cli.main import main
from rulegen.host.nginx.program import NGINX
from tests.cli.ingress.test_ingress import HOST, ingress, world

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]


@pytest.fixture
def run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], namespace: None):
    (tmp_path / "host").write_text(HOST)
    objects = tmp_path / "objects.yaml"
    objects.write_text(yaml.safe_dump_all(world(ingress("web", "shop.test"))))

    def call(verb: str, *more: str) -> tuple[int, str, str]:
        given = ["--ingress", "--no-services", "--nginx-dir", str(folder)]
        if verb != "cleanup":
            given += [
                "-f",
                str(objects),
                "--host",
                str(tmp_path / "host"),
                "--http-port",
                "8081",
                "--https-port",
                "8444",
            ]
        with pytest.raises(SystemExit) as stop:
            main([verb, *given, *more])
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


def everything(folder: Path) -> dict[str, int]:
    """Return all files below a folder, with the moment in which each was changed last; nginx may still make sockets."""
    paths = (path for path in (folder, *folder.rglob("*")) if not path.is_socket())
    return {str(path): path.lstat().st_ctime_ns for path in paths} if folder.exists() else {}


def test_a_plan_writes_nothing_whether_nginx_ever_ran_or_not(run, folder, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    code, out, _ = run("plan", "--detailed-exitcode")
    assert (code, folder.exists()) == (2, False)
    assert "nginx will be started" in out
    assert run("apply")[0] == 1
    assert not folder.exists()
    assert run("apply", "--yes")[0] == 0
    before = everything(folder)
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(world(ingress("other", "blog.test"))))
    assert run("plan", "--detailed-exitcode")[0] == 2
    assert run("apply")[0] == 1
    assert everything(folder) == before
    assert not list(scratch.iterdir())


def test_a_saved_plan_is_applied_byte_for_byte_as_shown(run, folder, tmp_path, capsys):
    saved = str(tmp_path / "saved")
    for host in ("shop.test", "blog.test"):
        (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(world(ingress("web", host))))
        shown = run("plan", "-v", "--out", saved)[1]
        with pytest.raises(SystemExit) as stop:
            main(["apply", saved, "--yes", "-v"])
        out, err = capsys.readouterr()
        assert not stop.value.code, err
        more = r"Applied: \d+ changes in 1 step\.\nnginx (started|reloaded) in \S+ s\n"
        assert re.fullmatch(re.escape(shown) + more, out), out
        assert f"  + host {host}\n" in shown
        served = "".join(path.read_text() for path in (folder / "current" / "hosts").glob("*.conf"))
        assert f"server_name {host};" in served
        assert run("plan", "--detailed-exitcode")[0] == 0


@pytest.mark.parametrize("port", [8081, 8444])
def test_a_taken_port_is_reported_before_anything_is_written(run, folder, port):
    with socket.create_server(("0.0.0.0", port)):
        code, out, _ = run("plan")
        assert code == 0
        warning = next(line for line in out.splitlines() if f"port {port} is held by process {os.getpid()} (" in line)
        assert "apply fails" in warning
        code, _, err = run("apply", "--yes")
        assert (code, folder.exists()) == (1, False)
        assert f"port {port} is held by process {os.getpid()}" in err
        assert "--http-port" in err
    assert f"port {port}" not in run("plan")[1]


def test_cleanup_says_what_there_was_to_end(run, folder):
    code, out, err = run("cleanup")
    assert (code, err) == (0, "")
    assert "nginx is not running" in out
    assert "nginx was never started" in out
    assert "has stopped" not in out
    assert not folder.exists()
    (folder / "releases").mkdir(parents=True)
    assert run("cleanup")[0] == 1
    assert folder.exists()
    code, out, _ = run("cleanup", "--yes")
    assert (code, folder.exists()) == (0, False)
    assert f"no nginx ran in {folder}; the folder was removed" in out
    assert run("apply", "--yes")[0] == 0
    code, out, _ = run("cleanup", "--yes", "-o", "json")
    document = json.loads(out)
    assert (code, NGINX.processes(folder), folder.exists()) == (0, (), False)
    assert document["applied"] == [f"nginx in {folder} has stopped"]
    assert {change["kind"] for change in document["changes"]} == {"process", "folder"}
