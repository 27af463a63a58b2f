"""A node whose programs can break, in a lab: it serves Services and Ingresses, and clients ask without pause."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration import forks, manifests
from integration.agent import COLLECTIONS, Node, Process, inside, until
from integration.faults import modes
from integration.faults.engines import IngressProgram, drawn
from integration.faults.programs import PROGRAM, SHORT_LIMITS, Tools, mounted
from integration.ingress import objects
from integration.lab.lab import Lab, build
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App
from rulegen.host.proxy import process_list
from rulegen.host.proxy.process_list import ProxyProcess, Role
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from integration.faults.modes import ServiceMode
    from integration.lab.hosts import Repeating

STEADY = App(name="steady", number=801, ready=("pod-b", "pod-x"), type="NodePort", protocols=("TCP",))
"""The Service that clients ask; nothing that happens is about it."""
CHANGING = App(name="changing", number=802, ready=("pod-a",), protocols=("TCP", "UDP"))
OTHER = App(name="other", number=803, ready=("pod-a",), protocols=("TCP",))
"""A Service whose rules others damage."""
HOST, NODE_IP = "steady.test", "192.0.2.10"
SOON_S, SLACK_S = 5.0, 8.0
"""The time in which health follows what is served, and what a busy machine may add to it."""
SETTLED_S = 30.0
FOREIGN = "# what others wrote\n"
LAYOUTS = APART, TOGETHER = "two agents", "one agent"
PAGES = {TOGETHER: {"all": 10256}, APART: {"services": 10256, "ingress": 10356}}


class NotRedirected(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it is the answer of nginx itself."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


@dataclass
class SiteClient:
    """Asks the node's nginx or HAProxy for a host all the time, and the agent for its health.

    Attributes:
        port: The port of the agent's health; 0 where it says nothing about Ingresses alone.
        is_excused: Whether something that the program needs is broken: failures do not count.
        is_compared: Whether health must be what it answers: not before the first sync of an agent.
        failures: Times and reasons of requests that failed while nothing was broken.
        wrong_s: The longest time in which health was not what it answered.
    """

    port: int
    is_excused: bool = False
    is_compared: bool = True
    answered: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    wrong_s: float = 0.0
    _wrong_at: float | None = None
    _good_at: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until the end."""
        opener = urllib.request.build_opener(NotRedirected)
        while not self._ended.wait(0.1):
            was_excused = self.is_excused
            problem = self._ask(opener)
            if not problem:
                self.answered += 1
            elif not (was_excused or self.is_excused):
                self.failures.append((time.time(), problem))
            if self.port:
                self._compare(not problem)

    @staticmethod
    def _ask(opener: urllib.request.OpenerDirector) -> str:
        request = urllib.request.Request("http://127.0.0.1/", headers={"Host": HOST})
        try:
            opener.open(request, timeout=2)
        except urllib.error.HTTPError as error:
            with error:
                return "" if error.code == 301 else f"status {error.code}"
        except OSError as error:
            return repr(error)
        return "no redirect"

    def _compare(self, answers: bool) -> None:
        with suppress(OSError):
            status = health(self.port)[0]
            now = time.monotonic()
            if (status == 200) == answers or not self.is_compared:
                self._wrong_at = None
            else:
                self._wrong_at = now if self._wrong_at is None else self._wrong_at
                self.wrong_s = max(self.wrong_s, now - self._wrong_at)

    def end(self) -> None:
        self._ended.set()


def site_answers() -> bool:
    """Whether nginx or HAProxy answers a request."""
    return not SiteClient._ask(urllib.request.build_opener(NotRedirected))  # noqa: SLF001


def health(port: int, page: str = "healthz") -> tuple[int, Mapping[str, Any]]:
    """Return status and document of a health page."""
    return Node.health(page, port)


