"""`rulegen plan --ingress` with settings that cannot be used, and with --strict: exit codes, and what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rulegen.cli.main import main
from tests.cli.ingress.test_ingress import HOST, PLAN, ingress, world

HIDDEN = "hosts of Ingresses could not be read, so what they restrict may be open: Ingress demo/bad"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("host").write_text(HOST)

    def call(*arguments: str, objects: list[dict]) -> tuple[int, str, str]:
        Path("objects.yaml").write_text(yaml.safe_dump_all(objects))
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "-f", "objects.yaml"])
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


def test_an_unreadable_restriction_closes_only_its_ingresses(run):
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "demo"},
        "data": {"whitelist-source-range": "10.0.0.0/33"},
    }
    code, out, _ = run(*PLAN, "--configmap", "demo/settings", objects=world(ingress("blog", "b.test"), settings))
    assert code == 0
    assert "return 503" in out
    assert "data.whitelist-source-range" in out
    settings["data"] = {"gzip-level": "much"}
    code, out, _ = run(*PLAN, "--configmap", "demo/settings", objects=world(ingress("blog", "b.test"), settings))
    assert code == 0
    assert "data.gzip-level" in out


@pytest.mark.parametrize(
    ("annotations", "more", "expected"),
    [
        ({}, ("--strict",), 0),
        ({}, ("--strict", "--detailed-exitcode"), 2),
        ({"use_regex": "true"}, ("--strict",), 0),  # a note: it is served as specified
        ({"enable_cors": "perhaps"}, (), 0),
        ({"enable_cors": "perhaps"}, ("--strict",), 3),
        ({"enable_cors": "perhaps"}, ("--strict", "--detailed-exitcode"), 3),
        ({"server_snippet": "deny all;"}, ("--strict", "-o", "json"), 3),
        ({"no_such": "annotation"}, ("--strict",), 3),
    ],
)
def test_strict_plan_exits_with_3_if_an_ingress_deviates(run, annotations, more, expected):
    code, out, err = run(*PLAN, *more, objects=world(ingress("blog", "b.test", **annotations)))
    assert code == expected
    assert "b.test" in out
    assert ("--strict: Ingresses are not served as specified" in err) is (expected == 3)
    if "json" in more:
        assert json.loads(out)["ingress"]["reasons"]


def test_an_invalid_ingress_is_closed_and_hidden_hosts_are_a_warning(run):
    wild, bad = ingress("wild", "*.test"), ingress("bad", "b.test", auth_type="basic", auth_secret="users")
    bad["spec"]["tls"] = [{"hosts": "b.test"}]
    code, out, _ = run(*PLAN, objects=world(wild, bad))
    assert code == 0
    assert "Ingress demo/bad (closed)" in out
    assert "spec.tls[0].hosts: expected a list" in out
    bad["spec"]["rules"].append({"host": ["c.test"]})
    code, out, _ = run(*PLAN, "--detailed-exitcode", objects=world(wild, bad))
    assert code == 2
    assert "Ingress demo/bad (closed)" in out
    assert HIDDEN in out


def test_an_export_with_hidden_hosts_is_written_with_a_warning(run):
    bad = ingress("bad", "b.test")
    bad["spec"]["rules"] = "b.test"
    code, _, errors = run("export", "--no-services", "--nginx", "out", objects=world(ingress("blog", "a.test"), bad))
    assert code == 0
    assert HIDDEN in errors
    assert Path("out/nginx.conf").exists()


def test_an_invalid_ingress_of_another_class_closes_nothing(run):
    wild, bad = ingress("wild", "*.test"), ingress("bad", "b.test", auth_type="basic", auth_secret="users")
    bad["spec"] |= {"tls": [{"hosts": "b.test"}], "ingressClassName": "other"}
    code, out, _ = run(*PLAN, objects=world(wild, bad))
    assert code == 0
    assert "Ingress demo/bad (" not in out
