"""The HTTP servers of an agent: health for load balancers and the kubelet, metrics and pages for its own host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rulegen.agent.pages import PATHS, views
from rulegen.agent.pages_server.health import healthz, livez
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import PageServer, RetryingServer
from rulegen.agent.telemetry.counts import RuleCounts
from rulegen.agent.telemetry.events import EventRequest
from rulegen.agent.telemetry.metrics import exposition
from rulegen.errors import HostError
from rulegen.kube.proxyconfig.validation import host_and_port

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from rulegen.agent.ingress.sync import IngressSync
    from rulegen.agent.pages_server.http_loop import HttpLoop
    from rulegen.agent.services.sync import ServiceSync
    from rulegen.agent.telemetry.metric import Metric
    from rulegen.apiserver.watch import Watch
    from rulegen.model.services.options import Options

Pages = dict[str, "Callable[[], Reply]"]


@dataclass(frozen=True, slots=True)
class AgentServers:
    """What the servers answer, and on which addresses.

    Attributes:
        http_loop: Serves the clients of all ports.
        names: Returns the names of this node, in lower case.
        counts_rules: Whether metrics include numbers of rules.
    """

    options: Options
    http_loop: HttpLoop
    names: Callable[[], Collection[str]]
    sync: ServiceSync
    site: IngressSync | None
    watch: Watch
    counts_rules: bool

    def start(self) -> Iterator[RetryingServer]:
        """Start the servers and yield each. If an address is taken, its server tries again; rules are still written.

        Raises:
            HostError: An address is taken and bindAddressHardFail is set.
        """
        state = self.sync.state
        health: Pages = {"/healthz": partial(healthz, state), "/livez": partial(livez, state)}
        if self.options.healthz_address:
            yield self._server(self.options.healthz_address, health, "FailedToStartProxierHealthcheck", probes=True)
        if self.options.metrics_address:
            yield self._server(self.options.metrics_address, self._pages(), "FailedToStartMetricServer", probes=False)

    def _server(self, address: str, pages: Pages, reason: str, *, probes: bool) -> RetryingServer:
        """Return the server for an address; if it is taken, an Event with this reason reports it."""
        host, port = host_and_port(address)

        def serve() -> PageServer:
            return PageServer(host, port, pages, private=PATHS, probes=probes, names=self.names, loop=self.http_loop)

        def taken(error: str) -> None:
            if self.options.bind_hard_fail:
                raise HostError(error, hint="bindAddressHardFail is set, so run ends")
            reports = self.sync.reports
            reports.log.warning("not listening yet", address=address, error=error)
            about = reports.node.reference()
            reports.send_event(EventRequest(about, reason, "Start", f"{error}; retrying"))

        return RetryingServer(serve, taken)

    def _pages(self) -> Pages:
        counts = RuleCounts(self.sync.state)
        return {
            "/metrics": lambda: self._metrics(counts),
            "/proxyMode": lambda: Reply(200, self.options.mode),
            "/healthz": lambda: Reply(200, "ok"),
            **views(self.sync, self.site),
        }

    def _metrics(self, rules: RuleCounts) -> Reply:
        watched = self.watch.counts()
        reasons = Counter[str]()
        for (_, reason), number in watched.errors.items():
            reasons[reason] += number
        metrics = self.sync.state.metrics
        now: dict[Metric, Mapping[str, float]] = {metrics.watch_errors: reasons, metrics.lists: watched.lists}
        if self.counts_rules:
            now |= rules.of(self.sync.desired.compiled())
        return Reply(200, exposition(metrics, now), "text/plain; version=0.0.4; charset=utf-8")
