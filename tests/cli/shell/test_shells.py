"""Completion in real shells, and man pages as man shows them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rulegen.cli.main import cli, main
from rulegen.cli.manual import escaped

NAMES = ("", *cli.list_commands(click.Context(cli)))
needs_man = pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")


@pytest.fixture
def rulegen_in_path(tmp_path: Path) -> Path:
    program = tmp_path / "rulegen"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rulegen "$@"\n')
    program.chmod(0o755)
    return tmp_path


def completed(folder: Path, line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    script = f"""
        PATH={folder}:$PATH
        source <(rulegen completion bash)
        COMP_WORDS=({line})
        COMP_CWORD={len(words) - 1}
        _rulegen_completion rulegen 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.not_quick
def test_bash_completes_commands_options_and_values(rulegen_in_path):
    assert completed(rulegen_in_path, "rulegen pl") == ["plan"]
    assert "--observed" in completed(rulegen_in_path, "rulegen plan --obs")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_calls_rulegen(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completion", shell])
    script = capsys.readouterr().out
    assert (stop.value.code, f"_RULEGEN_COMPLETE={shell}_complete" in script) == (0, True)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, check=True, text=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("plan --mode ", "plain,ipvs"), ("plan --config ", "file,"), ("apply --nginx-dir ", "dir,"), ("ma", "plain,man")],
)
def test_values_are_completed_by_their_kind(line, expected, capsys, monkeypatch):
    monkeypatch.setenv("COMP_WORDS", f"rulegen {line}")
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ") + 1))
    monkeypatch.setenv("_RULEGEN_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit):
        main([])
    assert expected in capsys.readouterr().out.splitlines()


@needs_man
@pytest.mark.parametrize("name", NAMES)
def test_a_man_page_shows_all_that_help_shows(name, capsys):
    pages = []
    for arguments in (["man", *name.split()], [*name.split(), "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        pages.append(capsys.readouterr().out)
    source, help_text = pages
    done = subprocess.run(
        ["man", "-l", "--warnings", "--no-hyphenation", "--no-justification", "-"],
        input=source,
        check=True,
        capture_output=True,
        text=True,
        env={"MANWIDTH": "500", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == ""
    shown = done.stdout.replace("\b", "")
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_text, re.MULTILINE)
    assert options
    assert [option for option in options if option not in shown] == []


def test_text_that_looks_like_a_request_of_groff_is_shown_as_text():
    assert escaped(".TH evil") == r"\&.TH evil"
    assert escaped(r"a\fBb") == r"a\efBb"
