"""JSON for machines: each document is valid by the schema that `rulegen schema` prints, errors included."""

from __future__ import annotations

import json
import os
import re
import string
from pathlib import Path

import jsonschema
import pytest

from rulegen.cli.json_schemas import SCHEMAS
from rulegen.cli.main import main
from rulegen.cli.terminal.failures import wants_json
from rulegen.host.doctor.findings import Finding, Level, as_document
from tests.cli.plans.test_saved_plans import OPTIONS, SERVICES, saved  # noqa: F401 - a fixture
from tests.cli.test_left_out import service
from tests.project.places import ROOT

FOLDER = ROOT / "docs" / "schemas"


def check(text: str, name: str) -> dict[str, object]:
    """Return the only document of a text, which must be valid."""
    document: dict[str, object] = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMAS[name]).validate(document)
    return document


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_printed_and_published(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["schema", name])
    printed = capsys.readouterr().out
    if os.environ.get("RULEGEN_UPDATE_DOCS"):
        (FOLDER / f"{name}.json").write_text(printed)
    assert (stop.value.code, printed) == (0, (FOLDER / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(json.loads(printed))
    assert f"schemas/{name}.json" in (ROOT / "docs" / "cli.md").read_text()


def test_plans_applied_plans_and_saved_plans_are_valid(saved):  # noqa: F811 - the fixture
    for after in ([], SERVICES, [*SERVICES[:2], service("web", 1, ends=(9,))], [service("new", 7)]):
        saved.objects(*after)
        whole = check(saved.run("plan", *OPTIONS, "-o", "json")[1], "plan")
        assert re.fullmatch("[0-9a-f]{64}", whole["made"]["inputs"])
        if after:
            saved.run("plan", *OPTIONS, "--out", "saved", "demo/" + re.findall(r"name: (\w+)", after[0])[0])
            check(Path("saved").read_text(), "saved-plan")
        more = ("--allow-empty",) if not after else ()
        code, out, err = saved.run("apply", *OPTIONS, "--yes", "-o", "json", *more)
        assert code == 0, err
        assert "applied" in check(out, "plan")
    code, out, err = saved.run("cleanup", "--yes", "-o", "json", "--variant", "nft")
    assert code == 0, err
    assert check(out, "plan")["made"]["inputs"] is None


def test_the_digest_of_inputs_changes_with_them_alone(saved):  # noqa: F811 - the fixture
    digests = []
    for objects in (SERVICES, SERVICES[::-1], SERVICES[:2]):
        saved.objects(*objects)
        digests.append(check(saved.run("plan", *OPTIONS, "-o", "json")[1], "plan")["made"]["inputs"])
    assert digests[0] == digests[1] != digests[2]


def test_worlds_with_every_kind_of_object_are_valid(saved):  # noqa: F811 - the fixture
    folders = sorted(path for path in (ROOT / "deploy" / "examples").iterdir() if path.is_dir())
    assert folders
    for folder in folders:
        for mode in ("iptables", "ipvs"):
            words = ("plan", "--ingress", "-f", str(folder), "--mode", mode, "--host", "host", "--observed", "none")
            code, out, err = saved.run(*words, "-o", "json")
            assert code == 0, err
            assert check(out, "plan")["mode"] == mode


def test_files_of_an_export_are_valid(saved):  # noqa: F811 - the fixture
    """All modes, an Ingress on both engines, and a Service with external policies."""
    examples = ROOT / "deploy" / "examples"
    given = ("-f", str(examples / "my-blog"), "-f", str(examples / "my-blog-ingress"), "--host", "host")
    for mode in ("iptables", "ipvs", "nftables", "userspace"):
        code, _, err = saved.run("export", *given, "--mode", mode, "--cluster-cidr", "10.244.0.0/16", "-o", mode)
        assert code == 0, err
        assert check((Path(mode) / "model.json").read_text(), "model")["services"]
    for engine in ("nginx", "haproxy"):
        code, _, err = saved.run("export", *given, "--ingress", "--no-services", f"--{engine}", engine)
        assert code == 0, err
        assert check((Path(engine) / "provenance.json").read_text(), "provenance")["locations"]


def test_findings_are_valid():
    findings = [Finding(level, "tools", "a message", hint) for level in Level for hint in ("", "a step")]
    check(json.dumps(as_document(findings)), "findings")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "-f", "nowhere.yaml"), "nowhere.yaml"),
        (("plan", "--bogus"), "No such option"),
        (("apply", "--mode", "bogus"), "'bogus' is not one of"),
        (("apply", "nowhere.plan"), "apply needs a saved plan"),
        (("apply", *OPTIONS), "confirmation is needed"),
    ],
)
@pytest.mark.parametrize("form", [("-o", "json"), ("-ojson",), ("--output=json",)], ids=" ".join)
def test_an_error_is_one_document_on_standard_error(saved, words, message, form):  # noqa: F811 - the fixture
    code, out, err = saved.run(*words, *form)
    assert (code, out) == (1, "")
    document = check(err.splitlines()[-1], "error")
    assert message in str(document["message"])
    assert document["exitCode"] == code


def test_a_schema_refuses_what_is_not_such_a_document():
    plan = {"schemaVersion": 1, "kind": "Plan"}
    for name, document in (("plan", plan), ("error", plan), ("findings", {}), ("saved-plan", plan)):
        assert list(jsonschema.Draft202012Validator(SCHEMAS[name]).iter_errors(document)), name


def test_only_the_format_decides_not_a_folder_or_a_text():
    assert wants_json(["plan", "-o", "text", "-o", "json"])
    assert not wants_json(["plan", "-o", "json", "-o", "text"])
    assert not wants_json(["export", "-o", "json"])
    assert not wants_json(["plan", "--", "-o", "json"])
    assert not any(wants_json(["plan", f"-{letter}"]) for letter in string.ascii_letters)