class Scene:
    """The node, its agents, its API server and its clients.

    Attributes:
        layout: Whether one agent keeps Services and Ingresses, or two.
        holder: A process in the mount namespace that all of the node's programs share.
        broken: The parts that a fault has harmed in this sequence: `IPv4`, `IPv6`, `ingress`, `API`.
        is_fresh: Whether the agents were started again in this sequence: they are healthy after their first sync.
    """

    def __init__(
        self, layout: str, rows: tuple[IngressProgram, ServiceMode], lab: Lab, api: FakeApi, folder: Path, holder: int
    ) -> None:
        self.layout, self.lab, self.api, self.folder, self.holder = layout, lab, api, folder, holder
        self.engine, self.mode = rows
        self.tools = Tools(folder / "sbin", folder / "flags")
        self.site_folder = folder / "site"
        self.site = Path(f"/proc/{holder}/root{folder}/site/{self.engine.name}")
        self.binary = folder / "bin" / self.engine.name
        self.broken: set[str] = set()
        self.is_fresh = False
        self.agents: dict[str, Process] = {}
        self.node = self.mode.node(lab.folder, api)
        self.node.configure(**self.mode.fields)
        self.node.wrapper = (*self._enter(), "sh", "-c", SHORT_LIMITS, "sh")
        self.node.environment["PROGRAM"] = PROGRAM
        self.client = SiteClient(0)
        self._thread: threading.Thread | None = None
        self._asking: dict[str, Repeating] = {}
        self.write_program()

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--mount=/proc/{self.holder}/ns/mnt")

    def write_program(self, test: str = ":", start: str = ":") -> None:
        """Replace the program that the agent takes for nginx or HAProxy."""
        new = self.binary.with_suffix(".new")
        new.write_text(self.engine.script(test, start))
        new.chmod(0o755)
        new.rename(self.binary)

    # -- objects -------------------------------------------------------------------------------------------------------

    def serve(self, *apps: App) -> None:
        """Change Services, and those alone."""
        for app in apps:
            for document in app.documents():
                self.api.put(COLLECTIONS[document["kind"]], document)

    def serve_host(self, name: str) -> None:
        """Add an Ingress, or remove it."""
        if ("default", name) in self.api.kept("ingresses"):
            self.api.delete("ingresses", "default", name)
        else:
            self.api.put("ingresses", redirecting(name, f"{name}.test"))

    # -- agents --------------------------------------------------------------------------------------------------------

    @property
    def ingress_options(self) -> tuple[str, ...]:
        return (
            *self.engine.options(self.site_folder / self.engine.name, self.binary),
            *("--publish-status-address", NODE_IP),
        )

    def start(self) -> None:
        """Start the agents."""
        if self.layout == TOGETHER:
            self.agents["all"] = self.node.start(*self.ingress_options)
            return
        log = self.node.log
        self.agents["services"] = self.node.start()
        self.node.log = self.node.folder / "log-ingress"
        pages = ("--health-address", "127.0.0.1:10356", "--metrics-address", "127.0.0.1:10349")
        self.agents["ingress"] = self.node.start("--no-services", *self.ingress_options, *pages)
        self.node.log = log

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.node.folder.glob("log*")))

    def stop(self) -> None:
        """Stop the agents; they end in time, with code 0."""
        agents, self.agents = self.agents, {}
        for agent in agents.values():
            agent.terminate()
        for name, agent in agents.items():
            try:
                code = agent.wait(30)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{name} does not end\n{self.log()[-9000:]}") from None
            assert code == 0, (name, self.log()[-4000:])
        assert "Traceback" not in self.log(), self.log()

    def break_start(self, *tools: str) -> None:
        """Expect no rules of an agent that starts while one of these tools is broken, if it needs the tool for all."""
        self.broken |= self.mode.broken_at_start(list(tools))

    def restart(self, number: signal.Signals) -> None:
        """End the agents by a signal, and start them again."""
        if number is signal.SIGKILL:
            for agent in self.agents.values():
                agent.kill()
                agent.wait(10)
        else:
            self.stop()
        self.is_fresh, self.client.is_compared = True, False
        self.start()
        for name, port in PAGES[self.layout].items():
            until(lambda p=port: health(p, "livez")[0] == 200, 60, f"{name} starts")

    def pause(self, seconds: float) -> None:
        """Stop the agents for a time, as on a machine that is suspended."""
        for agent in self.agents.values():
            agent.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        for agent in self.agents.values():
            agent.send_signal(signal.SIGCONT)

    def check_agents(self) -> None:
        """Fail unless all agents live and say so, and Services are served as the balancers should know."""
        for name, port in PAGES[self.layout].items():
            assert self.agents[name].poll() is None, (name, self.log()[-4000:])
            assert health(port, "livez")[0] == 200, (name, health(port, "livez"))
            if name != "ingress" and not self.is_fresh:
                assert health(port)[0] == 200, (name, health(port))

    # -- nginx or HAProxy ----------------------------------------------------------------------------------------------

    def processes(self, *roles: Role) -> list[ProxyProcess]:
        return [each for each in self.engine.program.processes(self.site) if not roles or each.role in roles]

    def kill(self, *roles: Role) -> None:
        for process in self.processes(*roles):
            process_list.send(process, signal.SIGKILL)

    def is_gone(self) -> bool:
        """Kill all of the program, also what has just started; return whether none is left."""
        self.kill()
        return not self.processes()

    def answers(self) -> bool:
        """Whether it has answered some requests in a row."""
        return all(site_answers() for _ in range(3))

    # -- clients -------------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Have the clients ask from now on."""
        gate = self.lab.node.addresses(4)[0]
        self._asking = {
            f"pod to steady, IPv{family}": self.lab[pod].repeat(
                "TCP", STEADY.cluster_ip(family), PORT, pause_s=0.03, timeout_s=2
            )
            for family, pod in ((4, "pod-c"), (6, "pod-c"))
        }
        self._asking["outside to steady"] = self.lab.client.repeat(
            "TCP", gate, STEADY.node_port, pause_s=0.03, timeout_s=2
        )
        self.client = SiteClient(PAGES[self.layout].get("ingress", 0))
        self._thread = threading.Thread(target=self.client.run, daemon=True)
        self._thread.start()

    def stop_asking(self) -> None:
        """End the clients; fail unless all that is not broken was answered, and health followed what is served."""
        reports = {who: asker.stop() for who, asker in self._asking.items()}
        self._asking = {}
        self.client.end()
        if self._thread is not None:
            self._thread.join(10)
        failed = {who: report.first_failures for who, report in reports.items() if report.failures}
        assert failed == {}
        assert all(sum(report.answered.values()) > 20 for report in reports.values())
        assert self.client.failures == []
        assert self.client.answered > 5
        assert self.client.wrong_s < SOON_S + SLACK_S

    # -- the end -------------------------------------------------------------------------------------------------------

    def files(self) -> Mapping[str, str]:
        """Return the live configuration of nginx or HAProxy, as far as objects alone determine it."""
        return self.engine.files(self.site / "current")

    def hosts(self) -> set[str]:
        """Return the hosts that are served."""
        return self.engine.hosts(self.files())

    def unsettled(self) -> str:
        """Return what is not yet as the cluster wants it, as the agents say; empty if all is."""
        for name, port in PAGES[self.layout].items():
            status, document = health(port)
            if status != 200 or document.get("lastError") or document.get("ingressesNotServed"):
                return f"{name}: {status} {document}"
            if document["appliedGeneration"] != document["desiredGeneration"]:
                return f"{name}: {document}"
        ingresses = self.api.kept("ingresses").values()
        hosts = {each["spec"]["rules"][0]["host"] for each in ingresses}
        if (served := self.hosts()) != hosts:
            return f"hosts: {served}"
        statuses = [each.get("status", {}).get("loadBalancer", {}).get("ingress") for each in ingresses]
        if statuses != [[{"ip": NODE_IP}]] * len(statuses):
            return f"statuses: {statuses}"
        if FOREIGN in self.files().get(self.engine.foreign, ""):
            return f"the file of others: {self.engine.foreign}"
        return "" if self.answers() else f"{self.engine.name} does not answer"

    def planned(self) -> str:
        """Return what a plan for Services by a new process shows; empty if nothing."""
        done = forks.run(self.node.argv("plan", "--detailed-exitcode"))
        return done.stdout + done.stderr if done.returncode else ""

    def settle(self, within_s: float = SETTLED_S) -> float:
        """Wait until all is as a new process would have it; return how long that took."""
        last = ""

        def is_settled() -> bool:
            nonlocal last
            last = self.unsettled()
            return not last

        try:
            took_s = until(is_settled, within_s + SLACK_S, "settled")
            took_s += until(lambda: not self.planned(), max(within_s - took_s, 0) + SLACK_S, "an empty plan")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{last or self.planned()}\n{self.log()[-9000:]}") from None
        self.broken.clear()
        self.is_fresh, self.client.is_compared = False, True
        return took_s

    def outputs(self) -> dict[str, object]:
        """Return all that the node serves and says, without times and counts."""
        volatile = {"lastUpdated", "currentTime", "desiredGeneration", "appliedGeneration", "oldestUnappliedSeconds"}
        pages = {
            (name, page): {key: value for key, value in health(port, page)[1].items() if key not in volatile}
            for name, port in PAGES[self.layout].items()
            for page in ("healthz", "livez")
        }
        statuses = {
            (kind, name): document.get("status")
            for kind in ("ingresses", "services")
            for name, document in self.api.kept(kind).items()
        }
        gauges = ("rulegen_left_out_services", "rulegen_drift_unmended", "kubeproxy_sync_proxy_rules_iptables_total")
        numbers = {name: self.node.metric(name) for name in gauges}
        return {
            "rules": sorted(self.mode.everything(self.node)),
            "files": self.files(),
            "pages": pages,
            "statuses": statuses,
            "numbers": numbers,
        }

    def wipe(self) -> None:
        """Remove all that the agents have left on the node."""
        self.kill_site()
        for path in self.site.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.mode.wipe(self.node)

    def kill_site(self) -> None:
        """End the program and its supervisor."""
        with suppress(OSError):  # there is none
            os.kill(int((self.site / "run" / "keeper.pid").read_text().split()[0]), signal.SIGKILL)
        until(self.is_gone, 10, "the program is gone")


