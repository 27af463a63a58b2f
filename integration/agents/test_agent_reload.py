"""`rulegen run` with another configuration: load balancers see no difference, and nothing is listed again."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration import manifests
from integration.agent import Node, Process, network_namespace, until
from integration.agents.test_agent_site import served
from integration.manifests import App
from tests.servers.fakeapi import FakeApi

pytestmark = [pytest.mark.xdist_group("agent"), pytest.mark.slow]

HEALTH_PORT = 31950
BALANCED = App(
    name="web", number=804, ready=("pod-a",), type="LoadBalancer", external="Local", health_check_port=HEALTH_PORT
)
HEALTHZ = "http://127.0.0.1:10256/healthz"
PAGES = (HEALTHZ, "http://127.0.0.1:10256/livez", "http://127.0.0.1:10249/metrics")


@contextmanager
def asked(*pages: str) -> Iterator[list[str]]:
    """Ask for pages again and again; yield the answers, which is `200` for each that went well."""
    answers: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.01):
            for page in pages:
                try:
                    with urllib.request.urlopen(page, timeout=5) as answer:
                        answers.append(str(answer.status))
                except OSError as error:
                    answers.append(f"{page}: {error}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def reload_twice(node: Node, process: Process) -> None:
    """Send SIGHUP, then change the file; wait until each configuration is in use."""
    for number, change in enumerate((lambda: process.send_signal(signal.SIGHUP), lambda: change_file(node)), 1):
        change()
        until(lambda number=number: len(node.lines("configuration reloaded")) == number, 20, "reloaded")
        until(lambda: node.is_well, 20, "all is written")


def change_file(node: Node) -> None:
    node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "20s", "masqueradeBit": 13})


def lists(node: Node) -> int:
    return sum(verb == "list" and resource != "leases" for verb, _, resource in node.api.done)


def test_health_of_services_holds_during_a_reload(tmp_path: Path) -> None:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = Node(tmp_path, api)
        node.serve(BALANCED)
        with node.running() as process:
            until(lambda: node.health()[0] == 200, 10, "healthy")
            listed = lists(node)
            assert listed
            with asked(*PAGES, f"http://127.0.0.1:{HEALTH_PORT}/") as answers:
                until(lambda: len(answers) > 8, 10, "asked")
                reload_twice(node, process)
            assert set(answers) == {"200"}, [answer for answer in answers if answer != "200"][:5]
            assert lists(node) == listed
            assert any("0x2000" in line for line in node.rules.lines()), "what was configured"
            assert node.metric("rulegen_writes_total") > 0
            node.serve(App(name="web", number=804, ready=("pod-b",), type="NodePort", protocols=("TCP",)))
            until(lambda: node.rules.sends_to(App(name="web", number=804), "pod-b"), 10, "a change afterwards")


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_health_of_ingresses_holds_during_a_reload() -> None:
    with served() as site, site.node.running(*site.options) as process:
        until(site.answers, 20, "nginx answers")
        listed = lists(site.node)
        assert listed
        with asked(*PAGES) as answers:
            until(lambda: len(answers) > 6, 10, "asked")
            reload_twice(site.node, process)
            time.sleep(1)  # the time of what the next agent does beside its first sync
        assert set(answers) == {"200"}, [answer for answer in answers if answer != "200"][:5]
        assert lists(site.node) == listed
        assert site.answers()
