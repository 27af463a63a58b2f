"""The documentation's commands work as written: each page is run in order, on a fresh tree, by a reader on a node.

Every block of `sh` and `console` on every page is here: it is run, or it is named in `ONLY_PARSED` with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.docs.test_docs import PAGES, blocks
from tests.project.places import ROOT
from tests.rights import can_run, needs_root

pytestmark = [
    pytest.mark.kernel,
    needs_root,
    pytest.mark.skipif(
        not can_run("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"), reason="needs name spaces"
    ),
    pytest.mark.skipif(not all(map(shutil.which, ("iptables-nft", "nginx"))), reason="needs iptables and nginx"),
]

ONLY_PARSED = {
    r"(sudo )?(RULEGEN_\w+=\S+ )?(scripts|integration/fresh)/|make ": "runs tests, demo or benchmarks; CI runs them",
    r"rulegen demo": "tests/project/test_demo.py runs it",
    r"apt-get install |python3 -m venv /opt|/opt/rulegen/bin/pip|ln -s /opt": "installs packages, as scripts/prepare",
    r"for world in": "tests/parity compares the same worlds",
    r"kubectl -n \w+ create ": "needs a real API server to check the role that it names",
    r"kubectl (-n [\w-]+ )?(patch|scale|delete|label|rollout|logs|config|cluster-info|apply -f) ?": "as the line above",
    r"kubectl -n kube-system get (daemonset|configmap kubeadm-config)": "the example's API server has no such object",
    r"kind (create|export|load|delete) |docker |kubeadm init": "makes clusters, images and containers",
    r"scp |curl ": "needs another host, or one that the example does not serve",
    r"rulegen .*(kind-nodes|/etc/rancher)": "reads what a node of kind or k3s has",
    r"systemctl |systemd-sysusers|install .*/etc/sys(temd|users)|journalctl ": "needs a systemd; see tests/deploy",
}
CODES = {
    r".*--detailed-exitcode": {0, 2},
    r".*--strict": {0, 3},  # the example names a Secret that its reader makes
    r"rulegen doctor": {0, 1},  # what it has to mend depends on the machine
}


def commands(page: Path) -> list[str]:
    """Return the commands of a page, in order; a block that is one command of several lines stays whole."""
    results: list[str] = []
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [*re.finditer(r"^```(sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    broken = unparsed(*{line for match in fenced if match[1] == "sh" for line in match[2].splitlines()})
    for match in fenced:
        block = match[2]
        if match[1] == "console":
            results += [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        elif broken.isdisjoint(block.splitlines()):
            results += [line for line in block.splitlines() if line.strip()]
        else:
            results.append(block)
    return results


def unparsed(*texts: str) -> set[str]:
    """Return what is no complete command: bash does not take it as the body of a function."""
    script = 'for text; do (eval "f() { :\n$text\n}") 2>/dev/null || printf "%s\\0" "$text"; done'
    done = subprocess.run(["bash", "-c", script, "bash", *texts], capture_output=True, text=True, check=True)
    return {*done.stdout.split("\0")} - {""}


def reason(command: str) -> str | None:
    """Return why a command is not run."""
    return next((why for pattern, why in ONLY_PARSED.items() if re.match(pattern, command)), None)


def allowed(command: str) -> set[int]:
    return next((codes for pattern, codes in CODES.items() if re.match(pattern, command)), {0})


RUN = [page for page in PAGES if any(reason(command) is None for command in commands(page))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.xdist_group(f"page {number % 4}")) for number, page in enumerate(RUN)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
@pytest.mark.timeout(600)
def test_a_page_is_run_as_it_is_written(page: Path, tmp_path: Path) -> None:
    for name in ("deploy", "docs", "scripts", "constraints.txt", "pyproject.toml"):
        place = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        place(ROOT / name, tmp_path / name)
    wanted = [command for command in commands(page) if reason(command) is None]
    inside = (
        "hostname web-1; ip link set lo up; ip link add eth0 type veth peer name gateway; ip link set gateway up; "
        "ip address add 192.0.2.10/24 dev eth0; "
        "ip link set eth0 up; ip route add default via 192.0.2.1; "
        "mount -t proc proc /proc; sysctl -qw net.ipv4.ip_forward=1; mkdir -p /etc/rulegen /var/lib/rulegen; "
        "for path in /etc/rulegen /etc/default /var/lib/rulegen /run; do mount -t tmpfs tmpfs $path; done; "
        'exec "$0" -m tests.project.docs.docs_session "$1"'
    )
    argv = ["unshare", "--net", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child", "bash", "-ec", inside]
    ended = subprocess.run(
        [*argv, sys.executable, str(tmp_path)],
        input=json.dumps(wanted),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    results = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"command"')]
    failed = [result for result in results if result["code"] not in allowed(result["command"])]

    if failed:
        shown = "\n\n".join(f"$ {entry['command']}\n[exit code {entry['code']}]\n{entry['shown']}" for entry in failed)
        pytest.fail(shown, pytrace=False)
    if [result["command"] for result in results] != wanted:
        pytest.fail(f"the session ended early:\n{ended.stderr}", pytrace=False)


def test_every_reason_is_needed_and_what_is_not_run_parses() -> None:
    left_out = [command for page in PAGES for command in commands(page) if reason(command)]

    assert not unparsed(*left_out)
    for pattern in ONLY_PARSED:
        assert any(re.match(pattern, command) for command in left_out), pattern


def test_no_block_is_in_a_language_that_nothing_runs() -> None:
    languages = {
        language
        for page in PAGES
        for language in re.findall(r"^```(\w*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if language
    }

    assert languages <= {"sh", "console", "text", "yaml", "json", "nginx", "python"}, languages
    assert all(blocks(page, "bash") == blocks(page, "shell") == [] for page in PAGES)
