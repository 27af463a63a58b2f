"""`rulegen plan --observed-dir`: a table of nodes and the differences that they share, in four formats."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import jsonschema
import pytest
import yaml

from rulegen.cli.json_schemas import SCHEMAS
from tests.cli.fleet.conftest import OPTIONS, without_node_port
from tests.cli.fleet.sarif_schema import check_published, check_sarif, published
from tests.servers.fakeapi import FakeApi

PLAN = ("plan", *OPTIONS, "--observed-dir", "dumps")


@pytest.fixture
def nodes(dump):
    """Have one node as the cluster wants it, two that lack the same rule, and one whose dump breaks off."""
    dump("node1")
    dump("node2", without_node_port)
    dump("node3", without_node_port)
    dump("node4", lambda text: text[: text.index("COMMIT")])


def rows(out: str) -> dict[str, list[str]]:
    """Return the cells of the table by node."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("NODE"))
    table = [re.split(r" {2,}", line.strip()) for line in lines[start + 1 : lines.index("", start)]]
    return {name: cells for name, *cells in table}


def test_a_difference_is_listed_once_with_its_nodes(run, nodes):
    code, out, err = run(*PLAN)
    assert code == 1
    assert rows(out) == {
        "node1": ["no changes", "0", "0", "0", "0", "0", "0"],
        "node2": ["changes", "1", "0", "0", "1", "0", "1"],
        "node3": ["changes", "1", "0", "0", "1", "0", "1"],
        "node4": ["error", "-", "-", "-", "-", "-", "-"],
    }
    assert out.count("2 nodes (node2, node3): ~ Service demo/blog") == 1
    assert "node4: dumps/node4/iptables.save: table filter is not complete: no COMMIT" in out
    assert out.splitlines()[-1] == "Nodes: 2 with changes, 1 with no changes, 1 not compared."
    assert err.splitlines()[-2] == "Error: 1 of 4 nodes could not be compared: node4"


def test_v_shows_each_object_once(run, nodes):
    out = run(*PLAN, "-v")[1]
    assert out.count("--dport 32388 -j KUBE-EXT-") == 1
    assert "2 nodes (node2, node3); Service demo/blog" in out


@pytest.mark.parametrize(
    ("change", "more", "code"),
    [(None, (), 0), (None, ("--detailed-exitcode",), 0), (without_node_port, ("--detailed-exitcode",), 2),
     (without_node_port, (), 0)],
    ids=["same", "same-detailed", "changes-detailed", "changes"],
)  # fmt: skip
def test_exit_codes_are_those_of_a_plan_of_one_node(run, dump, change, more, code):
    dump("node1")
    dump("node2", *([change] if change else []))
    assert run(*PLAN, *more)[0] == code


def test_json_is_valid_by_its_schema(run, nodes):
    code, out, _ = run(*PLAN, "-o", "json")
    document = json.loads(out)
    jsonschema.Draft202012Validator(SCHEMAS["fleet-plan"]).validate(document)
    assert code == 1
    assert document["summary"] == {"nodes": 4, "same": 1, "partly-observed": 0, "changes": 2, "error": 1}
    assert [change["nodes"] for change in document["changes"]] == [["node2", "node3"]]
    failed = document["nodes"][3]
    assert failed["result"] == "error"
    assert failed["add"] is None, "a node that was not compared has no number of changes"


