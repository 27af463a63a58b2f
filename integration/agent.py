"""A node that runs `rulegen run` in a network namespace of its own, the API server that it asks, and its rules."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration import forks, manifests
from integration.lab import topology
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from integration.blackbox import Variant
    from integration.manifests import App

Process = subprocess.Popen[bytes] | forks.Fork

CLONE_NEWNET = 0x40000000
COLLECTIONS = {"Service": "services", "EndpointSlice": "endpointslices", "Node": "nodes"}
SYSCTL = Path("/proc/sys/net/ipv4/conf/all/route_localnet")
TOOLS = {4: "iptables", 6: "ip6tables"}


def until(holds: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until something holds, and return how long that took.

    It is looked for again after 0.03 to 0.2 s: later where a look takes long, or all has taken long already. Looks must
    not take the processor from what they wait for.
    """
    looked = began = time.monotonic()
    while not holds():
        now = time.monotonic()
        elapsed = now - began
        assert elapsed < within_s, f"{what}: not within {within_s} s"
        time.sleep(min(0.2, max(0.03, 2 * (now - looked), elapsed / 20)))
        looked = time.monotonic()
    return time.monotonic() - began


def tool(*argv: str, stdin: str | None = None) -> str:
    """Run a tool, which must succeed, and return what it printed."""
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


class Rules:
    """The rules of the network namespace that we are in, for one variant of iptables."""

    def __init__(self, variant: Variant = "nft") -> None:
        self.variant = variant

    def change(self, *arguments: str, family: int = 4) -> str:
        """Run `iptables`."""
        return tool(f"{TOOLS[family]}-{self.variant}", *arguments)

    def save(self, *arguments: str, family: int = 4) -> str:
        """Return what `iptables-save` prints."""
        return tool(f"{TOOLS[family]}-{self.variant}-save", *arguments)

    def restore(self, text: str, family: int = 4) -> None:
        """Load what was saved, in place of what is there."""
        tool(f"{TOOLS[family]}-{self.variant}-restore", stdin=text)

    def lines(self, table: str = "nat", family: int = 4) -> list[str]:
        """Return all chains and rules of a table."""
        return [line for line in self.save("-t", table, family=family).splitlines() if line.startswith(("-A", ":"))]

    def everything(self) -> list[str]:
        """Return all chains and rules of ours, without the counters of chains."""
        results = (line for family in TOOLS for table in ("nat", "filter") for line in self.lines(table, family))
        return [re.sub(r"\[\d+:\d+\]", "", line) for line in results]

    def chain_of(self, word: str, kind: str = "KUBE-SVC-") -> str:
        """Return the first chain of a kind that a rule with a word in it goes to or is in."""
        results = (re.search(rf"{kind}[A-Z2-7]{{16}}", line) for line in self.lines() if word in line)
        return next(entry[0] for entry in results if entry)

    def spec(self, table: str, chain: str, pattern: str) -> tuple[int, str]:
        """Return number and text of the first rule of a chain that a pattern is found in."""
        results = [line for line in self.change("-t", table, "-S", chain).splitlines() if line.startswith("-A")]
        return next((number, line) for number, line in enumerate(results, 1) if re.search(pattern, line))

    def delete_first(self, table: str, chain: str, pattern: str) -> None:
        """Delete the first rule of a chain that a pattern is found in."""
        self.change("-t", table, "-D", chain, str(self.spec(table, chain, pattern)[0]))

    def sends_to(self, app: App, *hosts: str) -> bool:
        """Whether the rules of an App send TCP to just these hosts."""
        results = set()
        for line in self.lines():
            match = re.search(rf' -p tcp .*"?lab/{app.name}:tcp.*--to-destination (\S+):', line)
            if match:
                results.add(match[1])
        return results == {str(topology.address(host, 4)) for host in hosts}


