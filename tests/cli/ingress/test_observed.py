"""`rulegen plan --ingress --observed DUMP`: dumps have no state of nginx, and absent state never counts as empty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rulegen.cli.main import main
from tests.cli.ingress.test_old_flags import OBJECTS, TAKEN

RULES = (
    "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n*mangle\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("objects.yaml").write_text(OBJECTS)
    Path("host").write_text("host: {hostname: node1, interfaces: []}\n")
    Path("node.save").write_text(RULES)

    def call(*options: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["plan", "--ingress", "-f", "objects.yaml", "--host", "host", *TAKEN, *options])
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


def test_what_no_dump_shows_is_not_in_the_plan(plan) -> None:
    code, out, _ = plan("--observed", "node.save", "--annotations-prefix", "x.test", "--tcp-services-configmap=a/b")
    assert code == 0
    assert "chain nat KUBE-SERVICES" in out
    assert "nginx was not observed, so it is not in the plan" in out
    assert "Ingress: nginx" not in out
    assert "host site.test" not in out
    assert "not supported: nothing listens for TCP and UDP Services" in out


def test_machines_see_that_nginx_was_not_compared(plan) -> None:
    document = json.loads(plan("--observed", "node.save", "-o", "json")[1])
    assert document["ingress"]["reload"] is None
    assert document["ingress"]["observed"] == "nothing, because its state was not observed"
    assert not [change for change in document["changes"] if change["language"] == "nginx"]


def test_an_empty_host_is_still_compared(plan) -> None:
    assert "Ingress: nginx will be started (compared with an empty host)" in plan("--observed", "none")[1]


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (("node.save",), "--observed with --no-services: dumps do not contain the configuration of nginx"),
        (("missing",), "--observed with --no-services: dumps do not contain the configuration of nginx"),
        (("none", "node.save"), "--observed none cannot be combined with other dumps"),
    ],
)
def test_without_services_a_dump_is_refused(plan, observed, said) -> None:
    code, out, err = plan("--no-services", *(word for path in observed for word in ("--observed", path)))
    assert (code, out) == (1, "")
    assert said in err
