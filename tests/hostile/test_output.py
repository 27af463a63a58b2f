"""No text from outside commands a terminal: no control or format character leaves, in text, JSON, pages or the log.

Every place that a text may come from is tried with every command that reads it.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.metrics import _escaped
from rulegen.cli.terminal import console
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import Completed
from rulegen.host.doctor.findings import Finding, Level, as_text
from rulegen.host.proxy.disk.log_rotation import RotatedLog as Lines
from rulegen.plan import show
from rulegen.safe_files import folder_at
from rulegen.text import harmless, harmless_json
from tests.cli.test_plan import BLOG, HOST
from tests.fakes.faults import Fault
from tests.hostile.output_places import PLACES, PLAN
from tests.hostile.outputs import CATEGORIES, FEW, NODE, TEXTS, WORST, judge, left, run, streams
from tests.servers.fakeapi import FakeApi


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blog.yaml").write_text(BLOG + NODE)
    Path("host").write_text(HOST)
    monkeypatch.setenv("KUBECONFIG", "nowhere")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", [*PLACES])
def test_from_every_place(place):
    for words in PLACES[place](WORST):
        judge(run(*words))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", [*PLACES])
@FEW
@given(text=TEXTS)
def test_from_every_place_any_text(place, text):
    for words in PLACES[place](text):
        judge(run(*words))


def test_a_name_that_is_no_text():
    Path(os.fsdecode(b"\xff\x1b.yaml")).write_text(BLOG + NODE)
    for more in ((), ("-o", "json")):
        said = run("plan", "-f", ".", "--host", "host", "--observed", "none", "--node", "node1", *more)
        assert said.code == 0
        judge(said)


def test_json_says_the_same_and_what_text_shows_is_seen():
    PLACES["chain"](re.sub(r"\s", "", WORST))
    said = run(*PLAN, "--observed", "dump", "-o", "json")
    assert said.code == 0
    assert "\\u009b31m" in said.out
    assert "\\u202e" in said.out
    assert "\\udb40\\udc41" in said.out
    names = [change["name"] for change in json.loads(said.out)["changes"]]
    assert any("\x1b[2J\x9b31m" in name and "\U000e0041z" in name for name in names)
    assert "\\x1b[2J\\x9b31m" in run(*PLAN, "--observed", "dump").out


class TestOfAnApiServer:
    def test_its_messages(self, tmp_path):
        with FakeApi() as api:
            for code in (400, 401, 403, 404, 418):
                api.fail("services", *[Fault.status(code, WORST)] * 4)
                said = run("plan", "--kubeconfig", api.kubeconfig(tmp_path), "--observed", "none", "--host", "host")
                assert said.code == 1
                judge(said)

    def test_its_objects(self, tmp_path):
        with FakeApi() as api:
            api.put("nodes", {"metadata": {"name": "node1"}})
            api.put("services", {"metadata": {"namespace": "a", "name": WORST}, "spec": {"type": WORST}})
            for more in ((), ("-o", "json")):
                judge(
                    run("plan", "--kubeconfig", api.kubeconfig(tmp_path), "--observed", "none", "--host", "host", *more)
                )


class TestOfTools:
    def test_their_complaints(self, monkeypatch):
        complaint = Completed(1, "", f"iptables-save v1.8: {WORST}\n").complaint
        assert left(complaint) == []

        def refuse(*_: object, **__: object) -> None:
            raise HostError(f"iptables: {WORST}", hint=WORST)

        monkeypatch.setattr("rulegen.cli.commands.plan.plan_live", refuse)
        said = run(*PLAN)
        assert said.code == 1
        judge(said)

    def test_what_they_wrote(self, monkeypatch):
        def fail(*_: object, **__: object) -> None:
            raise ApplyError(WORST, applied=(WORST,), pending=(WORST,), hint=WORST)

        monkeypatch.setattr("rulegen.cli.commands.plan.plan_live", fail)
        judge(run(*PLAN))

    def test_a_fault_of_ours(self, monkeypatch):
        def fail(*_: object, **__: object) -> None:
            raise LookupError(WORST)

        monkeypatch.setattr("rulegen.cli.commands.plan.plan_live", fail)
        said = run(*PLAN)
        assert "internal error of rulegen" in said.err
        judge(said)

    @pytest.mark.parametrize("output", ["text", "json"])
    def test_what_a_host_is_found_to_be(self, monkeypatch, output):
        findings = [Finding(level, WORST, WORST, WORST) for level in Level]
        monkeypatch.setattr("rulegen.cli.commands.doctor.examine", lambda *_, **__: findings)
        judge(run("doctor", "-o", output))
        shown = as_text(findings, colour=True)
        assert left(re.sub(r"\x1b\[[0-9]+m", "", shown)) == []


class TestOnATerminal:
    @pytest.mark.not_quick
    def test_colours_are_ours_alone(self, monkeypatch):
        monkeypatch.setattr(console, "has_colour", lambda: True)
        monkeypatch.setattr("rulegen.cli.commands.plan.has_colour", lambda: True)
        hostile = "\x1b[31mred\x1b[0m\x1b[8mhidden"
        PLACES["chain"](hostile)
        said = run(*PLAN, "--observed", "dump")
        assert "\x1b[31m  - chain nat KUBE-SVC-\\x1b[31mred\\x1b[0m\\x1b[8mhidden" in said.out
        assert left(re.sub(r"\x1b\[(?:32|31|33|2|1|0)m", "", said.out)) == []
        for words in (*PLACES["object"](hostile), *PLACES["name"](hostile)):
            printed = run(*words).out
            assert hostile not in printed
            assert left(re.sub(r"\x1b\[(?:32|31|33|2|1|0)m", "", printed)) == []

    def test_progress_is_one_line(self, monkeypatch):
        monkeypatch.setattr("sys.stderr", err := io.StringIO())
        monkeypatch.setattr(err, "isatty", lambda: True, raising=False)
        with console.Progress() as progress:
            progress(WORST)
        assert left(err.getvalue().replace("\r\x1b[K", "")) == []


class TestOfTheAgent:
    @pytest.mark.parametrize("is_json", [False, True])
    @given(text=TEXTS)
    def test_its_log(self, is_json, text):
        out = io.StringIO()
        journal = AgentLog(is_json=is_json, out=out, least="debug")
        for worst in (text, WORST, "\ud800"):
            journal.warning(worst, error=worst, list=[worst], table={worst: worst})
        assert out.getvalue().count("\n") == 3
        assert left(out.getvalue()) == []
        if is_json:
            assert json.loads(out.getvalue().splitlines()[0])["error"] == text

    @given(text=TEXTS)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_the_log_of_nginxs_supervisor(self, tmp_path, text):
        (tmp_path / "keeper.log").unlink(missing_ok=True)
        with folder_at(tmp_path) as folder:
            for worst in (text, WORST, "\ud800"):
                Lines(folder, "keeper.log").write(worst)
        written = (tmp_path / "keeper.log").read_bytes().decode()
        assert written.count("\n") == 3
        assert left(written) == []

    @given(text=TEXTS)
    def test_its_metrics(self, text):
        for worst in (text, WORST, "\ud800"):
            assert left(_escaped(worst)) == []
            assert "\n" not in _escaped(worst)

    @given(text=TEXTS)
    def test_its_pages(self, text):
        for worst in (text, WORST, "\ud800"):
            assert left(Reply(200, worst).encoded().decode()) == []
        assert left(Reply.of_json(200, {"error": text}).encoded().decode()) == []
        raw = json.dumps({"error": text}, ensure_ascii=False)
        page = Reply(200, raw, "application/json").encoded().decode()
        assert left(page) == []
        assert json.loads(page) == {"error": text}


class TestEscapes:
    @given(text=st.text())
    def test_leave_nothing_and_all_else_as_it_is(self, text):
        assert left(harmless(text)) == []
        if not left(text):
            assert harmless(text) == text

    @given(value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
    @pytest.mark.slow
    def test_of_json_say_the_same(self, value):
        text = json.dumps(value, ensure_ascii=False)
        assert left(harmless_json(text)) == []
        assert json.loads(harmless_json(text)) == value

    @pytest.mark.not_quick
    def test_know_every_character(self):
        every = "".join(map(chr, range(0x110000)))
        assert left(harmless(every)) == []
        kept = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in CATEGORIES | {"Cn"}]
        assert harmless("".join(kept)) == "".join(kept)


def test_what_libraries_log_is_not_printed(tmp_path, capfd, monkeypatch):
    with FakeApi() as api:
        run("plan", "--kubeconfig", api.kubeconfig(tmp_path), "--observed", "none", "--host", "host")
    root = logging.getLogger()
    monkeypatch.setattr(
        root, "handlers", [handler for handler in root.handlers if type(handler) is logging.NullHandler]
    )
    assert logging.getLogger().handlers
    logging.getLogger("urllib3.connectionpool").warning("%s", WORST)
    assert capfd.readouterr().err == ""


def test_a_plan_shows_no_text_but_through_them():
    """What no plan has today would be shown harmless, too: all lines go through one door."""
    with streams() as (out, _):
        console.print_lines([WORST, show.NO_CHANGES])
        console.print_json({WORST: [WORST, "\udcff"]})
        out.flush()
        assert left(out.buffer.getvalue().decode()) == []


def test_nothing_but_the_console_writes_to_the_streams():
    writes = re.compile(r"sys\.std(?:out|err)\.write|click\.(?:echo|secho)|\bprint\(")
    cli = Path(console.__file__).parents[1]
    results = [path.name for path in sorted(cli.rglob("*.py")) if writes.search(path.read_text())]
    assert results == ["console.py"]
