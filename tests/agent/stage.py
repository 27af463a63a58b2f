"""A stage for the loop: a clock that moves only by waiting, signals at set times, and a kernel in memory.

What is written is really executed, and refused where a kernel would refuse it; writes and reads fail on demand.
"""

from __future__ import annotations

import dataclasses
import io
import queue
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

import msgspec

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.inbox import Inbox, Wake
from rulegen.agent.pages_server.health import ServiceHealth
from rulegen.agent.services.desired import DesiredServices
from rulegen.agent.services.reports import SyncReports
from rulegen.agent.services.schedule import Schedule, SyncIntervals
from rulegen.agent.services.sync import Once, ServiceSync
from rulegen.agent.telemetry.events import EventRequest, to_nobody
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.agent.this_node import ThisNode
from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.services.update import Update
from rulegen.compiler.tables import TABLES, Tables
from rulegen.errors import ApplyError, HostError
from rulegen.host.dataplane.dataplane import KernelReadout, KernelRevision
from rulegen.host.dataplane.driver import Driver
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Event, Listed
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL
from rulegen.languages.iptables.ruleset import read
from rulegen.languages.iptables.script import script
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.ir import ResolvedService
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Address, Family, parse_network
from rulegen.plan.plan import Plan
from tests.kernels.kernel import Kernel, RefusedError
from tests.kernels.nodekernel import NodeKernel
from tests.kernels.observed import observing

NODE = "node1"
OPTIONS = Options(node_name=NODE, cluster_cidrs=(parse_network("10.244.0.0/16"),))
FACTS = HostFacts()
MOST_IDLE_WAITS = 200
"""Waits of no time at all with nothing to do: more of them is a loop that spins."""


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Signals:
    """The loop's queue: whoever waits makes time pass. What is due is a signal, or something to do."""

    clock: Clock
    due: list[tuple[float, int, Event | Wake | Callable[[], object]]] = field(default_factory=list)
    numbers: count = field(default_factory=count)
    idle: int = 0

    def at(self, time: float, *signals: Event | Wake | Callable[[], object]) -> None:
        for signal in signals:
            heappush(self.due, (time, next(self.numbers), signal))

    def put(self, signal: Event | Wake) -> None:
        self.at(self.clock.now, signal)

    def get(self, timeout: float) -> Event | Wake:
        until = self.clock.now + timeout
        while self.due and self.due[0][0] <= until:
            time, _, signal = heappop(self.due)
            self.clock.now, self.idle = max(self.clock.now, time), 0
            if isinstance(signal, Wake | Changed | Listed) or not callable(signal):
                return signal
            signal()
        self.idle = self.idle + 1 if until <= self.clock.now else 0
        assert self.idle < MOST_IDLE_WAITS, "the loop spins"
        self.clock.now = until
        raise queue.Empty

    def get_nowait(self) -> Event | Wake:
        return self.get(0)

    def empty(self) -> bool:
        return not self.due or self.due[0][0] > self.clock.now