def redirecting(name: str, host: str) -> dict[str, Any]:
    """Return an Ingress that the program answers by itself."""
    annotations = {"permanent-redirect": "http://elsewhere.test/"}
    made = objects.ingress(name, host, "echo", annotations=annotations)
    return {**made, "metadata": {**made["metadata"], "uid": f"{name}-1"}}


@contextmanager
def scene(layout: str, seed: int, mode: ServiceMode | None = None) -> Iterator[Scene]:
    """Give a node that serves a Service and a host, whose programs work; the seed chooses ingress engine and mode."""
    engine = drawn(LAYOUTS.index(layout), seed)
    mode = mode or modes.drawn(LAYOUTS.index(layout), seed)
    with ExitStack() as stack:
        lab = stack.enter_context(build(Namespaces()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # its workers are another user
        for name in ("site", "bin"):
            (folder / name).mkdir(mode=0o755)
        Tools.wrapped(folder, tuple(mode.tools))
        shutil.copy(shutil.which(engine.name) or "", folder / "sbin" / engine.name)
        holder = stack.enter_context(mounted(folder))
        stack.enter_context(inside(f"/proc/{lab.node.wire.pid}/ns/net"))
        api = stack.enter_context(FakeApi(bookmark_every=1.0))
        api.put("nodes", *manifests.nodes())
        api.put("ingressclasses", objects.ingress_class())
        api.put("services", objects.service("echo", "10.96.100.1"))
        api.put("ingresses", redirecting("steady", HOST))
        entry = Scene(layout, (engine, mode), lab, api, folder, holder)
        entry.serve(STEADY, CHANGING, OTHER)
        stack.callback(entry.kill_site)
        entry.start()

        def end() -> None:
            for agent in entry.agents.values():
                agent.kill()
                agent.wait(10)

        stack.callback(end)
        entry.settle(60)
        yield entry
