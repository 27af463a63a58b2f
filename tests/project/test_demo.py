"""The demo: it tells its story, leaves nothing behind, and says so where it fails."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rulegen.demo.hosts import CallTally, Page
from rulegen.demo.screen import Paint, answers, bars, condense
from tests.project.places import ROOT, rulegen, run
from tests.sizes import sized

MARK = "RULEGEN_TEST_MARK"
PLAN = """\
Node web-1: iptables mode; compared with nothing

  ~ Service default/my-blog (http gains 10.244.1.12:80 and loses 10.244.1.13:80 (1 → 1))
  + objects of the node itself: 2 to add

Node-wide rules and parameters
  + jump filter FORWARD [IPv4]
      -j KUBE-FORWARD  # kubernetes forwarding
  + chain nat KUBE-SERVICES [IPv4]

Service default/my-blog (NodePort; endpoints from Pods)
  + chain nat KUBE-SEP-EBMJ7VH4SFA5BXCJ [IPv4]
      + -s 10.244.1.12/32 -j KUBE-MARK-MASQ  # to itself
      + -p tcp -m tcp -j DNAT --to-destination 10.244.1.12:80  # there
  + rule nat KUBE-SERVICES [IPv4]
      -d 10.96.32.88/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-AHCPA6KEDLW3LKOT  # a long reason that has no room here
  ~ chain nat KUBE-SVC-AHCPA6KEDLW3LKOT [IPv4]
        -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A
      - -j KUBE-SEP-VSXOYMXMRJCAITR4  # default/my-blog:http to 10.244.1.13:80

Services: 1 to change.
Drift: 1 of these changes repair what something else changed on the node.
Plan: 4 to add, 1 to change, 0 to delete.
Applied: 5 changes in 2 steps.
"""


def test_a_plan_is_cut_to_what_concerns_the_service() -> None:
    assert list(condense(PLAN)) == [
        "Node-wide rules and parameters: 2 changes, shared by all Services",
        "Service default/my-blog (NodePort; endpoints from Pods)",
        "  + chain nat KUBE-SEP-EBMJ7VH4SFA5BXCJ, 2 rules",
        "  + rule nat KUBE-SERVICES",
        "      -d 10.96.32.88/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-AHCPA6KEDLW3LKOT",
        "  ~ chain nat KUBE-SVC-AHCPA6KEDLW3LKOT",
        "      - -j KUBE-SEP-VSXOYMXMRJCAITR4  # default/my-blog:http to 10.244.1.13:80",
        "Plan: 4 to add, 1 to change, 0 to delete.",
        "Applied: 5 changes in 2 steps.",
    ]
    assert list(condense(PLAN, brief=True)) == ["Applied: 5 changes in 2 steps."]


SITE = """\
Node web-1: iptables mode; compared with iptables-nft

  + host blog.holdno.com
  + host default server

Ingress: nginx will be reloaded (/tmp/x, which serves nothing yet)
  + host blog.holdno.com
      + server {
      +  listen 80;
      +  listen 443;
      +  server_name blog.holdno.com;
      + }
  + host default server
      + server {
      + }
  ~ upstream default/my-blog
        …
      -  server 10.244.1.11:80;
  + file nginx.conf
      + (247 lines)
  + secret secrets/00.pem
      + secrets/00.pem (certificate; its content is not shown)

