"""The HTTP servers of an agent: health for load balancers and the kubelet, metrics and pages for its own host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

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


class AnsweredPort(NamedTuple):
    """An address and what is answered there.

    Attributes:
        address: The address and the port.
        pages: The pages, by path; the next agent changes them in place.
        reason: The reason of the Event if the address is taken.
        is_probed: Whether load balancers and the kubelet use it.
    """

    address: str
    pages: Pages
    reason: str
    is_probed: bool


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

    def ports(self) -> Iterator[AnsweredPort]:
        """Yield the addresses, each with its pages."""
        state = self.sync.state
        health: Pages = {"/healthz": partial(healthz, state), "/livez": partial(livez, state)}
        if self.options.healthz_address:
            yield AnsweredPort(self.options.healthz_address, health, "FailedToStartProxierHealthcheck", is_probed=True)
        if self.options.metrics_address:
            pages = self._pages()
            yield AnsweredPort(self.options.metrics_address, pages, "FailedToStartMetricServer", is_probed=False)

    def opened(self, answered: AnsweredPort, names: Callable[[], Collection[str]]) -> RetryingServer:
        """Return the server of an address. If it is taken, the server tries again; rules are still written.

        Args:
            answered: The address and its pages.
            names: Returns the names of this node, also those of a later configuration.

        Raises:
            HostError: The address is taken and bindAddressHardFail is set.
        """
        address, pages, reason, probes = answered
        host, port = host_and_port(address)
        loop = self.http_loop  # the server outlasts this agent, whose rules are not to stay in memory

        def serve() -> PageServer:
            return PageServer(host, port, pages, private=PATHS, probes=probes, names=names, loop=loop)

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