@dataclass
class MemoryWriter:
    """Writes to a kernel in memory.

    Attributes:
        host: What the host is now; `facts` are what was last seen of it.
        failures: What the next writes come to: `lost` writes nothing, `half` one family, empty all; `unread` fails a
            read.
        writes: When something was written, or was tried to be.
        plans: When all was read.
        chains_per_commit: How many chains a call holds; None for one call.
        on_call: Called before each call that writes a part of a large Service.
    """

    clock: Clock
    kernels: dict[Family, Kernel] = field(default_factory=lambda: {family: Kernel() for family in Family})
    failures: deque[str] = field(default_factory=deque)
    writes: list[float] = field(default_factory=list)
    plans: list[float] = field(default_factory=list)
    reconciled: list[float] = field(default_factory=list)
    facts: HostFacts = FACTS
    host: HostFacts = FACTS
    refused: dict[str, str] = field(default_factory=dict)
    drivers: Mapping[str, Driver] = field(default_factory=lambda: DRIVERS)
    commits: int = 0
    known: int = 0
    beside: str = ""
    without_ipv6: HostError | None = None
    tools: None = None
    aside: Mapping[Family, HostError] = field(default_factory=dict)
    unseen: Mapping[Family, HostError] = field(default_factory=dict)
    choice: VariantChoice = field(default_factory=lambda: VariantChoice(Variant.NFT, "for a test"))
    chains_per_commit: int | None = None
    on_call: Callable[[], None] = lambda: None

    def read(self) -> KernelReadout:
        self.plans.append(self.clock.now)
        if self.failures and self.failures[0] == "unread":
            self.failures.popleft()
            raise HostError("the kernel cannot be read")
        return KernelReadout({}, (), self._mark())

    def plan(self, compiled: Compiled, reading: KernelReadout | None = None) -> Plan:
        return self.look(compiled)

    def look(self, compiled: Compiled) -> Plan:
        rulesets = {family: read(self.kernels[family].save(), "kernel", family) for family in self.facts.families}
        return plan_node(compiled, observing(rulesets), self.facts)

    def write(self, plan: Plan) -> int:
        return self._restore(
            {
                f: [r.text for r in script(part.changes, part.desired, comments=part.comments)]
                for f, part in plan.of("iptables").items()
            }
        )

    def write_update(
        self,
        update: Update,
        before: dict[ObjectName, ResolvedService | None],
        between: Callable[[], None] | None = None,
    ) -> int:
        assert before.keys() == update.services.keys()
        texts = {
            f: [r.text for r in script(part.changes, comments=part.comments, chains_per_commit=self.chains_per_commit)]
            for f, part in update.plan.of("iptables").items()
        }
        if between is None:
            return self._restore(texts)
        calls = [(family, text) for family, scripts in texts.items() for text in scripts]
        for family, text in calls:
            self.on_call()
            between()
            self._restore({family: [text]})
        return len(calls)

    def refresh(self) -> frozenset[Address]:
        had, has = ({address for f in Family for address in facts.addresses(f)} for facts in (self.facts, self.host))
        self.facts = dataclasses.replace(self.host, former=self.facts.former | had)
        return frozenset(has - had)

    def reconcile(self, services, nodes) -> int:
        self.reconciled.append(self.clock.now)
        return 0

    def is_untouched(self, mark: KernelRevision) -> bool:
        return mark == self._mark()

    def _mark(self) -> KernelRevision:
        """Tell how often others have written, as far as that can be seen by now."""
        now = self._state()
        self.commits += now != self.known
        self.known = now
        return KernelRevision(self.commits, 0)

    def _state(self) -> int:
        return hash(tuple(kernel.save() for kernel in self.kernels.values()))

    def has_parameters(self, _: object) -> bool:
        return True

    def _restore(self, texts: dict[Family, list[str]]) -> int:
        self.writes.append(self.clock.now)
        failure = self.failures.popleft() if self.failures else ""
        self._mark()
        try:
            return self._executed(texts, failure)
        finally:
            self.known = self._state()

    def _executed(self, texts: dict[Family, list[str]], failure: str) -> int:
        for family in list(texts)[: {"lost": 0, "half": 1}.get(failure, len(texts))]:
            try:
                for text in texts[family]:
                    self.kernels[family].restore(text)
            except RefusedError as error:
                raise HostError(f"refused: {error}") from error
        if failure:
            raise ApplyError(f"the write was {failure}", applied=(), pending=("the rest",))
        return sum(map(len, texts.values()))