class Node:
    """A node in a network namespace of its own, and the API server that it asks.

    Attributes:
        log: What the agent last started has logged.
        environment: Variables that it gets beside ours.
        wrapper: A command that runs the agent, its arguments behind its own, by becoming it.
        mode: How Services are made; empty if the configuration says it.
        start_s: How long the first sync may take.
    """

    mode = "iptables"
    start_s = 30

    def __init__(self, folder: Path, api: FakeApi, variant: Variant = "nft") -> None:
        self.folder, self.api = folder, api
        self.rules = Rules(variant)
        # The machine's own lock is not ours to hold.
        self.environment = {"XTABLES_LOCKFILE": str(folder / "xtables.lock")}
        self.wrapper: tuple[str, ...] = ()
        self.kubeconfig = api.kubeconfig(folder)
        self.log = folder / "log"
        self.config = folder / "config.json"
        self.configure()

    def configure(self, **options: object) -> None:
        given = {"iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"}, **options}
        self.config.write_text(manifests.configuration(**given))

    def serve(self, *apps: App) -> None:
        """Have the cluster consist of these Apps."""
        documents = [document for app in apps for document in app.documents()]
        for collection in ("services", "endpointslices"):
            new = [entry for entry in documents if COLLECTIONS[entry["kind"]] == collection]
            names = {entry["metadata"]["name"] for entry in new}
            for namespace, name in set(self.api.kept(collection)):
                if name not in names:
                    self.api.delete(collection, namespace, name)
            self.api.put(collection, *new)

    def argv(self, verb: str, *more: str) -> list[str]:
        given = ("--kubeconfig", self.kubeconfig, "--config", str(self.config), "--node", topology.NODE)
        program = [sys.executable, "-W", "error", "-m", "rulegen", verb]
        mode = ("--mode", self.mode) if self.mode else ()
        return [*program, "--variant", self.rules.variant, *mode, *given, *more]

    def start(self, *more: str) -> Process:
        """Start an agent: in a fork, or in a whole interpreter where a wrapper starts it."""
        self.log.write_text("")
        argv = self.argv("run", *more)
        if not self.wrapper:
            return forks.start(argv, self.log, self.environment)
        with self.log.open("a") as log:
            environment = {**os.environ, **self.environment}
            argv = [*self.wrapper, *argv]
            return subprocess.Popen(argv, stderr=log, stdout=log, start_new_session=True, env=environment)

    @contextmanager
    def running(self, *more: str) -> Iterator[Process]:
        process = self.start(*more)
        try:
            until(lambda: self.is_well or process.poll() is not None, self.start_s, "first sync")
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            code = process.wait(30)
        assert code == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()

    @property
    def is_well(self) -> bool:
        """Whether it says that all that came is written."""
        _, health = self.health()
        return bool(health) and health["healthy"] and health["appliedGeneration"] == health["desiredGeneration"]

    @staticmethod
    def health(page: str = "healthz", port: int = 10256) -> tuple[int, Mapping[str, Any]]:
        """Return what it tells of its health, as status and document; 0 and nothing where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return 0, {}

    @staticmethod
    def metric(name: str) -> float:
        """Return a metric, summed up over its labels."""
        with urllib.request.urlopen("http://127.0.0.1:10249/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return sum(map(float, re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)))

    def drift(self) -> int:
        """Return how many things it has counted that others have changed."""
        return int(self.metric("rulegen_drift_total"))

    def lines(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if word in line]

    def check_converged(self) -> None:
        """Fail unless a plan against the same API server is empty, as soon as damage is repaired: in some seconds."""
        until_s = time.monotonic() + 10
        while (done := forks.run(self.argv("plan", "--detailed-exitcode"))).returncode != 0:
            assert time.monotonic() < until_s, done.stdout + done.stderr
            time.sleep(0.1)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace, given by its file, with all that is started meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    before, there = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", namespace))
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"no way into {namespace}")
        try:
            yield
        finally:
            libc.setns(before, CLONE_NEWNET)
    finally:
        os.close(there)
        os.close(before)


@contextmanager
def network_namespace() -> Iterator[None]:
    """Be in a network namespace of our own, with all that is started meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            tool("ip", "link", "set", "lo", "up")
            yield
        finally:
            libc.setns(before, CLONE_NEWNET)
    finally:
        os.close(before)
