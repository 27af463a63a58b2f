"""`rulegen export` writes over its own files, and over nobody else's; `--config` and `--host` are one document."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from rulegen.cli.main import main
from tests.cli.test_plan import BLOG, HOST
from tests.rights import needs_root

GIVEN = ("-f", "blog.yaml", "--host", "host", "--node", "node1")
DUMP = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"
CONFIG = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


@pytest.fixture
def run(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("blog.yaml").write_text(BLOG)
    Path("host").write_text(HOST)

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out + printed.err

    return call


def contents(folder: str) -> dict[str, str]:
    return {str(path): path.read_text() for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".pem"}


@pytest.mark.parametrize("earlier", [True, False], ids=["beside-an-export", "alone"])
@pytest.mark.parametrize("name", ["iptables.save", "ip6tables.save"])
def test_a_dump_of_the_node_is_not_written_over(run, name, earlier):
    Path("node").mkdir()
    if earlier:
        assert run("export", *GIVEN, "-o", "node")[0] == 0
    Path("node", name).write_text(DUMP)
    before = contents("node")
    code, out = run("export", *GIVEN, "--cluster-cidr", "10.244.0.0/16", "-o", "node")
    assert (code, contents("node")) == (1, before)
    assert f"node/{name} exists and was not written by an export of rulegen: nothing was written" in out
    assert "Next: " in out


@pytest.mark.parametrize(
    ("option", "name", "text"),
    [
        ("-o", "sysctl.conf", "kernel.panic = 10\n"),
        ("-o", "model.json", '{"mine": 1}\n'),
        ("--nginx", "nginx.conf", "user root;\n"),
        ("--nginx", "provenance.json", "{}\n"),
    ],
)
def test_what_others_wrote_is_not_written_over(run, option, name, text):
    Path("out").mkdir()
    Path("out", name).write_text(text)
    code, out = run("export", *GIVEN, option, "out")
    assert (code, contents("out")) == (1, {f"out/{name}": text}), out


def test_the_next_export_overwrites_and_other_files_stay(run):
    Path("out").mkdir()
    Path("out", "notes").write_text("mine\n")
    assert run("export", *GIVEN, "-o", "out", "--nginx", "out/site")[0] == 0
    first = contents("out")
    assert run("export", *GIVEN, "--cluster-cidr", "10.244.0.0/16", "-o", "out", "--nginx", "out/site")[0] == 0
    second = contents("out")
    assert second["out/notes"] == "mine\n"
    assert second["out/iptables.save"] != first["out/iptables.save"]
    assert run("export", *GIVEN, "-o", "out", "--nginx", "out/site")[0] == 0
    assert contents("out") == first


SITE = ("hosts", "upstreams", "secrets", "run", "logs", "nginx.conf", "provenance.json")
RULES = ("iptables.save", "ip6tables.save", "model.json", "sysctl.conf")


def planted(kind: str, path: Path) -> None:
    """Put something in a file's place that leads elsewhere, or that nobody ever writes to."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.symlink_to({"link": Path("elsewhere").absolute(), "dangling": Path("nowhere").absolute()}[kind])


@pytest.mark.parametrize("earlier", [True, False], ids=["beside-an-export", "alone"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "dangling"])
@pytest.mark.parametrize(("option", "name"), [*(("--nginx", n) for n in SITE), *(("-o", n) for n in RULES)])
def test_nothing_is_written_through_what_others_planted(run, option, name, kind, earlier):
    Path("elsewhere").mkdir()
    Path("elsewhere", f"{'a' * 32}.pem").write_text("another's")
    Path("out").mkdir()
    if earlier:
        assert run("export", *GIVEN, option, "out")[0] == 0
    planted(kind, Path("out", name))
    code, out = run("export", *GIVEN, option, "out")
    shown = {"fifo": "a FIFO", "socket": "a socket"}.get(kind, "a symbolic link")
    assert code == 1
    assert f"Error: out/{name} is {shown}, not a f" in out
    assert "nothing was written" in out
    assert {path.name for path in Path("elsewhere").iterdir()} == {f"{'a' * 32}.pem"}
    assert not Path("nowhere").exists()
    assert earlier or {path.name for path in Path("out").iterdir()} == {name}


@needs_root
@pytest.mark.parametrize("name", [".", "secrets", "hosts", "run"])
def test_nginx_export_goes_into_no_folder_of_another_user(run, name):
    Path("out").mkdir()
    Path("out", name).mkdir(exist_ok=True)
    os.chown(Path("out", name), 4321, -1)
    code, out = run("export", *GIVEN, "--nginx", "out")
    assert code == 1
    assert "belongs to user 4321, who could change what is read there: nothing was written" in out
    assert "chown" in out


def test_an_export_makes_private_again_what_others_could_read(run):
    assert run("export", *GIVEN, "--nginx", "out")[0] == 0
    (key,) = Path("out/secrets").iterdir()
    Path("out/secrets").chmod(0o755)
    key.chmod(0o644)
    assert run("export", *GIVEN, "--nginx", "out")[0] == 0
    assert (Path("out/secrets").stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("option", ["--config", "--host"])
def test_a_second_document_is_an_error_and_not_passed_over(run, option):
    document = CONFIG + "clusterCIDR: 10.244.0.0/16\n" if option == "--config" else HOST
    Path("two").write_text(f"{document}---\n{document}")
    code, out = run("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none", option, "two")
    assert code == 1
    assert "two: line " in out
    assert "a second document, but only one is expected" in out
    Path("two").write_text(f"---\n{document}---\n# nothing more\n")
    assert run("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none", option, "two")[0] == 0
