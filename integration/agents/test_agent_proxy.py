"""`run --ingress` while its proxy cannot serve: health, published addresses, log, metrics and Events follow it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration import forks
from integration.agent import Process, until
from integration.agents.test_agent_site import HOST, Site, served
from integration.ingress import objects
from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy import process_list
from rulegen.host.proxy.process_list import ProxyProcess, Role

pytestmark = [
    pytest.mark.xdist_group("agent"),
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed"),
]

SOON_S = 5.0
"""The time in which all outputs follow a fault and its end."""
PUBLISHED_S = 10.0
"""The same for addresses in statuses, which are written every five seconds."""
START_S = 30.0
"""For the first lists and the first decision."""
SLACK_S = 8.0
"""For a busy machine; all together is less than the time between two checks."""
NODE_IP = "192.0.2.10"


@dataclass
class Proxy:
    """A node that serves Ingresses with an nginx of its own, which can be taken away."""

    site: Site
    binary: Path
    agent: Process

    def health(self) -> tuple[int, str]:
        """Return the status of /healthz and its last error."""
        status, document = self.site.node.health()
        return status, document.get("lastError", "")

    def published(self) -> list[str]:
        """Return the addresses in the status of the Ingress."""
        stored = self.site.node.api.kept("ingresses")["default", "shop"]
        entries = stored.get("status", {}).get("loadBalancer", {}).get("ingress") or []
        return [entry["ip"] for entry in entries]

    def events(self, reason: str) -> list[str]:
        """Return the notes of all Events with a reason."""
        return [each["note"] for each in self.site.node.api.kept("events").values() if each["reason"] == reason]

    def processes(self) -> tuple[ProxyProcess, ...]:
        return NGINX.processes(self.site.folder)

    def signal_all(self, number: signal.Signals) -> None:
        for process in self.processes():
            process_list.send(process, number)

    def kill_master(self) -> int:
        master = next(process for process in self.processes() if process.role is Role.MASTER)
        os.kill(master.pid, signal.SIGKILL)
        return master.pid

    def is_gone(self) -> bool:
        """Kill all processes, also one that has just started; return whether none is left."""
        self.signal_all(signal.SIGKILL)
        return not self.processes()

    @contextmanager
    def without_binary(self) -> Iterator[None]:
        """Take the executable away, and kill all processes that run it."""
        hidden = self.binary.with_name("nginx-hidden")
        self.binary.rename(hidden)
        try:
            self.wait_until(self.is_gone, SOON_S, "nginx is gone")
            yield
        finally:
            if hidden.exists():
                hidden.rename(self.binary)

    def wait_for_health(self, status: int) -> None:
        self.wait_until(lambda: self.health()[0] == status, SOON_S, f"health {status}")

    def wait_until_published(self, *addresses: str) -> None:
        self.wait_until(lambda: self.published() == [*addresses], PUBLISHED_S, f"published: {addresses}")

    def wait_until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        try:
            until(holds, within_s + SLACK_S, what)
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.health()}\n{self.site.node.log.read_text()[-4000:]}") from None

    def wait_until_well(self) -> None:
        self.wait_for_health(200)
        self.wait_until(self.site.answers, SOON_S, "nginx answers")
        self.wait_until_published(NODE_IP)
        self.wait_until(lambda: "ingressesNotServed" not in self.site.node.health()[1], START_S, "all is served")


def is_bound(ours: socket.socket) -> bool:
    """Bind a socket to nginx's port, and return whether it was free."""
    try:
        ours.bind(("0.0.0.0", 80))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def shared() -> Iterator[Proxy]:
    with served() as site:
        binary = site.folder.with_name("bin") / "nginx"
        binary.parent.mkdir()
        shutil.copy(shutil.which("nginx") or "", binary)
        shop = objects.ingress("shop", HOST)
        site.node.api.put("ingresses", {**shop, "metadata": {**shop["metadata"], "uid": "shop-1"}})
        site.node.configure()  # a check every 30 s: what is noticed in 5 s is not noticed by one
        options = ("--nginx-binary", str(binary), "--publish-status-address", NODE_IP)
        with site.node.running(*site.options, *options) as agent:
            yield Proxy(site, binary, agent)


@pytest.fixture
def proxy(shared: Proxy) -> Proxy:
    shared.wait_until_well()
    return shared


def test_a_killed_master_is_counted_logged_and_announced(proxy: Proxy) -> None:
    node = proxy.site.node
    drifted, ended = node.drift(), node.metric("rulegen_nginx_unexpected_ends_total")
    master = proxy.kill_master()
    proxy.wait_until(lambda: node.metric("rulegen_nginx_unexpected_ends_total") == ended + 1, SOON_S, "counted")
    proxy.wait_until(lambda: bool(node.lines("nginx ended unexpectedly")), SOON_S, "logged")
    assert "by signal 9" in node.lines("nginx ended unexpectedly")[0]
    proxy.wait_until(lambda: bool(proxy.events("IngressProxyEnded")), SOON_S, "announced")
    assert "by signal 9" in proxy.events("IngressProxyEnded")[0]
    proxy.wait_until(lambda: any(each.role is Role.MASTER for each in proxy.processes()), SOON_S, "another master")
    assert master not in {each.pid for each in proxy.processes()}
    assert proxy.health()[0] == 200
    assert proxy.site.answers()
    assert node.drift() == drifted