def test_sarif_has_a_result_for_each_object_and_node(run, nodes):
    code, out, _ = run(*PLAN, "-o", "sarif")
    log = json.loads(out)
    check_sarif(log)
    assert code == 1
    (audit,) = log["runs"]
    rules = audit["tool"]["driver"]["rules"]
    assert [(result["ruleId"], result["level"]) for result in audit["results"]] == [
        ("node-not-compared", "error"),
        ("object-missing", "warning"),
        ("object-missing", "warning"),
    ]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in audit["results"])
    uris = [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in audit["results"]]
    assert uris == ["dumps/node4", "dumps/node2", "dumps/node3"]
    assert len({json.dumps(result["partialFingerprints"]) for result in audit["results"]}) == 3
    assert audit["invocations"][0]["executionSuccessful"] is False
    for wrong in ({**log, "version": "2.0.0"}, {**log, "runs": [{**audit, "reslts": []}]}, {**log, "runs": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            check_sarif(wrong)


@pytest.mark.not_quick
def test_sarif_is_valid_by_the_published_schema(run, nodes, tmp_path_factory):
    schema = published(tmp_path_factory.mktemp("npm"))
    many = json.loads(run(*PLAN, "-o", "sarif")[1])
    single = json.loads(run("plan", *OPTIONS, "--node", "node2", "--observed", "dumps/node2", "-o", "sarif")[1])
    for log in (many, single):
        check_published(log, schema)
    for wrong in ({**many, "version": "2.0.0"}, {**many, "runs": [{**many["runs"][0], "reslts": []}]}):
        with pytest.raises(jsonschema.ValidationError):
            check_published(wrong, schema)


def test_no_text_of_a_dump_becomes_a_link_in_sarif(run, dump):
    """A viewer makes links of `[text](target)`, wherever the text comes from."""
    rule = "-A KUBE-SERVICES -m string --string [click](https://evil.example)\u202e --algo bm -j ACCEPT"
    dump("node1", lambda text: text.replace("COMMIT\n", f"{rule}\nCOMMIT\n", 1))
    out = run(*PLAN, "-o", "sarif")[1]
    messages = [result["message"]["text"] for result in json.loads(out)["runs"][0]["results"]]
    assert any("[click] (https://evil.example)" in message for message in messages)
    assert not any("](" in message or "\u202e" in message for message in messages)


@pytest.mark.parametrize("form", ["sarif", "html"])
def test_one_node_has_these_formats_too(run, dump, form):
    dump("node1", without_node_port)
    code, out, err = run("plan", *OPTIONS, "--node", "node1", "--observed", "dumps/node1", "-o", form)
    assert (code, err) == (0, "")
    assert "KUBE-NODEPORTS" in out
    if form == "sarif":
        check_sarif(json.loads(out))


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>&\"'"


def test_hostile_names_and_rules_are_text_in_every_format(run, dump, folder):
    """Folder names, comments and rules of a dump come from other people."""
    comment = HOSTILE.replace('"', "").replace("'", "")
    rule = f'-A KUBE-SERVICES -m comment --comment "{comment}" -j ACCEPT'
    dump("node1", lambda text: text.replace("COMMIT\n", f"{rule}\nCOMMIT\n", 1))
    (folder / "dumps" / HOSTILE.replace("/", "|")).mkdir()
    (folder / "dumps" / "evil\x1b[2J\u202e").mkdir()
    for form in ("text", "json", "sarif", "html"):
        code, out, _ = run(*PLAN, "-o", form, "-v")
        assert code == 1
        assert "\x1b" not in out
        assert "\u202e" not in out
    page = Page(out)
    assert page.elements.isdisjoint({"script", "img", "link", "iframe", "a", "object"})
    assert not {name for name in page.attributes if name.startswith("on") or name in {"src", "href"}}
    assert "<script>" in "".join(page.texts), "the text is there, as text"
    assert "Content-Security-Policy" in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("node9", "there is no Node node9; did you mean node1?"),
        ("Node1", "no Node can have this name; did you mean node1?"),
        ("no_de", "cannot be the name of a Node"),
        ("node2", "no dump of iptables-save, ip6tables-save or nft list ruleset there"),
        ("node2", "(it is the output of `nft list`: for a node in nftables mode, give --mode nftables"),
    ],
)
def test_a_folder_that_cannot_be_compared_is_a_row(run, dump, folder, name, message):
    dump("node1")
    (folder / "dumps" / name).mkdir()
    (folder / "dumps" / name / "saved").write_text("table ip kube-proxy {\n}\n")
    code, out, _ = run(*PLAN, "--detailed-exitcode")
    assert code == 1
    assert rows(out)[name][0] == "error"
    assert message in out
    assert rows(out)["node1"][0] == "no changes"


