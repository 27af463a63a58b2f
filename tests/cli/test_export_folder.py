"""`rulegen export` writes over its own files, and over nobody else's; `--config` and `--host` are one document."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.cli import main
from tests.cli.test_plan import BLOG, HOST

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
    assert f"node/{name} is there, and no export of rulegen wrote it: nothing was written" in out
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


def test_an_export_is_written_over_by_the_next_and_its_neighbours_stay(run):
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


@pytest.mark.parametrize("option", ["--config", "--host"])
def test_a_second_document_is_an_error_and_not_passed_over(run, option):
    document = CONFIG + "clusterCIDR: 10.244.0.0/16\n" if option == "--config" else HOST
    Path("two").write_text(f"{document}---\n{document}")
    code, out = run("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none", option, "two")
    assert code == 1
    assert "two: line " in out
    assert "a second document, and only one is expected" in out
    Path("two").write_text(f"---\n{document}---\n# nothing more\n")
    assert run("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none", option, "two")[0] == 0
