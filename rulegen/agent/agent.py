"""The agent as a whole: each part is created once, after the parts that it depends on, and stopped before them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.following import ApiAccess, CachedCluster, FollowedCluster, Following
from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.kept import KeptParts
from rulegen.agent.notices import KernelNotices
from rulegen.agent.pages_server.health import ServiceHealth
from rulegen.agent.runtime.conntrack_sysctls import set_conntrack_parameters
from rulegen.agent.runtime.locks import AgentLocks
from rulegen.agent.runtime.memory import enable_gc, limit_arenas
from rulegen.agent.runtime.systemd import Watchdog, notify_systemd
from rulegen.agent.runtime.waiting import WaitReports
from rulegen.agent.servers import AgentServers
from rulegen.agent.services.desired import DesiredServices
from rulegen.agent.services.reports import SyncReports
from rulegen.agent.services.schedule import Schedule, SyncIntervals
from rulegen.agent.services.sync import Once, ServiceSync
from rulegen.agent.starting import first_dataplane, log_start
from rulegen.agent.status.setup import Publishing, publishers_of
from rulegen.agent.telemetry.events import EventRequest, Recorder, to_nobody
from rulegen.agent.this_node import ThisNode, names_of
from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.objects import ApiObjects
from rulegen.compiler.tables import TABLES, Tables
from rulegen.errors import HostError
from rulegen.host.commands.prestarted import Standby
from rulegen.host.commands.runner import run
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.idle import IdleDataplane
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.host.ipvs import servers
from rulegen.host.netfilter import nfacct
from rulegen.host.netfilter.iptables import asks_late
from rulegen.host.netfilter.nft_commits import Writers
from rulegen.host.netfilter.variant import Variant
from rulegen.host.node.facts import hostname, refreshed
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.agent.inbox import Inbox
    from rulegen.agent.status.publisher import Publisher
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.ingress.engine import AnyEngine
    from rulegen.host.dataplane.dataplane import Dataplane
    from rulegen.host.dataplane.driver import Driver, ProgramNotices
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.options import Options
    from rulegen.model.services.stale_flows import StaleUdpPolicy

    StartedLate = Publisher | ProgramNotices

DRAIN_S = 250.0
"""Time for nginx to stop: its workers give up after worker-shutdown-timeout, 240 s by default."""


class _AgentParts(NamedTuple):
    """The parts of one run."""

    followed: FollowedCluster
    sync: ServiceSync
    site: IngressSync | None
    publishers: list[Publisher]


@dataclass(slots=True)
class Agent:
    """Keeps the rules of one node up to date.

    Attributes:
        variant: The requested iptables variant; None to choose one.
        counts: Whether rules have nfacct counters; None: if the kernel supports them.
        mends: Whether differences are written; otherwise they are only reported.
        once: Whether to end after everything was written once.
        timeout_s: With `once`, how long to wait for the API server.
        services: Whether the rules of Services are managed.
        allow_unknown_node: Whether rules are written while the cluster has no Node object of this name.
        site: The engine that serves Ingresses; None if Ingresses are not served.
        drains: Whether the ingress engine finishes its requests and stops with the agent; otherwise it keeps running.
        locks: Taken for the life of the process, so that one agent keeps one part of the node.
        events: Whether Kubernetes Events are sent.
        endpoints_from: Where endpoints of Services come from.
        publishing: What is published about this node.
        known: The last known objects of the previous agent, and at the end those for the next one. None for nothing.
        kept: What the previous agent has handed over.
        can_reload: Called before a reload; returns whether the new configuration is valid.
        follows_host: Whether changes of the host are followed; False if a file describes the host.
        terms: Limits for answers of the API server and for the kubeconfig.
        tables: The known languages and backends.
        drivers: The driver of each language, which reads and writes it.
        metrics_hosts: Host names with which metrics can be requested, in addition to the node's names.
        on_stopped: Called when nothing more is written.
        parts: What the next agent gets.
        state: The state of the agent.
        inbox: Events and wake-ups for the thread that runs the agent.
    """

    options: Options
    facts: HostFacts
    variant: Variant | None
    stale_udp: StaleUdpPolicy
    counts: bool | None
    kubeconfig: str | None
    context: str | None
    log: AgentLog
    mends: bool
    once: bool
    services: bool
    clock: Callable[[], float]
    terms: ApiTerms = field(default_factory=ApiTerms)
    timeout_s: float = 60.0
    allow_unknown_node: bool = False
    site: AnyEngine | None = None
    drains: bool = True
    locks: AgentLocks = field(default_factory=AgentLocks)
    events: bool = True
    endpoints_from: EndpointsFrom = EndpointsFrom.SLICES
    publishing: Publishing = field(default_factory=lambda: Publishing(ingresses=False))
    known: CachedCluster | None = None
    kept: KeptParts | None = None
    can_reload: Callable[[], bool] = lambda: True
    follows_host: bool = True
    metrics_hosts: tuple[str, ...] = ()
    tables: Tables = TABLES
    drivers: Mapping[str, Driver] = field(default_factory=lambda: DRIVERS)
    on_stopped: Callable[[], None] = lambda: None
    parts: KeptParts = field(init=False)
    state: AgentState = field(init=False)
    inbox: Inbox = field(init=False)
    _syncs: bool = False

    def __post_init__(self) -> None:
        self.parts = self.kept or KeptParts.new(self.clock)
        self.state, self.inbox = self.parts.state, self.parts.inbox
        self.state.timeout_s = 2 * self.options.sync_s

    def wake_up(self, why: str = "") -> None:
        """End the wait for events.

        Args:
            why: `stop` or `reload` to end; empty to let the thread handle a pending signal.
        """
        self.inbox.wake_up(why)
        if why == "stop" and self._syncs:
            WAITS.refuse()

    def run(self) -> str:
        """Keep the node up to date until a wake-up ends the run.

        Returns:
            Why the run ended: `stop`, `reload` or `once`.

        Raises:
            HostError: The agent cannot start, or `once` failed.
        """
        limit_arenas()
        enable_gc()
        self.locks.take(self.log)
        why = ""
        with ExitStack() as last:
            last.callback(lambda: self.parts.close() if why != "reload" else None)
            with ExitStack() as cleanup:
                waits = WaitReports(self.log)
                cleanup.callback(waits.stop)
                waits.start()
                parts = self._built(cleanup)
                why = self._run(parts, cleanup)
        if self.known is not None:
            parts.sync.apply_rest()
        return why

    def _run(self, parts: _AgentParts, cleanup: ExitStack) -> str:
        """Start all parts, and run until a wake-up.

        Raises:
            HostError: The run failed.
        """
        followed, sync = parts.followed, parts.sync
        writes_rules = self.mends and self.services
        log_start(self.log, sync, followed.watch.url, serves_ingresses=self.site is not None, writes_rules=writes_rules)
        followed.start()
        watchdog = Watchdog(lambda: self.state.is_working)
        cleanup.callback(watchdog.stop)
        watchdog.start()
        self._syncs = True
        try:
            while (why := sync.run()) == "reload" and not self.can_reload():
                pass
        finally:
            self._syncs = False
        desired = sync.desired
        self.parts.tools = sync.writer.tools
        self.known = CachedCluster(followed.followed, desired.cluster, desired.known) if followed.has_synced() else None
        if why == "late":
            raise HostError(
                f"timed out after {self.timeout_s:g} s: {followed.lacking(self.state)}",
                hint="use --timeout to wait longer",
            )
        notify_systemd("STOPPING=1" if why != "reload" else "RELOADING=1")
        if why == "reload":
            self.state.changed()  # if the next agent does not write in time, the node becomes unhealthy
        self.log.info("stopped", why=why)
        if why == "stop":
            self._leave(parts.publishers, parts.site)
        return why

    def _built(self, cleanup: ExitStack) -> _AgentParts:
        """Create all parts, and register with `cleanup` how to stop them in reverse order.

        Raises:
            HostError: A part cannot be created.
        """
        writers, writer = self._writer(cleanup)
        kept = self.parts
        followed = kept.followed = self._followed()
        cached = followed.cached
        cluster = cached.cluster if cached is not None else SharedCluster(self.endpoints_from, self._node_name)
        node = self._this_node(cluster, followed)
        counts = bool(nfacct.supported()) if self.counts is None else self.counts
        known = cached.node if cached is not None else None
        desired = DesiredServices(self.options, counts, cluster, known, self.tables, serves=self.services)
        kept.send_with(self._send_event(node, followed, cleanup))
        if self.mends and self.services and kept.health is None:  # otherwise another proxy uses these ports
            kept.health = ServiceHealth(
                self.state, self.log, send_event=kept.send_event, names=kept.names, http_loop=kept.http_loop
            )
        reports = SyncReports(node, self.state, self.log, self.mends, kept.send_event, kept.health)
        served = threading.Event()
        site = self._site(self.site, reports, followed, served) if self.site is not None else None
        if site is not None:
            cleanup.callback(site.stop)
        publishers: list[Publisher] = []
        if self.mends and not self.once:
            publishers = publishers_of(self.publishing, followed.watch, reports, self.clock, site, served)
        for publisher in publishers:
            cleanup.callback(publisher.stop, for_good=False)  # not temporary: see `_leave`
        notices = KernelNotices(self.inbox, reports, site if site is None else site.look_at_host)
        languages = self.tables.backend(self.options.mode).all_languages
        programs = notices.of_programs(languages, cleanup) if self.services and self.mends and not self.once else []
        sync = self._sync(followed, desired, writer, reports, site, (*programs, *publishers))
        answered = AgentServers(
            options=self.options,
            http_loop=kept.http_loop,
            names=lambda: self._names(desired),
            sync=sync,
            site=site,
            watch=followed.watch,
            counts_rules=self.services,
        )
        kept.answer(answered)
        if self.services and writer.choice.variant is Variant.NFT:
            cleanup.callback(notices.follow_commits(writers))
        if self.follows_host and (self.services or site is not None):
            cleanup.callback(notices.follow_addresses(wakes_sync=self.services))
        return _AgentParts(followed, sync, site, publishers)

    def _writer(self, cleanup: ExitStack) -> tuple[Writers, Dataplane]:
        """Return the programs that write rules, and the dataplane that uses them.

        Raises:
            HostError: This user may not read the rules; with `once`, also if iptables or a requested IPVS is missing.
        """
        standby = Standby(asks_late)
        cleanup.callback(standby.stop)
        writers = Writers(standby.run_noting)
        if not self.services:
            return writers, IdleDataplane(self.facts)

        def of_host(patience_s: float) -> KernelDataplane:
            if self.mends and self.options.needs.has_virtual_servers:
                servers.load(run, (self.options.ipvs_scheduler,))
            return KernelDataplane.of_host(
                *(writers, self.facts, self.variant, self.stale_udp, self.options),
                tables=self.tables,
                drivers=self.drivers,
                on_forgotten=self.state.reconciled,
                on_aside=self.state.lacks,
                look=refreshed if self.follows_host else lambda facts: facts,
                known=self.parts.tools,
                patience_s=patience_s,
            )

        return writers, first_dataplane(of_host, self.facts, self.state, self.inbox, waits=not self.once)

    def _followed(self) -> FollowedCluster:
        """Return the watched cluster.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        before = self.parts.followed
        if before is not None:
            if self.known is not None and before.is_same(self.known, self._following()):
                return before
            before.watch.stop()
        late = f"; timeout {self.timeout_s:g} s" if self.once else ""
        kept = f"this node {'keeps the rules for' if self.mends else 'is compared with'} the last known objects"
        return FollowedCluster(
            ApiAccess(self.kubeconfig, self.context, self.terms),
            self.inbox,
            self.log,
            following=self._following(),
            cached=self.known,
            during_outage=(f"nothing is written before all lists were received{late}", kept),
        )

    def _following(self) -> Following:
        has_selector = self.site is not None and self.site.options.selection.namespace_selector is not None
        followed = Following(self._node_name, self.site is not None, has_selector, self.endpoints_from)
        return followed.of_services(self.options) if self.services else followed.of_ingresses()

    def _this_node(self, cluster: SharedCluster, followed: FollowedCluster) -> ThisNode:
        return ThisNode(
            self._node_name,
            cluster,
            self.state,
            self.log,
            must_exist=self.services and not self.allow_unknown_node and not (followed.cached and followed.cached.node),
            node_names=followed.node_names,
            host_name=hostname if self.follows_host and not self.options.node_name else str,
        )

    def _send_event(
        self, node: ThisNode, followed: FollowedCluster, cleanup: ExitStack
    ) -> Callable[[EventRequest], None]:
        """Return the function that sends Events to users."""
        if not self.events:
            return to_nobody
        recorder = Recorder(ApiObjects(followed.watch.link), node.name, self.state, self.log, self.clock)
        cleanup.callback(recorder.stop)
        recorder.start()
        return recorder.send_event

    def _site(
        self, live: AnyEngine, reports: SyncReports, followed: FollowedCluster, served: threading.Event
    ) -> IngressSync:
        """Return the part that serves Ingresses, which has a thread of its own."""
        cluster = reports.node.cluster
        return IngressSync(
            live=live,
            snapshot=cluster.for_ingresses,
            watch=followed.watch,
            state=self.state,
            log=self.log,
            clock=self.clock,
            cluster=cluster,
            known=live.known_objects(writes=self.mends),
            mends=self.mends,
            period_s=self.options.sync_s,
            announce=reports.drift_event,
            tell=reports.send_event,
            forget=self.inbox.on_event,
            about=reports.node.reference,
            is_alone=not self.services,
            claim=self.locks.take_site,
            on_served=served.set,
        )

    def _sync(
        self,
        followed: FollowedCluster,
        desired: DesiredServices,
        writer: Dataplane,
        reports: SyncReports,
        site: IngressSync | None,
        late: Sequence[StartedLate],
    ) -> ServiceSync:
        def on_ready() -> None:
            self._on_ready(desired, writer, reports, late)

        once = Once(
            give_up_at=self.clock() + self.timeout_s,
            lacks=lambda: followed.lacking(self.state),
            is_done=lambda: site is None or (site.site is not None and (site.served is not None or not self.mends)),
        )
        return ServiceSync(
            inbox=self.inbox,
            node=reports.node,
            desired=desired,
            writer=writer,
            schedule=Schedule(self.clock, SyncIntervals(self.options.min_sync_s, self.options.sync_s)),
            reports=reports,
            state=self.state,
            log=self.log,
            clock=self.clock,
            has_synced=followed.has_synced,
            mends=self.mends,
            once=once if self.once else None,
            on_site=site.on_change if site is not None else lambda _: None,
            on_synced=site.start if site is not None else lambda: None,
            on_ready=on_ready,
        )

    def _on_ready(
        self, desired: DesiredServices, writer: Dataplane, reports: SyncReports, late: Sequence[StartedLate]
    ) -> None:
        """Report that all rules are written, and start the parts that depend on this."""
        notify_systemd("READY=1")
        what = f"rules for {len(desired.services())} Services" if self.services else "no rules for Services"
        kept = "writes" if self.once else "keeps" if self.mends else "watches"
        note = f"rulegen {kept} {what} on this node"
        reports.send_event(EventRequest(reports.node.reference(), "Starting", "Start", note, is_warning=False))
        if self.mends and self.services:
            writer.refused |= set_conntrack_parameters(self.options, self.log)
            reports.refused_parameters(writer.refused)
        for part in late:
            part.start()

    def _leave(self, publishers: list[Publisher], site: IngressSync | None) -> None:
        """Tell load balancers to stop, then let nginx finish its requests; health checks are answered meanwhile."""
        self.state.ends()
        for publisher in publishers:
            publisher.stop(for_good=True)
        is_over = site is None or site.stop(for_good=True)
        WAITS.end_all()  # of other threads, such as a tool that makes a page
        WAITS.refuse(are_refused=False)
        if site is not None and is_over:
            site.write_rest()
        self.on_stopped()
        if site is None or self.site is None or not (self.mends and self.drains and self.locks.may_drain):
            return
        if not is_over:
            self.log.error(f"{self.site.name} keeps running, because a wait in its folder cannot be ended")
            return
        began = self.clock()
        try:
            in_time = self.site.drain(DRAIN_S)
        except HostError as error:
            self.log.error(f"{self.site.name} did not finish its requests in time", error=error.message)
        else:
            self.log.info(f"{self.site.name} drained", seconds=round(self.clock() - began, 3), in_time=in_time)

    @property
    def _node_name(self) -> str:
        return self.options.node_name or self.facts.hostname

    def _names(self, desired: DesiredServices) -> frozenset[str]:
        """Return the lower-case names of this node: its own, the host's, those in its status, and configured ones."""
        return names_of(desired.known, (self.options.node_name, self.facts.hostname, *self.metrics_hosts))