def test_a_link_to_another_folder_is_not_followed(run, dump, folder):
    dump("node1")
    (folder / "dumps" / "node2").symlink_to(folder / "dumps" / "node1")
    out = run(*PLAN)[1]
    assert rows(out)["node2"][0] == "error"
    assert "is a symbolic link" in out


def test_a_part_that_was_not_observed_is_not_no_changes(run, dump):
    dump("node1", lambda text: text[text.index("*nat") :].replace("# Tables", "# tables"))
    out = run(*PLAN)[1]
    assert rows(out)["node1"][0] == "no changes seen"


def test_rules_of_a_family_that_the_host_lacks_are_reported(run, dump):
    """The facts may be those of the laptop on which the command runs."""
    place = dump("node1")
    (place / "ip6tables.save").write_text("*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n*filter\nCOMMIT\n*mangle\nCOMMIT\n")
    out = run(*PLAN)[1]
    assert rows(out)["node1"][0] == "no changes seen"
    assert "node1: IPv6 rules of Services are in the dumps, but not in the plan" in out


def test_an_api_server_is_asked_for_all_nodes_once(run, dump, folder):
    dump("node1")
    dump("node2", without_node_port)
    with FakeApi() as api:
        objects = list(yaml.safe_load_all((folder / "objects.yaml").read_text()))
        for kind, collection in (("Service", "services"), ("EndpointSlice", "endpointslices"), ("Node", "nodes")):
            api.put(collection, *(entry for entry in objects if entry["kind"] == kind))
        kubeconfig = api.kubeconfig(folder)
        words = ("--kubeconfig", kubeconfig, *PLAN[3:])
        code, out, err = run("plan", *words)
    assert (code, err) == (0, "")
    assert [cells[0] for cells in rows(out).values()] == ["no changes", "changes"]
    assert "Without a folder: 2 Nodes of the cluster (node3, node4)" in out


def test_facts_beside_the_dumps_are_those_of_the_node(run, dump, folder):
    place = dump("node1")
    (place / "host.yaml").write_text((folder / "host").read_text())
    without = tuple(word for word in PLAN if word not in {"--host", "host"})
    code, out, err = run(*without)
    assert (code, err) == (0, "")
    assert rows(out)["node1"][0] == "no changes"
    assert "facts of this host" not in out
    (place / "host.yaml").write_text("host: {interfaces: 7}\n")
    assert rows(run(*without)[1])["node1"][0] == "error"


def test_nodes_without_a_folder_are_named(run, dump):
    dump("node1")
    assert "Without a folder: 3 Nodes of the cluster (node2, node3, node4)" in run(*PLAN)[1]


def test_a_service_narrows_the_differences_but_not_the_table(run, nodes):
    out = run(*PLAN, "-n", "other")[1]
    assert "Service demo/blog" not in out
    assert rows(out)["node2"][0] == "changes"
    assert "Service demo/blog" in run(*PLAN, "demo/blog")[1]


@pytest.mark.parametrize(
    "more", [("--node", "node1"), ("--observed", "none"), ("--out", "x"), ("--ingress",)], ids=" ".join
)
def test_options_for_one_node_are_refused(run, dump, folder, more):
    dump("node1")
    code, out, err = run(*PLAN, *more)
    assert (code, out) == (1, "")
    assert f"--observed-dir cannot be combined with {more[0]}" in err
    assert not (folder / "x").exists()


@pytest.mark.parametrize("make", ["file", "empty", "nothing"])
def test_a_folder_without_nodes_is_an_error(run, folder, make):
    if make == "file":
        (folder / "dumps" / "iptables.save").write_text("*nat\nCOMMIT\n")
    elif make == "nothing":
        (folder / "dumps").rmdir()
    code, out, err = run(*PLAN)
    assert (code, out) == (1, "")
    assert "Next: " in err
