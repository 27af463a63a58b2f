"""Nothing is written without `--yes` or a yes typed on a terminal: on real terminals, pipes, and a real kernel."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.test_plan import BLOG, HOST
from tests.host.conftest import namespace  # noqa: F401 - a fixture

QUESTION = "Apply these changes? [y/N]: "
START = """
import fcntl, sys, termios
terminal = int(sys.argv[1])
if terminal >= 0:
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
from rulegen.cli.main import main
main(sys.argv[2:])
"""
BLOG = f"{BLOG}---\napiVersion: v1\nkind: Node\nmetadata: {{name: node1}}\n"
APPLY = ("apply", "-f", "blog.yaml", "--host", "host", "--variant", "nft", "--nfacct", "off")
CLEANUP = ("cleanup", "--variant", "nft")

pytestmark = pytest.mark.kernel


@dataclass
class Ended:
    """How a command ended, and what came out of it where."""

    code: int
    out: str
    err: str
    terminal: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "host").write_text(HOST)
    return tmp_path


@pytest.fixture
def run(folder: Path, namespace):  # noqa: F811 - nothing is run outside of it
    def call(*arguments: str, typed: str | None = None, stdin: str | None = None, **environment: str) -> Ended:
        """Run a command in a session of its own.

        Args:
            arguments: Of rulegen.
            typed: What somebody types on its controlling terminal when asked; None for no terminal.
            stdin: What is piped into it; None for the terminal, or /dev/null where there is none.
            environment: More variables.
        """
        master, slave = pty.openpty() if typed is not None else (-1, -1)
        try:
            own = slave if slave >= 0 else subprocess.DEVNULL
            process = subprocess.Popen(
                [sys.executable, "-c", START, str(slave), *arguments],
                stdin=subprocess.PIPE if stdin is not None else own,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=[slave] if slave >= 0 else [],
            )
            shown = ""
            if stdin is not None:
                process.stdin.write(stdin)
                process.stdin.close()
                process.stdin = None
            if typed is not None:
                shown = _until_asked(process, master)
                if shown:
                    os.write(master, typed.encode())
            out, err = process.communicate(timeout=60)
            return Ended(process.returncode, out, err, shown)
        finally:
            for descriptor in {master, slave} - {-1}:
                os.close(descriptor)

    return call


def _until_asked(process: subprocess.Popen[str], master: int) -> str:
    """Return what the terminal shows once it asks; nothing where the command ends without."""
    while process.poll() is None:
        if select.select([master], [], [], 0.02)[0]:
            return os.read(master, 4096).decode()
    return ""


def rules() -> int:
    """Return how many rules of ours are in the kernel."""
    saved = subprocess.run(["iptables-nft-save"], capture_output=True, text=True, check=True).stdout
    return sum("KUBE-" in line for line in saved.splitlines())


@pytest.fixture
def is_applied(run, namespace) -> None:  # noqa: F811 - the namespace comes first
    assert run(*APPLY, "--yes").code == 0
    assert rules()


NOBODY = {
    "nothing on standard input": {},
    "a yes piped in": {"stdin": "y\n"},
    "yes for ever": {"stdin": "yes\n" * 100},
    "a yes piped in, and a terminal": {"stdin": "y\n", "typed": "y\n"},
    "an environment variable": {"RULEGEN_YES": "1", "YES": "true", "RULEGEN_APPLY_YES": "1", "CI": "true"},
}


@pytest.mark.parametrize("how", NOBODY.values(), ids=NOBODY)
@pytest.mark.slow
def test_apply_writes_nothing_where_nobody_typed_a_yes(run, how):
    ended = run(*APPLY, **how)
    assert (ended.code, ended.terminal, rules()) == (1, "", 0)
    assert "--yes" in ended.err
    assert "nothing was written" in ended.err
    assert ended.out.splitlines()[-1].startswith("Plan: ")


@pytest.mark.usefixtures("is_applied")
@pytest.mark.parametrize("how", list(NOBODY.values())[:2], ids=list(NOBODY)[:2])
@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.slow
def test_cleanup_takes_nothing_away_where_nobody_typed_a_yes(run, how, output):
    before = rules()
    ended = run(*CLEANUP, "-o", output, **how)
    assert (ended.code, rules()) == (1, before)
    assert "--yes" in (ended.err if output == "text" else json.loads(ended.err)["hint"])
    assert "applied" not in ended.out


@pytest.mark.parametrize("answer", ["n\n", "\n", "yes please\n", "\x04"])
@pytest.mark.slow
def test_any_other_answer_is_a_no(run, answer):
    ended = run(*APPLY, typed=answer)
    assert (ended.code, rules()) == (1, 0)
    assert ended.terminal == QUESTION
    assert ended.err == "Nothing was written.\n"


@pytest.mark.parametrize("answer", ["y\n", " YES \n"])
@pytest.mark.slow
def test_a_yes_on_the_terminal_writes_also_with_piped_stdout(run, answer):
    ended = run(*APPLY, typed=answer)
    assert (ended.code, ended.terminal, ended.err) == (0, QUESTION, "")
    assert rules() > 10
    assert ended.out.splitlines()[-1].startswith("Applied: ")
    again = run(*CLEANUP, typed=answer)
    assert (again.code, again.terminal, rules()) == (0, QUESTION, 0)


@pytest.mark.slow
def test_with_objects_on_stdin_the_terminal_is_asked(run):
    from_stdin = ("apply", "-f", "-", *APPLY[3:])
    nobody = run(*from_stdin, stdin=BLOG)
    assert (nobody.code, rules()) == (1, 0)
    assert "--yes" in nobody.err
    refused = run(*from_stdin, stdin=BLOG, typed="n\n")
    assert (refused.code, refused.terminal, rules()) == (1, QUESTION, 0)
    agreed = run(*from_stdin, stdin=BLOG, typed="y\n")
    assert (agreed.code, agreed.terminal) == (0, QUESTION)
    assert rules() > 10


@pytest.mark.slow
def test_json_is_one_document_and_the_plan_comes_first(run):
    ended = run(*APPLY, "-o", "json", typed="y\n")
    document = json.loads(ended.out)
    assert (ended.code, bool(document["applied"])) == (0, True)
    assert "  + Service demo/blog (" in ended.err
    refused = run(*CLEANUP, "-o", "json", typed="n\n")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.endswith("Nothing was written.\n")


@pytest.mark.usefixtures("is_applied")
@pytest.mark.slow
def test_where_nothing_changes_nobody_is_asked(run):
    assert (run(*APPLY).code, run(*APPLY, stdin="n\n").code) == (0, 0)
    run(*CLEANUP, "--yes")
    assert run(*CLEANUP).code == 0
    assert run(*CLEANUP, "-o", "json").code == 0


@pytest.mark.slow
def test_nginx_and_its_folder_stay_where_nobody_typed_a_yes(run, folder):
    made = folder / "nginx" / "releases"
    made.mkdir(parents=True)
    ending = ("cleanup", "--ingress", "--no-services", "--nginx-dir", str(made.parent))
    assert (run(*ending).code, made.is_dir()) == (1, True)
    assert (run(*ending, stdin="y\n").code, made.is_dir()) == (1, True)
    assert (run(*ending, typed="n\n").code, made.is_dir()) == (1, True)
    agreed = run(*ending, typed="y\n")
    assert (agreed.code, made.parent.exists()) == (0, False)
    assert "no nginx ran in" in agreed.out
    nothing = run(*ending)
    assert nothing.code == 0
    assert "where nginx was never started" in nothing.out
    assert not made.parent.exists()


@pytest.mark.slow
def test_cleanup_removes_no_folder_of_somebody_else(run, folder):
    ended = run("cleanup", "--ingress", "--no-services", "--yes", "--nginx-dir", str(folder))
    assert ended.code == 1
    assert "has no releases/" in ended.err
    assert (folder / "blog.yaml").is_file()
