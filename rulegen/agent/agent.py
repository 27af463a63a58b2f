"""The agent, put together: watch, loop, notices, servers; started and ended in the right order."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.agent.health import ServiceHealth, healthz, livez
from rulegen.agent.loop import Loop, Timing, Wake
from rulegen.agent.metrics import exposition
from rulegen.agent.servers import Reply, Server
from rulegen.agent.site import SiteLoop
from rulegen.agent.state import AgentState
from rulegen.agent.views import model_view, plan_view, rules_view
from rulegen.agent.writer import IdleWriter, KernelWriter
from rulegen.errors import ConfigError, HostError
from rulegen.host import ipvs, nfacct
from rulegen.host.apiwatch import Watch
from rulegen.host.nft_notices import Notice, Notices, Writers
from rulegen.host.runner import run
from rulegen.host.variant import Variant
from rulegen.kube.build import build_world
from rulegen.road import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.journal import Journal
    from rulegen.host.nginx.site import LiveSite
    from rulegen.model.conntrack import Forgetting
    from rulegen.model.facts import HostFacts
    from rulegen.model.options import Options


@dataclass(slots=True)
class Agent:
    """Keeps one node as its cluster wants it.

    Attributes:
        variant: Which iptables was demanded; None leaves it to what is found.
        counts: Whether rules count with nfacct; None for wherever the kernel can.
        mends: Whether rules are written; else nothing is, and what is not as wanted is told.
        once: Whether to end when all is written once.
        services: Whether the rules for Services are kept, too.
        site: Where nginx serves Ingresses; None where they are left alone.
    """

    options: Options
    facts: HostFacts
    variant: Variant | None
    forgetting: Forgetting
    counts: bool | None
    kubeconfig: str | None
    context: str | None
    journal: Journal
    mends: bool
    once: bool
    services: bool
    clock: Callable[[], float]
    site: LiveSite | None = None
    _loop: Loop | None = None
    _early: str = ""
    _cleanup: ExitStack = field(default_factory=ExitStack)

    def wake(self, why: str) -> None:
        """Have it end, or begin anew; called from signal handlers, so it only leaves word."""
        self._early = why
        if self._loop is not None:
            self._loop.signals.put(Wake(why))

    def run(self) -> str:
        """Keep the node so until a wake ends it; return why it ended.

        Raises:
            HostError: It cannot even begin.
        """
        with self._cleanup:
            return self._run()

    def _run(self) -> str:
        if self.services and self.mends and backend_of(self.options.mode).devices:
            ipvs.load(run, (self.options.ipvs_scheduler,))
        writers = Writers()
        writer = (
            KernelWriter.of_host(writers, self.facts, self.variant, self.forgetting, self.options.mode)
            if self.services
            else IdleWriter(self.facts)
        )
        state = AgentState(self.clock, timeout_s=2 * self.options.sync_s)
        node = self.options.node_name or self.facts.hostname
        ready: list[Watch] = []
        loop = self._loop = Loop(
            options=self.options,
            writer=writer,
            state=state,
            journal=self.journal,
            timing=Timing(self.options.min_sync_s, self.options.sync_s),
            counts=bool(nfacct.supported()) if self.counts is None else self.counts,
            clock=self.clock,
            has_synced=lambda: bool(ready) and ready[0].has_synced,
            mends=self.mends,
            once=self.once,
        )
        watch = Watch(
            loop.signals.put,
            kubeconfig=self.kubeconfig,
            context=self.context,
            node=node,
            ingress=self.site is not None,
            warn=self.journal.warning,
        )
        ready.append(watch)
        if self.site is not None:
            self._serve_site(self.site, loop, watch)
        if self.mends and self.services:  # else another proxy has these ports
            loop.health = ServiceHealth(state, self.journal)
            self._cleanup.callback(loop.health.stop)
        self._serve(loop, state)
        if self.services and writer.choice.variant is Variant.NFT:
            self._listen(loop, writers)
        self.journal.info(
            "begins",
            node=node,
            server=watch.url,
            variant=str(writer.choice.variant),
            why=writer.choice.reason,
            drift="mend" if self.mends else "report",
        )
        self._cleanup.callback(watch.stop)
        watch.start()
        loop.on_ready = lambda: tell_systemd("READY=1")
        if self._early:
            return self._early
        why = loop.run()
        tell_systemd("STOPPING=1" if why != "reload" else "RELOADING=1")
        self.journal.info("ends", why=why)
        return why

    def _serve_site(self, live: LiveSite, loop: Loop, watch: Watch) -> None:
        """Serve Ingresses, as soon as the cluster is known, from a thread of their own."""
        options = live.options
        site = SiteLoop(
            live=live,
            snapshot=lambda: build_world(loop.snapshot()),
            watch=watch,
            state=loop.state,
            journal=self.journal,
            clock=self.clock,
            named=(
                frozenset(name for name in (options.default_certificate,) if name),
                frozenset(name for name in (options.config_map,) if name),
            ),
            mends=self.mends,
        )
        loop.on_site = site.touch
        self._cleanup.callback(site.stop)
        loop.on_synced = site.start

    def _listen(self, loop: Loop, writers: Writers) -> None:
        def foreign(notice: Notice | None) -> None:
            if notice is not None:
                loop.state.count("foreign_commits")
            loop.signals.put(Wake("check"))

        try:
            notices = Notices(writers.has, foreign)
        except HostError as error:
            self.journal.warning("foreign changes are noticed late", error=error.message)
            return
        self._cleanup.callback(notices.stop)

    def _serve(self, loop: Loop, state: AgentState) -> None:
        """Tell health and metrics; an address that is taken is told, and is no reason not to keep the rules."""
        told = {"/healthz": lambda: healthz(state), "/livez": lambda: livez(state)}
        views = {
            "/metrics": lambda: Reply(200, exposition(state), "text/plain; version=0.0.4; charset=utf-8"),
            "/proxyMode": lambda: Reply(200, self.options.mode),
            "/healthz": lambda: healthz(state),
            "/plan": lambda: plan_view(loop),
            "/model": lambda: model_view(loop),
            "/rules": lambda: rules_view(loop),
        }
        for address, pages in ((self.options.healthz_address, told), (self.options.metrics_address, views)):
            if not address:
                continue
            host, port = _split(address)
            try:
                server = Server(host, port, pages)
            except HostError as error:
                self.journal.warning("not told", address=address, error=error.message)
                continue
            self._cleanup.callback(server.stop)


def tell_systemd(state: str) -> None:
    """Tell systemd how we are, where it has asked (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        try:
            notify.sendto(state.encode(), address)
        except OSError:  # systemd went on without us: nothing depends on its knowing
            return


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigError(f"{address!r} is not an address and port such as 127.0.0.1:10249")
    return host.strip("[]"), int(port)
