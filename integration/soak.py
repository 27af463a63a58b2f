"""`python -m integration.soak`: for minutes, all that can go wrong at once on a node whose clients ask without pause.

Objects change at random, the API server fails in every way that it can, others damage rules, the agent is killed every
few seconds; then one agent lives on under the same, to see that it does not grow. Two sorts of damage are told apart:

- to Services that nobody asks just then: no request of the others may fail, ever;
- to the rules of all, as by `iptables -t nat -F`: new connections fail until they are mended, whoever mends them. What
  is lost between the flush and its mending is counted by itself, and so is how long the mending takes.

Then the host breaks under agents for Services and Ingresses, as in `integration.faults`: tools hang, are slow, fail or
are missing, as do nginx, its port, its disk and the API server, and others change rules and files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from integration import forks, manifests
from integration.agent import Node, Process, inside, until
from integration.faults.scene import LAYOUTS
from integration.faults.sequences import Endured, endure
from integration.harms import HARMS, Harms
from integration.lab.hosts import Address, Repeating
from integration.lab.hosts import Report as Answers
from integration.lab.lab import Lab, build
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App
from tests.fakes.faults import Fault
from tests.fakes.watches import DROP, FINISH, GARBAGE, HALF_LINE, SLOW, error_event
from tests.servers.fakeapi import FakeApi

HOSTS = ("pod-a", "pod-b", "pod-x")
STEADY = App(name="steady", number=801, ready=("pod-b", "pod-x"), type="LoadBalancer", protocols=("TCP",))
OTHERS = range(810, 830)
TIMEOUT_S = 2
PAUSE_S = 0.01
"""Between the questions of all clients but one."""
FAULTS = (
    Fault.status(429, retry_after=1),
    Fault.status(500),
    Fault.status(503),
    Fault.status(410),
    Fault.status(401),
    Fault.hang_up(),
    Fault.body(b"<html>"),
    Fault.body(b"{}"),
    Fault.body(b'{"kind":"ServiceList","metadata":{"resourceVersion":"7"},"items":[', length=9999),
)
DISTURBANCES = (DROP, FINISH, HALF_LINE, SLOW, *GARBAGE, error_event(410), error_event(500))
COLLECTIONS = ("services", "endpointslices", "nodes")
GROWN_MB = 8.0
"""So much more memory at the end of a life is no growth: a look at all rules leaves some more or less behind."""
GROWN = 2
"""And so many file descriptors or threads: of a watch that is just being made anew."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a process holds."""

    files: int
    threads: int
    memory_mb: float

    @classmethod
    def of(cls, pid: int) -> Size:
        """Return that of a process."""
        status = Path(f"/proc/{pid}/status").read_text()
        values = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return cls(files, int(values["Threads"][0]), int(values["VmRSS"][0]) / 1024)


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        answered: Requests, by who asked whom.
        failed: Requests that failed while nobody had damaged what they need, by the same; all zero is the promise.
        failures: The last of those, with outcome and time.
        lost: Requests that failed between a flush of all rules and its mending.
        flushes: When that was, and how long the mending took, in seconds.
        done: What was done to the node, by kind.
        begun, ended: What the agent that lived on held a moment after its start, and in the end.
        converged: Whether a plan was empty in the end; what it said where it was not.
        troubles: Lines of the agents' logs that no agent should write.
        endured: What agents for Services and Ingresses have endured, by how many they are.
    """

    answered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    failures: list[object] = field(default_factory=list)
    lost: int = 0
    flushes: list[tuple[float, float]] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    begun: Size | None = None
    ended: Size | None = None
    converged: str = "not tried"
    troubles: list[str] = field(default_factory=list)
    endured: dict[str, Endured] = field(default_factory=dict)

    def wrongs(self) -> list[str]:
        """Return what broke a promise."""
        results = [f"{who}: {count} requests failed" for who, count in self.failed.items() if count]
        results += [f"the plan is not empty: {self.converged}"] if self.converged else []
        results += self.troubles
        results += [each.wrong for each in self.endured.values() if each.wrong]
        if self.begun and self.ended:
            if self.ended.memory_mb > self.begun.memory_mb + GROWN_MB:
                results.append(f"memory grew from {self.begun.memory_mb:.1f} to {self.ended.memory_mb:.1f} MB")
            if self.ended.files > self.begun.files + GROWN or self.ended.threads > self.begun.threads + GROWN:
                results.append(f"it holds more in the end: {self.begun} to {self.ended}")
        return results


class Soak:
    """The node, its API server, its clients, and all that is done to them."""

    def __init__(self, lab: Lab, node: Node, harms: Harms, seed: int, pause_s: float) -> None:
        self.lab, self.node, self.random = lab, node, random.Random(seed)
        self._harms = harms
        self.report = Report()
        self._pause_s = pause_s
        self._ready = HOSTS
        self._others: dict[int, App] = {}
        self._tokens = 0
        self._excused: Counter[str] = Counter()
        self._agent: Process | None = None
        self._logs = node.folder / "logs"
        self._logs.mkdir()
        self._asking: dict[str, Repeating] = {}
        self.serve()

    def ask(self) -> None:
        """Have the clients ask from now on."""
        asked, gate = self.changing, self.lab.node.addresses(4)[0]
        self._asking = {
            # From a pod of its own: two clients of one address that meet at one endpoint would share its ports.
            "pod to steady, most often": self.lab["pod-a"].repeat(
                "TCP", STEADY.cluster_ip(4), PORT, pause_s=self._pause_s / 10, timeout_s=TIMEOUT_S
            ),
            "pod to changing": self._repeat("pod-c", asked.cluster_ip(4)),
            "pod to changing, IPv6": self._repeat("pod-c", asked.cluster_ip(6)),
            "node to changing": self._repeat("node1", asked.cluster_ip(4)),
            "outside to steady by node port": self._repeat("client", gate, STEADY.node_port),
            "outside to steady by balancer, IPv6": self._repeat("client", STEADY.lb_ip(6)),
            "outside to changing by node port": self._repeat("client", gate, asked.node_port),
        }

    def _repeat(self, host: str, address: Address, port: int = PORT) -> Repeating:
        return self.lab[host].repeat("TCP", address, port, pause_s=self._pause_s, timeout_s=TIMEOUT_S)

    @property
    def changing(self) -> App:
        """The Service whose endpoints come and go; those that leave listen on, so none of its requests may fail."""
        return App(name="changing", number=802, ready=self._ready, type="NodePort", protocols=("TCP",))

    def serve(self) -> None:
        """Have the cluster be as it should be now."""
        self.node.serve(STEADY, self.changing, *self._others.values())

    # -- what happens --------------------------------------------------------------------------------------------------

    def change(self) -> None:
        """Change something in the cluster."""
        chance = self.random
        if chance.random() < 0.5:
            self._ready = tuple(sorted(chance.sample(HOSTS, chance.randint(1, 3))))
        else:
            number = chance.choice(OTHERS)
            if not self._others.pop(number, None) or chance.random() < 0.5:
                ready = tuple(chance.sample(HOSTS, chance.randint(0, 3)))
                kind = chance.choice(("ClusterIP", "NodePort", "LoadBalancer"))
                self._others[number] = App(name=f"other-{number}", number=number, ready=ready, type=kind)
        self.serve()
        self._did("changes of objects")

    def trouble(self) -> None:
        """Have the API server fail, in one of the ways that it can."""
        api, chance, collection = self.node.api, self.random, self.random.choice(COLLECTIONS)
        match chance.randrange(8):
            case 0 | 1:
                api.fail(collection, *chance.choices(FAULTS, k=chance.randint(1, 4)))
            case 2 | 3:
                api.disturb(collection, chance.choice(DISTURBANCES))
            case 4:
                api.break_connections()
            case 5:
                api.compact()
                api.forget_pages()
                api.break_connections()
            case 6:
                self._tokens += 1
                api.token = f"token-{self._tokens}"
                api.break_connections()
                time.sleep(chance.random())
                api.kubeconfig(self.node.folder)
            case _:
                api.go_away()
                self.change()
                time.sleep(chance.random())
                api.come_back()
        self._did("faults of the API server")

    def damage(self) -> None:
        """Damage what belongs to a Service that nobody asks, or put something into a chain of all that harms nobody."""
        if self._harms.damage(self.random):
            self._did("damage to others' rules")

    def kill(self) -> None:
        """Kill the agent, with what it has started or alone, and start another."""
        if self._agent is not None:
            if self._agent.poll() is None:
                (os.killpg if self.random.random() < 0.5 else os.kill)(self._agent.pid, signal.SIGKILL)
            self._agent.wait()
            self._keep_log()
            self._did("kills of the agent")
        self._agent = self.node.start()

    def flush(self) -> None:
        """Flush all rules of nat: what is lost until they are mended is counted by itself."""
        self.await_well()
        before = self._answers()
        for who, answers in before.items():
            self._note_failures(who, answers)
        wanted = self._harms.everything()
        at = time.time()
        self._harms.flush()
        took = until(lambda: self._harms.everything() == wanted, 60, "mended after a flush")
        self.report.flushes.append((round(at, 2), round(took, 2)))
        time.sleep(2 * TIMEOUT_S + 0.5)  # who asked in between has got its answer, or none, by then
        lost = {who: after.failures - before[who].failures for who, after in self._answers().items()}
        self.report.lost += sum(lost.values())
        self._excused.update(lost)
        self._did("flushes of all rules")

    def _note_failures(self, who: str, answers: Answers) -> None:
        """Report failures that no damage excuses; those that were noted before are not the last ones any more."""
        failed = answers.failures - self._excused[who]
        new, self.report.failed[who] = failed - self.report.failed.get(who, 0), failed
        self.report.failures += [{"who": who, **each} for each in answers.last_failures[-new:]] if new > 0 else []

    def _did(self, what: str) -> None:
        self.report.done[what] = self.report.done.get(what, 0) + 1

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self, seconds: float, *, kill_every_s: float, flush_every_s: float) -> None:
        """Do it all for so long; no kill where it is never due."""
        due = {
            self.change: 0.0,
            self.trouble: 1.0,
            self.damage: 2.0,
            self.flush: flush_every_s,
            self.kill: kill_every_s,
        }
        pauses: Mapping[Callable[[], None], float] = {
            self.change: 0.2,
            self.trouble: 1.5,
            self.damage: 3.0,
            self.flush: flush_every_s,
            self.kill: kill_every_s,
        }
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            deed = min(due, key=lambda entry: due[entry])
            if due[deed] > now:
                time.sleep(min(due[deed] - now, 0.2))
                continue
            with suppress(subprocess.CalledProcessError):  # the chain was deleted meanwhile
                deed()
            due[deed] = time.monotonic() - began + pauses[deed] * self.random.uniform(0.7, 1.3)
            if self._agent is not None and self._agent.poll() is not None:
                self.report.troubles.append(f"the agent ended by itself: {self._agent.returncode}")
                self.kill()

    def live(self, seconds: float, settle_s: float, flush_every_s: float) -> None:
        """Let one agent live through it all, and see what it holds."""
        self.kill()
        self.run(settle_s, kill_every_s=float("inf"), flush_every_s=float("inf"))
        self.await_well()
        self.report.begun = self._size()
        self.run(seconds, kill_every_s=float("inf"), flush_every_s=flush_every_s)
        self.await_well()
        self.report.ended = self._size()

    def end(self) -> Report:
        """Let the clients end, see that all is as it should be, and return what came of it all."""
        self.await_well()
        for who, asker in self._asking.items():
            reported = asker.stop()
            self.report.answered[who] = sum(reported.answered.values())
            self._note_failures(who, reported)
        try:
            self.node.check_converged()
            self.report.converged = ""
        except AssertionError as error:
            self.report.converged = str(error)
        self.stop()
        return self.report

    def stop(self) -> None:
        """End the agent."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.terminate()
            agent.wait(30)
            self._keep_log()

    def await_well(self) -> None:
        """Have the API server be well, and wait until the agent has written all that it says."""
        api = self.node.api
        api.calm_down()
        api.kubeconfig(self.node.folder)
        until(self._is_settled, 90, "all is written")

    def _is_settled(self) -> bool:
        """Whether the kernel is as the cluster wants it: an agent that lags behind may think itself well."""
        if not self.node.is_well:
            return False
        argv = self.node.argv("plan", "--detailed-exitcode")
        return forks.run(argv).returncode == 0

    def _size(self) -> Size:
        assert self._agent is not None
        return Size.of(self._agent.pid)

    def _answers(self) -> dict[str, Answers]:
        return {who: asker.report() for who, asker in self._asking.items()}

    def _keep_log(self) -> None:
        text = self.node.log.read_text()
        (self._logs / f"{len(list(self._logs.iterdir()))}.log").write_text(text)
        self.report.troubles += [line for line in text.splitlines() if "Traceback" in line or " internal" in line]


