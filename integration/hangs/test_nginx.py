"""nginx or its test hangs: no Ingress is blamed, all is tried again, and a stop within a reload ends in time."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.agent import Process, until
from integration.agents.test_agent_site import Site, served
from integration.ingress import objects
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy import process_list

pytestmark = [
    pytest.mark.xdist_group("agent faults"),
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed"),
]

GOOD = """#!/bin/sh
exec {nginx} "$@"
"""
SLOW = """#!/bin/sh
[ "$1" = -t ] && exec sleep 60
exec {nginx} "$@"
"""
HANGING = """#!/bin/sh
exec sleep 60
"""
FAILING = """#!/bin/sh
exit 139
"""
PROGRAM = """
import sys
from rulegen.agent.runtime import waiting
from rulegen.agent.telemetry import state
from rulegen.host.nginx import facts
from rulegen.host.proxy.sandbox import trial
waiting.NOTICE_S, state.SHOWN_S, waiting.TERM_S, trial.TEST_S = 0.5, 0.5, 0.5, 2.0
facts.VERSION_S = 2.0
from rulegen.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="class")
def scene() -> Iterator[tuple[Site, Process, Path]]:
    """Give a node that serves one host, its agent with short limits, and the program that it takes for nginx."""
    with served() as site:
        program = site.node.folder / "nginx-wrapped"
        replace(program, GOOD)
        site.node.wrapper = ("sh", "-c", f'shift 5 && exec {sys.executable} -c "$PROGRAM" "$@"', "sh")
        site.node.environment["PROGRAM"] = PROGRAM
        site.options = (*site.options, "--keep-serving", "--nginx-binary", str(program))
        with site.node.running(*site.options) as process:
            until(site.answers, 20, "nginx answers")
            yield site, process, program


def replace(program: Path, text: str) -> None:
    new = program.with_suffix(".new")
    new.write_text(text.format(nginx=shutil.which("nginx")))
    new.chmod(0o755)
    new.rename(program)


def serves(site: Site, host: str) -> bool:
    return any(host in text for text in site.files().values())


class TestHangs:
    def test_a_test_of_nginx_that_hangs_blames_no_ingress(self, scene: tuple[Site, Process, Path]) -> None:
        site, _, program = scene
        replace(program, SLOW)
        site.node.api.put("ingresses", objects.ingress("first", "first.test"))
        until(lambda: bool(site.node.lines("not served")), 30, "said")
        assert re.search(r"nginx-wrapped|child.py", site.node.lines("still waiting")[0])
        assert re.search(r" pid=\d+ ", site.node.lines("still waiting")[0])
        assert "the test of nginx timed out after 2" in site.node.lines("not served")[0]
        assert site.answers()
        replace(program, GOOD)
        until(lambda: serves(site, "first.test"), 20, "the new host")
        assert site.answers()
        assert not site.node.lines("left out")
        assert not site.node.lines("uarantine")

    def test_a_lock_that_is_held_for_ever_harms_only_changes(self, scene: tuple[Site, Process, Path]) -> None:
        site, _, _ = scene
        with (site.folder / "run" / "apply.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            site.node.api.put("ingresses", objects.ingress("locked", "locked.test"))
            until(lambda: any("apply.lock" in line for line in site.node.lines("still waiting")), 30, "said")
            assert "apply.lock" in site.node.health()[1]["ingressesNotServed"]
            assert site.answers()
        until(lambda: serves(site, "locked.test"), 20, "the new host")

    def test_a_stop_within_a_reload_ends_in_time(self, scene: tuple[Site, Process, Path]) -> None:
        """The last test of this agent. The nginx that it leaves is that of the next test."""
        site, process, _ = scene
        until(lambda: bool(site.node.lines("nginx reloaded")), 20, "the first reload has ended")
        master = process_list.master(NGINX.processes(site.folder))
        assert master is not None
        os.kill(master.pid, signal.SIGSTOP)
        try:
            site.node.api.put("ingresses", objects.ingress("more", "more.test"))
            until(lambda: bool(site.node.lines("does not serve release")), 30, "it waits for the reload")
            began = time.monotonic()
            process.terminate()
            assert process.wait(20) == 0
            assert time.monotonic() - began < 10
        finally:
            os.kill(master.pid, signal.SIGCONT)
        until(site.answers, 10, "the old release or the new one is served")
        with site.node.running(*site.options):
            until(lambda: serves(site, "more.test"), 30, "the new host")
            assert site.answers()

    def test_an_agent_starts_while_nginx_hangs(self, scene: tuple[Site, Process, Path]) -> None:
        """Health names the cause, and the nginx that an earlier agent has started serves on."""
        site, _, program = scene
        replace(program, HANGING)
        with site.node.running(*site.options):
            until(lambda: bool(site.node.lines("-V did not end within 2 s")), 30, "said")
            assert site.node.health()[0] == 200
            assert site.answers()
            for broken, cause in ((FAILING, "-V shows no version of nginx"), ("", "is not installed")):
                replace(program, broken)
                if not broken:
                    program.unlink()
                until(lambda cause=cause: cause in site.node.health()[1]["ingressesNotServed"], 30, cause)
            replace(program, GOOD)
            site.node.api.put("ingresses", objects.ingress("last", "last.test"))
            until(lambda: serves(site, "last.test"), 30, "the new host")
            until(lambda: "ingressesNotServed" not in site.node.health()[1], 10, "health")
            assert site.answers()
