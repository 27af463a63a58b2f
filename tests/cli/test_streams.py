"""Output that nobody reads, and terminals and locales that cannot show all of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rulegen.cli.terminal.console import print_json
from rulegen.cli.terminal.streams import _HANDLER, open_streams
from tests.project.places import ROOT

EXAMPLES = ROOT / "deploy" / "examples"
FILES = ("-f", str(EXAMPLES / "my-blog"), "--config", str(EXAMPLES / "config.yaml"))
PLAN = ("plan", *FILES, "--host", str(EXAMPLES / "host.yaml"), "--observed", "none")
RULEGEN = (sys.executable, "-m", "rulegen")
POSIX, STRICT = {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii:strict"}


def unread(*command: str, **environment: str) -> tuple[int, str]:
    """Run a command whose output nobody reads; return how it ended and its complaints."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, check=False, env={**os.environ, **environment}
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    "words",
    [PLAN, (*PLAN, "-o", "json"), (*PLAN, "--detailed-exitcode"), ("--help",), ("plan", "--help"), ("--version",)],
    ids=lambda words: " ".join(word for word in words if "/" not in word),
)
@pytest.mark.slow
def test_who_stops_reading_ends_the_command_as_any_tool(words):
    assert unread(*RULEGEN, *words) == (-signal.SIGPIPE, "")


@pytest.mark.slow
def test_export_and_doctor_end_alike(tmp_path):
    exported = ("export", *FILES, "--host", str(EXAMPLES / "host.yaml"), "-o", str(tmp_path / "out"))
    assert unread(*RULEGEN, *exported)[0] == -signal.SIGPIPE
    assert unread(*RULEGEN, "doctor") == (-signal.SIGPIPE, "")


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("iptables-nft"), reason="needs root and iptables")
@pytest.mark.slow
def test_who_does_not_read_the_plan_has_nothing_written(tmp_path):
    seen = tmp_path / "rules"
    script = f'ip link set lo up; "$@"; code=$?; iptables-nft-save > {seen}; exit $code'
    words = ("apply", *FILES, "--node", "web-1", "--yes", "--variant", "nft")
    isolated = ("unshare", "--net", "sh", "-c", script, "sh", *RULEGEN, *words)
    code, complaints = unread(*isolated, XTABLES_LOCKFILE=str(tmp_path / "lock"))
    assert code == 128 + signal.SIGPIPE
    assert "Traceback" not in complaints
    assert "KUBE" not in seen.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("locale", "words"),
    [
        (POSIX, ("doctor",)),
        (STRICT, ("doctor", "-o", "json")),
        (POSIX, PLAN),
        (STRICT, PLAN),
        (POSIX, ("plan", "--mode", "✗")),
        (STRICT, ("plan", "--mode", "✗")),
    ],
)
def test_a_locale_that_lacks_signs_gets_others(locale, words):
    done = subprocess.run([*RULEGEN, *words], capture_output=True, check=False, env={**os.environ, **locale})
    assert "fault of rulegen" not in done.stderr.decode("ascii")
    assert done.stdout.decode("ascii") or done.returncode == 1
    if words[-1] == "json":
        assert json.loads(done.stdout)["kind"] == "Findings"


@pytest.mark.slow
def test_a_file_name_that_is_not_text_is_shown(tmp_path):
    name = os.fsdecode(b"\xff.yaml")
    (tmp_path / name).write_text((EXAMPLES / "my-blog" / "node.yaml").read_text())
    for more in ((), ("-o", "json")):
        words = (*RULEGEN, "plan", "-f", name, "-f", "nowhere", *PLAN[3:], "--observed", name, *more)
        done = subprocess.run(words, capture_output=True, check=False, cwd=tmp_path)
        assert done.returncode == 1
        assert b"fault of rulegen" not in done.stderr


def test_json_spells_out_what_is_no_text(capsys):
    print_json({"a": ["\udcff", {"b\udc80": 1}]})
    assert json.loads(capsys.readouterr().out) == {"a": ["\\udcff", {"b\\udc80": 1}]}


@pytest.mark.parametrize("text", ["ä", "→ ✓ …", "😀", "\udcff"])
def test_what_ascii_lacks_is_still_json(text):
    open_streams()
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=_HANDLER)
    stream.write(f'"{text}"')
    stream.flush()
    stream.seek(0)
    read = json.loads(stream.read())
    assert read in (text, "-> ok ...")


@pytest.mark.not_quick
def test_a_stream_that_is_closed_is_opened():
    script = f"exec {sys.executable} -m rulegen --version >&- 2>&- <&-"
    assert subprocess.run(["sh", "-c", script], check=False, cwd=Path("/")).returncode in (0, 1)