@dataclass
class WholeWriter(MemoryWriter):
    """Writes sets, servers and addresses too.

    Attributes:
        node: The kernel of the whole node.
        calls: Of each write of single changes, how many pieces it took.
    """

    node: NodeKernel = field(default_factory=NodeKernel)
    calls: list[int] = field(default_factory=list)

    def look(self, compiled: Compiled) -> Plan:
        return plan_node(compiled, self.node.observed(*self.facts.families), self.facts)

    def write(self, plan: Plan) -> int:
        self.writes.append(self.clock.now)
        pieces = list(self.node.pieces(plan))
        failure = self.failures.popleft() if self.failures else ""
        for piece in pieces[: {"lost": 0, "half": len(pieces) // 2}.get(failure, len(pieces))]:
            piece()
        if failure:
            raise ApplyError(f"the write was {failure}", applied=(), pending=("the rest",))
        return len(pieces)

    def write_update(
        self,
        update: Update,
        before: dict[ObjectName, ResolvedService | None],
        between: Callable[[], None] | None = None,
    ) -> int:
        self.calls.append(self.write(update.plan))
        return self.calls[-1]

    def read(self) -> KernelReadout:
        """Read all; of sets and servers nothing tells whether others write."""
        return super().read()._replace(mark=None)


class Stage:
    """A loop, and all around it."""

    def __init__(
        self,
        *,
        kernels: dict[Family, Kernel] | None = None,
        has_synced: bool = True,
        mode: str = "iptables",
        options: Options = OPTIONS,
        mends: bool = True,
        once: bool = False,
        writer: object = None,
        send_event: Callable[[EventRequest], None] = to_nobody,
        has_health: bool = False,
        needs_node: bool = False,
        node_names: Callable[[], list[str]] = list,
        host_name: Callable[[], str] = str,
        min_sync_s: float = 0.0,
        sync_s: float = 30.0,
        tables: Tables = TABLES,
    ) -> None:
        self.clock = Clock()
        self.signals = Signals(self.clock)
        self.options = msgspec.structs.replace(options, mode=mode)
        self.writer = writer or (MemoryWriter(self.clock) if mode == "iptables" else WholeWriter(self.clock))
        if kernels is not None:
            self.writer.kernels = kernels
        self.state = AgentState(self.clock)
        self.text = io.StringIO()
        self.has_synced = has_synced
        self.ready: list[float] = []
        self.agent_log = AgentLog(out=self.text)
        self.inbox = Inbox(self.state, self.signals)
        self.cluster = SharedCluster()
        self.node = ThisNode(
            self.options.node_name,
            self.cluster,
            self.state,
            self.agent_log,
            must_exist=needs_node,
            node_names=node_names,
            host_name=host_name,
        )
        self.health = ServiceHealth(self.state, self.agent_log) if has_health else None
        self.desired = DesiredServices(self.options, counts=False, cluster=self.cluster, tables=tables)
        self.reports = SyncReports(self.node, self.state, self.agent_log, mends, send_event, self.health)
        self.schedule = Schedule(self.clock, SyncIntervals(min_sync_s, sync_s, quiet_s=0.2))
        self.loop = ServiceSync(
            inbox=self.inbox,
            node=self.node,
            desired=self.desired,
            writer=self.writer,
            schedule=self.schedule,
            reports=self.reports,
            state=self.state,
            log=self.agent_log,
            clock=self.clock,
            has_synced=lambda: self.has_synced,
            mends=mends,
            once=Once() if once else None,
            on_ready=lambda: self.ready.append(self.clock.now),
        )

    def at(self, seconds: float, *signals: Event | Wake | Callable[[], object]) -> None:
        """Have signals come, or something happen, so many seconds after the beginning."""
        self.signals.at(100.0 + seconds, *signals)

    def run(self, seconds: float = 10.0) -> str:
        """Run until it ends by itself, or is told to stop after so many seconds from the beginning."""
        self.at(seconds, Wake("stop"))
        return self.loop.run()

    @property
    def written(self) -> list[float]:
        """When something was written, in seconds from the beginning."""
        return [round(time - 100.0, 3) for time in self.writer.writes]

    @property
    def checked(self) -> list[float]:
        return [round(time - 100.0, 3) for time in self.writer.plans]

    @property
    def log(self) -> list[str]:
        return self.text.getvalue().splitlines()

    def is_right(self) -> bool:
        """Whether the kernel is as the whole, decided and compiled from nothing, wants it."""
        wants = compile_model(
            resolve(self.cluster.objects.world(), self.options, FACTS), self.options.mode, counts=False
        )
        return self.writer.look(wants).is_empty

    def destinations(self, family: Family = Family.IPV4) -> list[str]:
        """Return where rules send packets to."""
        nat = self.writer.kernels[family].tables["nat"]
        rules = [rule for rules in nat.values() for rule in rules]
        return sorted(rule.rpartition(" ")[2] for rule in rules if "-j DNAT" in rule)


def changed(value: KubeObject) -> Changed:
    return Changed(
        type(value),
        Decoded(value, "test"),
        ObjectName(value.metadata.namespace, value.metadata.name),
    )


def listed(kind: type[KubeObject], *objects: KubeObject) -> Listed:
    return Listed(kind, tuple(Decoded(value, "test") for value in objects))


def service(name: str, number: int = 1, *, age: str = "2026-01-01T00:00:00Z", **spec) -> k.Service:
    return k.Service(
        metadata=k.ObjectMeta(name=name, namespace="demo", creation_timestamp=age),
        spec=k.ServiceSpec(
            **{
                "type": "ClusterIP",
                "cluster_ip": f"10.96.0.{number}",
                "cluster_ips": (f"10.96.0.{number}", f"fd00:10:96::{number}"),
                "ip_families": ("IPv4", "IPv6"),
                "ports": (k.ServicePort(name="http", port=80),),
                **spec,
            }
        ),
    )


def endpoints(name: str, *numbers: int, zones: tuple[str, ...] = (), node: str | None = None) -> k.EndpointSlice:
    """Return a slice with an endpoint 10.244.1.N for each number, hinted to a zone where zones are given."""
    hints = [k.EndpointHints(for_zones=(k.ForZone(name=zone),)) for zone in zones] or [None] * len(numbers)
    return k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"{name}-1", namespace="demo", labels={SERVICE_NAME_LABEL: name}),
        address_type="IPv4",
        endpoints=tuple(
            k.SliceEndpoint(
                addresses=(f"10.244.1.{number}",),
                conditions=k.EndpointConditions(ready=True),
                node_name=node,
                **({"hints": hint} if hint else {}),
            )
            for number, hint in zip(numbers, hints, strict=True)
        ),
        ports=(k.SlicePort(name="http", port=8080, protocol="TCP"),),
    )


def node(zone: str = "zone-a") -> k.Node:
    return k.Node(
        metadata=k.ObjectMeta(name=NODE, labels={"topology.kubernetes.io/zone": zone}),
        status=k.NodeStatus(addresses=(k.NodeAddress(type="InternalIP", address="192.168.50.10"),)),
    )