def test_health_and_addresses_follow_a_proxy_that_hangs(proxy: Proxy) -> None:
    def hangs() -> bool:
        """Stop all processes, also one that has just started; return whether the node is unhealthy."""
        proxy.signal_all(signal.SIGSTOP)
        return proxy.health()[0] == 503

    try:
        proxy.wait_until(hangs, SOON_S, "health 503")
        proxy.wait_until(lambda: proxy.health()[1] == "nginx does not answer", SOON_S, "the cause")
        assert proxy.site.node.health("livez")[0] == 200
        proxy.wait_until_published()
    finally:
        proxy.signal_all(signal.SIGCONT)
    proxy.wait_until_well()
    assert proxy.site.node.lines("nginx answers again")


def test_a_missing_binary_is_noticed_and_its_return_used_at_once(proxy: Proxy) -> None:
    node = proxy.site.node
    with proxy.without_binary():
        proxy.wait_for_health(503)
        proxy.wait_until(lambda: "does not exist" in proxy.health()[1], SOON_S, "the cause")
        (reported,) = [line for line in node.lines("not served") if str(proxy.binary) in line]
        assert "install the package" not in reported
        node.api.put("ingresses", objects.ingress("more", "more.test"))
        time.sleep(8)  # longer pauses would have begun by now
    proxy.wait_for_health(200)
    proxy.wait_until(
        lambda: any("more.test" in text for text in proxy.site.files().values()), SOON_S, "the change meanwhile"
    )
    # One line for the start, one for the test of the new configuration, and none for each attempt.
    assert len([line for line in node.lines("not served") if str(proxy.binary) in line]) <= 2


def test_a_port_taken_by_another_program_is_named_once(proxy: Proxy) -> None:
    node = proxy.site.node
    drifted = node.drift()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with proxy.without_binary():
            proxy.wait_until(lambda: proxy.is_gone() and is_bound(other), SOON_S, "the port is ours")
            other.listen()
        proxy.wait_until(lambda: "port 80 is held by process" in proxy.health()[1], SOON_S, "the cause")
        proxy.wait_for_health(503)
        proxy.wait_until_published()
        assert len([line for line in node.lines("not served") if "port 80 is held by process" in line]) == 1
    proxy.wait_until_well()
    assert node.drift() == drifted
    assert not node.lines("changed by another program")


def test_a_port_taken_from_the_start_is_unhealthy() -> None:
    with served() as site, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 80))
        other.listen()
        agent = site.node.start(*site.options)
        proxy = Proxy(site, Path(), agent)
        try:
            proxy.wait_until(lambda: "port 80 is held by process" in proxy.health()[1], START_S, "the cause")
            assert proxy.health()[0] == 503
            assert site.node.health("livez")[0] == 200
            other.close()
            proxy.wait_for_health(200)
            assert site.answers()
        finally:
            agent.terminate()
            agent.wait(20)


def test_a_second_agent_leaves_the_first_one_alone(proxy: Proxy) -> None:
    node, site = proxy.site.node, proxy.site
    second = forks.run([*node.argv("run", *site.options), "--health-address", "127.0.0.1:10356"])
    assert second.returncode == 1
    assert f"another agent, process {proxy.agent.pid}, already manages the nginx of {site.folder}" in second.stderr
    assert site.answers()
    assert proxy.health()[0] == 200


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
def test_health_and_counts_follow_haproxy_too() -> None:
    with served() as site:
        site.node.configure()
        folder = site.folder.with_name("haproxy")
        options = ("--ingress", "--no-services", "--ingress-engine", "haproxy", "--haproxy-dir", str(folder))
        agent = site.node.start(*options)
        proxy = Proxy(site, Path(), agent)
        try:
            proxy.wait_until(lambda: proxy.health()[0] == 200, START_S, "healthy")
            ours = HAPROXY.processes(folder)
            for number, status in ((signal.SIGSTOP, 503), (signal.SIGCONT, 200)):
                for process in ours:
                    process_list.send(process, number)
                proxy.wait_for_health(status)
            master = next(process for process in HAPROXY.processes(folder) if process.role is Role.MASTER)
            os.kill(master.pid, signal.SIGKILL)
            proxy.wait_until(lambda: bool(site.node.lines("haproxy ended unexpectedly")), SOON_S, "logged")
            assert site.node.metric("rulegen_nginx_unexpected_ends_total") == 1
            proxy.wait_for_health(200)
        finally:
            for process in HAPROXY.processes(folder):
                process_list.send(process, signal.SIGCONT)
            agent.terminate()
            agent.wait(30)