@contextmanager
def soaked(seed: int, pause_s: float, mode: str) -> Iterator[Soak]:
    """Give a node to soak, in a lab of its own."""
    with ExitStack() as stack:
        lab = stack.enter_context(build(Namespaces()))
        stack.enter_context(inside(f"/proc/{lab.node.wire.pid}/ns/net"))
        api = stack.enter_context(FakeApi(token="token-0", bookmark_every=1.0))
        api.put("nodes", *manifests.nodes())
        node = Node(lab.folder, api)
        node.mode = mode
        node.configure(nodePortAddresses=["0.0.0.0/0", "::/0"])
        entry = Soak(lab, node, HARMS[mode](node), seed, pause_s)
        stack.callback(entry.stop)
        yield entry


def soak(
    seconds: float,
    life_s: float,
    *,
    kill_every_s: float,
    flush_every_s: float,
    seed: int,
    pause_s: float = PAUSE_S,
    mode: str = "iptables",
) -> Report:
    """Soak a node, and return what came of it.

    Args:
        seconds: For so long the agent is killed again and again.
        life_s: And for so long one lives on.
        kill_every_s: Between two kills.
        flush_every_s: Between two flushes of all rules.
        seed: Of the dice.
        pause_s: Between the questions of a client; the one that asks most often takes a tenth of it.
        mode: How Services are made.
    """
    with soaked(seed, pause_s, mode) as entry:
        entry.kill()
        entry.await_well()
        entry.ask()
        entry.run(seconds, kill_every_s=kill_every_s, flush_every_s=flush_every_s)
        entry.await_well()
        entry.live(life_s, min(30.0, life_s), flush_every_s)
        return entry.end()


def main() -> int:
    """Soak, print what came of it, and return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m integration.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long the agent is killed again and again")
    parser.add_argument("--life-minutes", type=float, default=5, help="how long one agent then lives")
    parser.add_argument("--fault-minutes", type=float, default=5, help="how long the host then breaks")
    parser.add_argument("--mode", choices=tuple(HARMS), default="iptables", help="how Services are made")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", file=sys.stderr)
    minutes, life = given.minutes * 60, given.life_minutes * 60
    report = soak(minutes, life, kill_every_s=20, flush_every_s=45, seed=given.seed, mode=given.mode)
    for layout in LAYOUTS if given.fault_minutes else ():
        report.endured[layout] = endure(layout, given.fault_minutes * 60 / len(LAYOUTS), given.seed)
    json.dump(asdict(report), sys.stdout, indent=2)
    print()
    wrongs = report.wrongs()
    print("\n".join(wrongs) or "every promise was kept", file=sys.stderr)
    return int(bool(wrongs))


if __name__ == "__main__":
    sys.exit(main())
