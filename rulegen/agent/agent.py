"""The agent, put together: watch, loop, notices, servers; started and ended in the right order."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.pages import PATHS, views
from rulegen.agent.pages_server.health import ServiceHealth, healthz, livez
from rulegen.agent.pages_server.http_loop import HttpLoop
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import PageServer, RetryingServer
from rulegen.agent.runtime.memory import enable_gc, limit_arenas
from rulegen.agent.runtime.systemd import Watchdog, tell_systemd
from rulegen.agent.services.conntrack_sysctls import tune
from rulegen.agent.services.dataplane import IdleWriter, KernelWriter
from rulegen.agent.services.sync import Loop, SyncIntervals, Wake
from rulegen.agent.status.setup import Publishing, publishers_of
from rulegen.agent.telemetry.counts import RuleCounts
from rulegen.agent.telemetry.events import EventRequest, Recorder
from rulegen.agent.telemetry.metrics import exposition
from rulegen.agent.telemetry.state import AgentState
from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.lists import read_nodes
from rulegen.apiserver.objects import ApiObjects
from rulegen.apiserver.transport import account_token
from rulegen.apiserver.watching.watch import Watch
from rulegen.compiler.services.compile import backend_of
from rulegen.errors import HostError
from rulegen.host.commands.prestarted import Standby
from rulegen.host.commands.runner import run
from rulegen.host.ipvs import servers
from rulegen.host.netfilter import nfacct, xtables_lock
from rulegen.host.netfilter.iptables import asks_late
from rulegen.host.netfilter.nft_commits import NftCommit, NftCommits, Writers
from rulegen.host.netfilter.variant import Variant
from rulegen.host.nginx.disk.last_read import KnownObjects
from rulegen.host.node.facts import hostname
from rulegen.host.node.interfaces import AddressNotices
from rulegen.kube.proxyconfig.validation import host_and_port
from rulegen.kube.snapshot.build import build_world

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.agent.cluster import SharedCluster
    from rulegen.agent.status.publisher import Publisher
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.metric import Metric
    from rulegen.apiserver.watching.outage import OutageNotice as ServerNotice
    from rulegen.host.nginx.deployment import NginxDeployment
    from rulegen.kube.objects.structs import Node
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.options import Options
    from rulegen.model.services.stale_flows import StaleUdpPolicy


SHOWN = 5
"""So many of what was not read are named."""
DRAIN_S = 250.0
"""How long nginx may take to end: its workers give up after worker-shutdown-timeout, 240 s by default."""


class CachedCluster(NamedTuple):
    """The cluster as an agent knew it when it ended; the one after it goes on from there until it has asked itself.

    Attributes:
        followed: What was asked for, of which server: by it is told whether another one would have asked for the same.
        cluster: All objects.
        node: The Node object that rules were decided with, which may be gone from the cluster.
    """

    followed: tuple[object, ...]
    cluster: SharedCluster
    node: Node | None


@dataclass(slots=True)
class Agent:
    """Keeps one node as its cluster wants it.

    Attributes:
        variant: Which iptables was demanded; None leaves it to what is found.
        counts: Whether rules count with nfacct; None for wherever the kernel can.
        mends: Whether rules are written; else nothing is, and what is not as wanted is told.
        once: Whether to end when all is written once.
        timeout_s: With `once`, how long to wait for what does not come.
        services: Whether the rules for Services are kept, too.
        allow_unknown_node: Whether rules are written also while the cluster does not know this node.
        site: Where nginx serves Ingresses; None where they are left alone.
        drains: Whether nginx ends with it, once it has answered what it was asked; else it serves on.
        events: Whether users are told by events.
        publishing: What is published of this node.
        known: What the one before it has left; at the end, what it leaves to the next. None for nothing.
        can_reload: Asked before it ends for another one to begin, which may not be able to.
        follows_host: Whether changes of the host are followed; not where a file says what the host is.
        terms: What the API server's answers may cost, and the kubeconfig may do.
        metrics_hosts: By which names, beside the node's own, metrics may be asked for.
    """

    options: Options
    facts: HostFacts
    variant: Variant | None
    forgetting: StaleUdpPolicy
    counts: bool | None
    kubeconfig: str | None
    context: str | None
    journal: AgentLog
    mends: bool
    once: bool
    services: bool
    clock: Callable[[], float]
    terms: ApiTerms = field(default_factory=ApiTerms)
    timeout_s: float = 60.0
    allow_unknown_node: bool = False
    site: NginxDeployment | None = None
    drains: bool = True
    events: bool = True
    publishing: Publishing = field(default_factory=lambda: Publishing(ingresses=False))
    known: CachedCluster | None = None
    can_reload: Callable[[], bool] = lambda: True
    follows_host: bool = True
    metrics_hosts: tuple[str, ...] = ()
    _loop: Loop | None = None
    _early: str = ""
    _cleanup: ExitStack = field(default_factory=ExitStack)

    def wake(self, why: str) -> None:
        """Have it end, or begin anew; called from signal handlers, so it only leaves word."""
        if self._early != "stop":
            self._early = why
        if self._loop is not None:
            self._loop.signals.put(Wake(why))

    def rouse(self) -> None:
        """Have its wait end, so that its thread takes a signal that came; for any thread."""
        if self._loop is not None:
            self._loop.signals.put(Wake(""))

    def run(self) -> str:
        """Keep the node so until a wake ends it; return why it ended.

        Raises:
            HostError: It cannot even begin.
        """
        limit_arenas()
        enable_gc()
        with self._cleanup:
            why = self._run()
        if self._loop is not None and self.known is not None:
            self._loop.take_rest()
        return why

    def _run(self) -> str:
        if self.services and self.mends and backend_of(self.options.mode).devices:
            servers.load(run, (self.options.ipvs_scheduler,))
        standby = Standby(asks_late)
        self._cleanup.callback(standby.stop)
        writers = Writers(standby.run_noting)
        writer = self._writer(writers)
        state = AgentState(self.clock, timeout_s=2 * self.options.sync_s)
        writer.on_forgotten = state.reconciled
        node = self.options.node_name or self.facts.hostname
        ready: list[Watch] = []
        known: CachedCluster | None = None
        loop = self._loop = Loop(
            options=self.options,
            writer=writer,
            state=state,
            journal=self.journal,
            timing=SyncIntervals(self.options.min_sync_s, self.options.sync_s),
            counts=bool(nfacct.supported()) if self.counts is None else self.counts,
            clock=self.clock,
            has_synced=lambda: known is not None or (bool(ready) and ready[0].has_synced),
            mends=self.mends,
            once=self.once,
            needs_node=self.services and not self.allow_unknown_node,
            node_names=self._node_names,
            host_name=hostname if self.follows_host and not self.options.node_name else str,
        )
        namespaces = self.site is not None and self.site.options.selection.namespace_selector is not None
        watch = self._watch(loop, node, namespaces=namespaces)
        followed = (watch.url, node, self.site is not None, namespaces)
        if self.known is not None and self.known.followed == followed:
            known = self.known
            loop.cluster, loop.known = known.cluster, known.node
            loop.needs_node &= known.node is None
        ready.append(watch)
        self._cleanup.callback(watch.stop)
        objects = ApiObjects(watch.link)
        if self.events:
            recorder = Recorder(objects, node, state, self.journal, self.clock)
            self._cleanup.callback(recorder.stop)
            recorder.start()
            loop.tell = recorder.tell
        site = self._serve_site(self.site, loop, watch) if self.site is not None else None
        publishers = publishers_of(self.publishing, watch, loop, site) if self.mends and not self.once else []
        for one in publishers:
            self._cleanup.callback(one.stop, for_good=False)  # for good: see `_leave`
        self._serve(loop, state, watch, site)
        self._listen(loop, writers, writer.choice.variant, site)
        self._tell_beginning(node, watch, writer)
        watch.start()
        loop.on_ready = lambda: self._on_ready(loop, publishers)
        watchdog = Watchdog(lambda: state.is_working)
        self._cleanup.callback(watchdog.stop)
        watchdog.start()
        while (why := self._early or loop.run()) == "reload" and not self.can_reload():
            self._early = ""  # an end that comes just now is among the loop's signals, too
        self.known = CachedCluster(followed, loop.cluster, loop.known) if loop.has_synced() else None
        if why == "late":
            raise HostError(
                f"gave up after {self.timeout_s:g} s: {_lacking(watch, state)}", hint="--timeout has it wait for longer"
            )
        tell_systemd("STOPPING=1" if why != "reload" else "RELOADING=1")
        self.journal.info("ends", why=why)
        if why == "stop":
            self._leave(state, publishers, site)
        return why

    def _watch(self, loop: Loop, node: str, *, namespaces: bool) -> Watch:
        """Return what follows the cluster for a loop."""
        watch = Watch(
            loop.hear,
            kubeconfig=self.kubeconfig,
            context=self.context,
            terms=self.terms,
            waiting=loop.signals.qsize,
            node=node,
            ingress=self.site is not None,
            namespaces=namespaces,
            warn=self.journal.warning,
            notice=self._note,
            meanwhile=lambda: self._meanwhile(loop),
        )
        loop.lacks = lambda: _lacking(watch, loop.state)
        loop.give_up_at = self.clock() + self.timeout_s
        return watch

    def _note(self, notice: ServerNotice) -> None:
        """Log what a person must know of the API server."""
        log = self.journal.info if notice.is_well else self.journal.warning
        log(notice.message, **notice.fields)

    def _meanwhile(self, loop: Loop) -> str:
        """Return what goes on while the API server is away."""
        if not loop.has_synced():
            late = f"; gives up after {self.timeout_s:g} s" if self.once else ""
            return f"nothing is written before every list has come{late}"
        return "this node is kept as it was last known" if self.mends else "this node is compared with what was known"

    def _node_names(self) -> list[str]:
        """Return the names of the Nodes that there are; none where they cannot be listed."""
        try:
            return read_nodes(self.kubeconfig, self.context, self.terms)
        except HostError as error:
            self.journal.warning("the Nodes cannot be listed", error=error.message)
            return []

    def _writer(self, writers: Writers) -> KernelWriter:
        """Return what reads and writes the kernel."""
        if not self.services:
            return IdleWriter(self.facts)
        writer = KernelWriter.of_host(writers, self.facts, self.variant, self.forgetting, self.options)
        if not self.follows_host:
            writer.look = lambda facts: facts
        return writer

    def _tell_beginning(self, node: str, watch: Watch, writer: KernelWriter) -> None:
        self.journal.info(
            "begins",
            node=node,
            server=watch.url,
            variant=str(writer.choice.variant),
            why=writer.choice.reason,
            drift="mend" if self.mends else "report",
        )
        missing = writer.without_ipv6
        if missing is not None:
            self.journal.warning("IPv6 is left alone until it begins anew", error=missing.message, hint=missing.hint)
        exposed = account_token.exposure() if self.site is not None else ""
        if exposed:
            self.journal.warning(exposed)
        if self.mends and self.services:
            # Also where we write to nf_tables: the kubelet and others may write legacy rules.
            caution = xtables_lock.close_to_others(make=writer.choice.variant is Variant.LEGACY)
            if caution:
                self.journal.warning(caution)

    def _leave(self, state: AgentState, publishers: list[Publisher], site: IngressSync | None) -> None:
        """Have clients go elsewhere, and then nginx finish what it has begun; health is told meanwhile."""
        state.ends()
        for one in publishers:
            one.stop(for_good=True)
        if site is None or self.site is None or not (self.mends and self.drains):
            return
        site.stop()
        began = self.clock()
        try:
            in_time = self.site.service.drain(DRAIN_S)
        except HostError as error:
            self.journal.error("nginx was not drained", error=error.message)
        else:
            self.journal.info("nginx drained", seconds=round(self.clock() - began, 3), in_time=in_time)

    def _on_ready(self, loop: Loop, publishers: list[Publisher]) -> None:
        """Tell that it works, and begin to do what only a node may that has all rules."""
        tell_systemd("READY=1")
        what = f"rules for {len(loop.compiled_services())} Services" if self.services else "no rules for Services"
        kept = "writes" if self.once else "keeps" if self.mends else "watches"
        loop.tell(
            EventRequest(loop.reference(), "Starting", "Start", f"rulegen {kept} {what} on this node", is_warning=False)
        )
        if self.mends and self.services:
            tune(loop)
        for one in publishers:
            one.start()

    def _serve_site(self, live: NginxDeployment, loop: Loop, watch: Watch) -> IngressSync:
        """Serve Ingresses, as soon as the cluster is known, from a thread of their own."""
        site = IngressSync(
            live=live,
            snapshot=lambda: build_world(loop.cluster.snapshot()),
            watch=watch,
            state=loop.state,
            journal=self.journal,
            clock=self.clock,
            cluster=loop.cluster,
            known=KnownObjects(live.service.folder, writes=self.mends),
            mends=self.mends,
            period_s=self.options.sync_s,
            announce=loop.announce_damage,
            tell=loop.tell,
            forget=loop.hear,
            about=loop.reference,
            is_alone=not self.services,
        )
        loop.is_done = lambda: site.site is not None and (site.served is not None or not self.mends)
        loop.on_site = site.touch
        self._cleanup.callback(site.stop)
        loop.on_synced = site.start
        return site

    def _listen(self, loop: Loop, writers: Writers, variant: Variant, site: IngressSync | None) -> None:
        """Have the kernel say when others change rules, and when addresses come and go; else each period finds it."""

        def foreign(notice: NftCommit | None) -> None:
            if notice is not None:
                loop.state.metrics.foreign_commits.add()
            loop.signals.put(Wake("check"))

        if self.services and variant is Variant.NFT:
            try:
                self._cleanup.callback(NftCommits(writers.has, foreign).stop)
            except HostError as error:
                self.journal.warning("foreign changes are noticed late", error=error.message)

        def changed() -> None:
            if self.services:
                loop.signals.put(Wake("host"))
            if site is not None:
                site.look_at_host()

        if self.follows_host and (self.services or site is not None):
            try:
                self._cleanup.callback(AddressNotices(changed).stop)
            except HostError as error:
                self.journal.warning("changes of addresses are noticed late", error=error.message)

    def _names(self, loop: Loop) -> frozenset[str]:
        """Return the names of this node, in lower case: its own, the host's, those in its status, and chosen ones."""
        node = loop.known
        published = node.status.addresses if node is not None else ()
        names = {self.options.node_name, self.facts.hostname, *(address.address for address in published)}
        return frozenset(name.lower() for name in (*names, *self.metrics_hosts) if name)

    def _serve(self, loop: Loop, state: AgentState, watch: Watch, site: IngressSync | None) -> None:
        """Tell health and metrics; an address that is taken is told, and is no reason not to keep the rules."""
        http_loop = HttpLoop(state.metrics.clients_cut.add)
        if self.mends and self.services:  # else another proxy has these ports
            names = partial(self._names, loop)
            loop.health = ServiceHealth(state, self.journal, tell=loop.tell, names=names, http_loop=http_loop)
            self._cleanup.callback(loop.health.stop)
        rules = RuleCounts(state)
        told = {"/healthz": lambda: healthz(state), "/livez": lambda: livez(state)}

        def metrics() -> Reply:
            counts = watch.counts()
            reasons = Counter[str]()
            for (_, reason), number in counts.errors.items():
                reasons[reason] += number
            now: dict[Metric, Mapping[str, float]] = dict(rules.of(loop.compiled()) if self.services else {})
            now |= {state.metrics.watch_errors: reasons, state.metrics.lists: counts.lists}
            text = exposition(state.metrics, now)
            return Reply(200, text, "text/plain; version=0.0.4; charset=utf-8")

        shown = {
            "/metrics": metrics,
            "/proxyMode": lambda: Reply(200, self.options.mode),
            "/healthz": lambda: Reply(200, "ok"),
            **views(loop, site),
        }
        for address, pages, reason, probes in (
            (self.options.healthz_address, told, "FailedToStartProxierHealthcheck", True),
            (self.options.metrics_address, shown, "FailedToStartMetricServer", False),
        ):
            if not address:
                continue
            host, port = host_and_port(address)

            def serve(
                host: str = host,
                port: int = port,
                pages: Mapping[str, Callable[[], Reply]] = pages,
                *,
                probes: bool = probes,
            ) -> PageServer:
                names = partial(self._names, loop)
                return PageServer(host, port, pages, private=PATHS, probes=probes, names=names, loop=http_loop)

            def taken(error: str, address: str = address, reason: str = reason) -> None:
                if self.options.bind_hard_fail:
                    raise HostError(error, hint="bindAddressHardFail asks for an end then")
                self.journal.warning("not told yet", address=address, error=error)
                loop.tell(EventRequest(loop.reference(), reason, "Start", f"{error}; it is tried again"))

            self._cleanup.callback(RetryingServer(serve, taken).stop)


def _lacking(watch: Watch, state: AgentState) -> str:
    """Return what an agent waits for that comes from elsewhere, for people; empty for nothing."""
    unanswered = watch.unanswered()
    if not unanswered:
        return state.last_error
    trouble = next(iter(watch.counts().troubles.values()), f"{watch.url}: no answer in time")
    more = f" and {len(unanswered) - SHOWN} more" if len(unanswered) > SHOWN else ""
    return f"{trouble}; not read: {', '.join(unanswered[:SHOWN])}{more}"