Hosts: 2 to add.
Plan: 5 to add, 0 to change, 0 to delete.
Applied: 5 changes in 1 step.
nginx started in 0.14 s
"""


def test_a_plan_of_ingresses_is_cut_to_the_host_and_its_upstream() -> None:
    assert list(condense(SITE)) == [
        "Ingress: nginx will be reloaded",
        "  + host blog.holdno.com",
        "      + server {",
        "      +  listen 80; listen 443;",
        "      +  server_name blog.holdno.com;",
        "      + }",
        "  + host default server, 2 lines",
        "  ~ upstream default/my-blog",
        "      -  server 10.244.1.11:80;",
        "  + file nginx.conf, 247 lines",
        "  + secret secrets/00.pem",
        "Plan: 5 to add, 0 to change, 0 to delete.",
        "Applied: 5 changes in 1 step; nginx started in 0.14 s.",
    ]


def test_an_ingress_that_is_not_served_as_written_is_not_cut_out() -> None:
    reported = "Ingresses that are not served as specified:\n  Ingress default/my-blog (ignored): why"

    assert list(condense(reported, brief=True)) == reported.split("\n")


@pytest.mark.parametrize(
    ("url", "page", "shown"),
    [
        (
            "http://a.b/",
            Page(308, "https://a.b", "<html>"),
            "  client requests http://a.b/               308  sent to https://a.b",
        ),
        ("http://a.b/", Page(200, "", "pod"), "  client requests http://a.b/               200  pod"),
        ("https://a.b/", Page(0, "", "timed out"), "  client requests https://a.b/                   timed out"),
        (
            "https://a.b/",
            Page(200, "", "pod"),
            "  client requests https://a.b/              200  pod   with the certificate of the Secret",
        ),
    ],
)
def test_what_a_client_got_is_one_line(url: str, page: Page, shown: str) -> None:
    assert list(answers(url, page, Paint(colour=False))) == [shown]


def test_bars_tell_who_answered() -> None:
    columns = {"inside": CallTally({"a": 100, "b": 50}), "outside": CallTally({"b": 1})}

    assert list(bars(columns, ["a", "b"], Paint(colour=False))) == [
        f"     {'inside':36}outside",
        f"  a  {'█' * 24}   100      {'':24}     0",
        f"  b  {'█' * 12:24}    50      {'█' * 24}     1",
    ]


def test_colour_is_for_signs_and_not_for_options() -> None:
    paint = Paint(colour=True)

    assert paint.change("    - -j KUBE-SEP-A") == "\033[31m    - -j KUBE-SEP-A\033[0m"
    assert paint.change("      -d 10.96.32.88/32") == "      -d 10.96.32.88/32"


def can_play() -> bool:
    tools = all(map(shutil.which, ("iptables-nft", "nginx")))
    return os.geteuid() == 0 and tools and run("unshare", "--net", "--pid", "--fork", "true").returncode == 0


LINES = ("A blog", "3  Rolling update", "4  An Ingress", "5  ssl-redirect")
ALTERNATING = tuple(zip(LINES, (signal.SIGTERM, signal.SIGINT) * 2, strict=True))
INTERRUPTS = sized(
    quick=ALTERNATING, usual=ALTERNATING, full=tuple(itertools.product(LINES, (signal.SIGTERM, signal.SIGINT)))
)
"""Which line a signal follows: each line and each signal, or each of each."""

needs_namespaces = pytest.mark.skipif(not can_play(), reason="needs root, namespaces, iptables and nginx")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """Give a text that is in the environment of all that a test starts; what bears it afterwards was left behind."""
    text = uuid.uuid4().hex
    yield text
    # A host that was just being started sees that nobody commands it as soon as it is up.
    deadline = time.monotonic() + 20
    while left_behind(text, tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind(text, tmp_path) == []


def left_behind(mark: str, place: Path) -> list[str]:
    """Return the processes with the mark; nginx and its supervisor have another environment, and the folder."""
    results = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes() or f"{place}/" in command:
                results.append(command)
        except OSError:
            continue  # it has ended since
    return results


def of_the_machine() -> str:
    """Return what the demo must not touch: the machine's rules, interfaces and named namespaces."""
    commands = (("iptables-save",), ("ip6tables-save",), ("ip", "-o", "link"), ("ip", "netns"))
    output = "".join(run(*command).stdout for command in commands)
    return re.sub(r"\[\d+:\d+\]|^#.*$|^\d+: veth.*$", "", output, flags=re.MULTILINE)


