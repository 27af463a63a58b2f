"""The runner: what tools say comes back byte for byte, and what stops them is told."""

from __future__ import annotations

import os
import sys

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed, MissingToolError, find, privilege_hint, run, run_noting

PYTHON = sys.executable


def python(text: str, *arguments: str, **options) -> Completed:
    return run(Command((PYTHON, "-c", text, *arguments), **options))


def test_output_input_and_code_come_back():
    ended = python("import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(3)", stdin="héllo")

    assert ended == Completed(3, "héllo\n", "no\n")


def test_bytes_that_are_no_text_survive_a_round_trip():
    first = python("import sys; sys.stdout.buffer.write(bytes(range(256)))")
    second = python("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())", stdin=first.stdout)

    assert second.stdout == first.stdout
    assert first.stdout.encode("utf-8", "surrogateescape") == bytes(range(256))


def test_tools_speak_english_and_get_extra_variables(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")

    ended = python("import os; print(os.environ['LC_ALL'], os.environ['EXTRA'])", environment={"EXTRA": "x"})

    assert ended.stdout == "C x\n"


def test_system_folders_are_searched_whatever_path_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find("ip") is not None


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        ("conntrack-nowhere", "conntrack-nowhere"),
        ("ip6tables-nowhere-save", "iptables"),
    ],
)
def test_a_missing_tool_names_its_package(tool, package):
    with pytest.raises(MissingToolError, match=f"{tool} is not installed") as caught:
        run(Command((tool,)))
    assert caught.value.hint == f"install the package {package}"


def test_a_tool_that_hangs_is_ended():
    with pytest.raises(HostError, match=r"did not end within 0\.2 s"):
        python("import time; time.sleep(30)", timeout_s=0.2)


@pytest.mark.parametrize("argument", ["\0", "x" * 3_000_000])
def test_arguments_that_no_process_takes(argument):
    with pytest.raises(HostError, match="could not be started"):
        python("", argument)


def test_a_silent_failure_still_says_something():
    assert Completed(4).complaint == "exit code 4 without a message"


def test_complaints_can_be_printed():
    Completed(1, "", "bad \udcff byte").complaint.encode()


def test_missing_privilege_is_recognised():
    assert "CAP_NET_ADMIN" in privilege_hint("Permission denied (you must be root)")
    assert privilege_hint("Invalid argument") == ""


def test_who_starts_a_process_knows_its_number_before_it_ends():
    pids = []
    ended = run_noting(Command((PYTHON, "-c", "import os; print(os.getpid())")), pids.append)

    assert [str(pid) for pid in pids] == [ended.stdout.strip()]


def test_no_child_outlives_its_stopped_parent():
    def interrupt(pid: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_noting(Command(("sleep", "30")), interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_tool_that_is_missing_is_nobodys_process():
    pids = []
    with pytest.raises(MissingToolError):
        run_noting(Command(("iptables-nowhere",)), pids.append)
    assert pids == []