@pytest.mark.kernel
@needs_namespaces
def test_the_demo_tells_its_story(mark: str, tmp_path: Path) -> None:
    before = of_the_machine()

    done = rulegen("demo", **{MARK: mark}, TMPDIR=str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 125
    assert max(map(len, lines)) <= 100
    assert "\033" not in done.stdout
    assert "  Service default/my-blog (NodePort; endpoints from Pods)" in lines
    assert lines[-1] == "  No changes. The node matches the objects."
    for pod, meanwhile, afterwards in re.findall(
        r"^  (my-blog-[abcd])  .*? (\d+)      \S*.*? (\d+)$", done.stdout, re.MULTILINE
    ):
        assert int(meanwhile) + int(afterwards) > 0, pod
    assert re.search(r"^  my-blog-c  █+ +\d+ +0$", done.stdout, re.MULTILINE), "the pod that left answers no more"
    assert len(re.findall(r"^  \d+ requests, all answered\.$", done.stdout, re.MULTILINE)) == 2
    asked = re.findall(r"^  client requests (https?)://blog\.holdno\.com/ +(\d+)  (\S+)", done.stdout, re.MULTILINE)
    assert [(scheme, status) for scheme, status, _ in asked] == [
        ("http", "308"),
        ("https", "200"),
        ("http", "200"),
        ("https", "200"),
    ]
    assert "  Ingress: nginx does not need a reload" in lines
    assert "PRIVATE KEY" not in done.stdout
    assert of_the_machine() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kernel
@needs_namespaces
@pytest.mark.parametrize(("line", "number"), INTERRUPTS)
def test_an_interrupted_demo_leaves_nothing_behind(
    mark: str, tmp_path: Path, line: str, number: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "rulegen", "demo"],
        cwd=ROOT,
        env={**os.environ, MARK: mark, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's `&` has it ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread holds a lock here
    )
    assert demo.stdout
    for said in demo.stdout:
        if said.startswith(line):
            break
    # As a terminal does it: to all of the group, the programs that the demo runs at that moment too.
    os.killpg(demo.pid, number)
    _, complaint = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert complaint.strip() == "Error: interrupted"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kernel
@needs_namespaces
@pytest.mark.parametrize("line", ["3  Rolling update", "5  ssl-redirect"])
def test_a_killed_demo_leaves_no_process_behind(mark: str, tmp_path: Path, line: str) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "rulegen", "demo"],
        cwd=ROOT,
        env={**os.environ, MARK: mark, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout
    for said in demo.stdout:
        if said.startswith(line):
            break
    demo.kill()
    demo.communicate(timeout=60)


@pytest.mark.kernel
@needs_namespaces
def test_a_step_that_fails_is_said(mark: str, tmp_path: Path) -> None:
    """A host whose iptables refuses to write."""
    for tool in ("iptables-nft-restore", "iptables-legacy-restore"):
        (tmp_path / tool).write_text("#!/bin/sh\necho 'the kernel is out of sorts' >&2\nexit 4\n")
        (tmp_path / tool).chmod(0o755)

    done = rulegen("demo", **{MARK: mark}, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: `rulegen apply -f my-blog` failed: ")
    assert "the kernel is out of sorts" in done.stderr


@pytest.mark.not_quick
def test_without_root_it_says_what_to_do() -> None:
    if os.geteuid() == 0:
        # Nobody, but one who may read what is root's: a virtual environment often is.
        reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        nobody = ("setpriv", "--reuid=65534", "--clear-groups", *reads)
        done = run(*nobody, sys.executable, "-m", "rulegen", "demo", PYTHONDONTWRITEBYTECODE="1")
    else:
        done = rulegen("demo")

    assert done.returncode == 1
    assert done.stderr == "Error: network namespaces need root\nNext: run it as root: sudo rulegen demo\n"
