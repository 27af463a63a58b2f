"""`rulegen run`: watch the cluster and keep a node's rules up to date."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from rulegen.cli.options.common import ALLOW_UNKNOWN_NODE, CliOptions, input_options, no_services_option, variant_option
from rulegen.cli.options.ingress import ChosenIngress, ObjectNameType, ingress_options
from rulegen.cli.options.old_flags import IngressCommand
from rulegen.cli.options.publishing import chosen_publishing
from rulegen.cli.wiring.guarding import guarded, owner_option
from rulegen.cli.wiring.ingress import IngressInputs
from rulegen.cli.wiring.inputs import Inputs
from rulegen.errors import ConfigError, RulegenError
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.proxyconfig.durations import parse_duration
from rulegen.kube.proxyconfig.validation import host_and_port
from rulegen.kube.syntax import is_subdomain
from rulegen.model.services.node.openings import openings
from rulegen.model.services.stale_flows import StaleUdpPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rulegen.agent.agent import Agent
    from rulegen.agent.runtime.locks import AgentLocks
    from rulegen.agent.status.setup import Publishing
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.compiler.ingress.engine import AnyEngine


NOT_RELOADED: Final = "configuration not reloaded: the old one stays in use"


_ABOUT_STATUS: Final = (
    "update_status_on_shutdown",
    "publish_status_address",
    "publish_service",
    "report_node_internal_ip_address",
    "lease_namespace",
)


@click.command("run", cls=IngressCommand, about_ingresses=("keep_serving", "update_status"), about_status=_ABOUT_STATUS)
@input_options
@variant_option
@ingress_options()
@no_services_option
@click.option(
    "--health-address", metavar="ADDRESS:PORT", help="Address of /healthz and /livez.  [default: 0.0.0.0:10256]"
)
@click.option(
    "--metrics-address",
    metavar="ADDRESS:PORT",
    help="Address of /metrics and the status pages.  [default: 127.0.0.1:10249]",
)
@click.option(
    "--metrics-host",
    "metrics_hosts",
    multiple=True,
    metavar="NAME",
    help="Also accept this name in the Host header of requests. Repeatable. Addresses, localhost and the node's names"
    " are always accepted.",
)
@click.option(
    "--endpoints",
    type=click.Choice([each.value for each in EndpointsFrom]),
    default=EndpointsFrom.SLICES.value,
    show_default=True,
    help="Source of endpoints. slices: EndpointSlices. pods: Pods, for Services with a selector; a Pod that becomes"
    " ready is served at once. auto: EndpointSlices; Pods for Services that have a selector and no EndpointSlices. pods"
    " and auto need the right to list and watch pods and nodes.",
)
@click.option(
    "--drift",
    type=click.Choice(["mend", "report"]),
    default="mend",
    show_default=True,
    help="mend: restore rules that other programs change. report: write nothing, only report differences.",
)
@click.option(
    "--keep-serving",
    is_flag=True,
    help="Keep the proxy for Ingresses running when this command ends. Default: it finishes its requests and stops.",
)
@click.option("--no-events", is_flag=True, help="Write no Kubernetes Events. Logs and metrics still report everything.")
@click.option(
    "--update-status/--no-update-status",
    default=True,
    show_default=True,
    help="With --ingress: publish the addresses of the serving nodes in the status of Ingresses.",
)
@click.option(
    "--update-status-on-shutdown/--no-update-status-on-shutdown",
    default=True,
    show_default=True,
    help="Remove this node's addresses from the status when the command ends.",
)
@click.option(
    "--publish-status-address",
    multiple=True,
    metavar="ADDRESS[,…]",
    help="Publish these addresses or names instead of the node's own. Repeatable.",
)
@click.option(
    "--publish-service",
    type=ObjectNameType(),
    help="Publish the addresses of this Service instead of the nodes' own, for example of a load balancer in front"
    " of the nodes.",
)
@click.option(
    "--report-node-internal-ip-address",
    is_flag=True,
    help="Publish the node's InternalIP even if it has an ExternalIP.",
)
@click.option(
    "--publish-service-status",
    is_flag=True,
    help="Publish node addresses for Services of type LoadBalancer that have no loadBalancerClass and no other"
    " controller.",
)
@click.option(
    "--lease-namespace",
    metavar="NAME",
    help="Namespace of the Leases that coordinate which addresses are published.  [default: the Pod's, else rulegen]",
)
@owner_option
@ALLOW_UNKNOWN_NODE
@click.option("--once", is_flag=True, help="Exit after the first complete sync.")
@click.option(
    "--timeout",
    metavar="DURATION",
    help="With --once: fail if the API server does not answer within this time, such as 90 or 1m30s.  [default: 60s]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of log lines.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every sync.")
def command(
    *,
    endpoints: str,
    drift: str,
    once: bool,
    timeout: str | None,
    log_format: str,
    verbose: bool,
    no_services: bool,
    no_events: bool,
    keep_serving: bool,
    allow_unknown_node: bool,
    metrics_hosts: tuple[str, ...],
    nftables_owner: str,
    **chosen: Any,
) -> None:
    """Watch the cluster and keep this node's rules up to date, until SIGTERM.

    Nothing is written until all objects were listed once. If another program deletes or adds rules, that is reported
    and repaired. On SIGTERM, rules stay, and the proxy for Ingresses stops after its current requests. On SIGHUP, or
    when a configuration file changes, the configuration is reloaded.

    \b
    rulegen run                                      in a Pod, or with your kubeconfig
    rulegen run --config kube-proxy.yaml --node web-1
    rulegen run --ingress                            also Ingresses, served by a proxy on this host
    rulegen run --drift report                       report changes of other programs, write nothing
    """
    from rulegen.agent.telemetry.log import AgentLog  # noqa: PLC0415 - loads the client and netlink

    if chosen.get("files"):
        raise ConfigError("run watches an API server, not files", hint="use `rulegen apply -f` for files")
    if timeout is not None and not once:
        raise ConfigError("--timeout needs --once: without --once, run waits without limit")
    _refuse_no_names(metrics_hosts)
    timeout_s = _seconds(timeout or "60s")
    ingress = ChosenIngress.of(chosen)
    publishing = chosen_publishing(chosen, ingress.ingress_class)
    if publishing.services and no_services:
        raise ConfigError(
            "--publish-service-status and --no-services exclude each other",
            hint="a node that publishes addresses for Services must also have their rules",
        )
    ingress.refuse_nothing(no_services=no_services, verb="keep")
    fixed: dict[str, Any] = {
        "mends": drift == "mend",
        "once": once,
        "timeout_s": timeout_s,
        "services": not no_services,
        "allow_unknown_node": allow_unknown_node,
        "drains": not keep_serving,
        "events": not no_events,
        "endpoints_from": EndpointsFrom(endpoints),
        "publishing": publishing,
        "metrics_hosts": metrics_hosts,
    }
    log = AgentLog(is_json=log_format == "json", least="debug" if verbose else "info")
    for warning in _idle(ingress, publishing, chosen.pop("status_flags_given")):
        log.warning(warning)
    _Runs(CliOptions(**chosen), ingress, log, fixed, nftables_owner).run()


def _refuse_no_names(hosts: tuple[str, ...]) -> None:
    for name in hosts:
        if not is_subdomain(name.lower()):
            raise ConfigError(f"--metrics-host: {name!r} is not a DNS name", hint="give a name without port")


class _Runs(msgspec.Struct, frozen=True):
    """Runs agents one after the other, each with the current configuration.

    Attributes:
        settings: Options about Services.
        ingress: Options about Ingresses.
        fixed: Options of the agent itself.
        owner: Whether tables of nftables are protected.
    """

    settings: CliOptions
    ingress: ChosenIngress
    log: AgentLog
    fixed: dict[str, Any]
    owner: str

    def run(self) -> None:
        """Run agents until a signal ends one, or `--once` is complete.

        Raises:
            RulegenError: The first agent cannot start, or an agent has failed.
        """
        from rulegen.agent.runtime.signals import Signals  # noqa: PLC0415 - loads the client and netlink
        from rulegen.agent.runtime.waiting import StopDeadline  # noqa: PLC0415 - the same
        from rulegen.host.files.watch import FileChanges  # noqa: PLC0415 - the same

        files = _files(self.settings, self.ingress)
        changes = FileChanges(files)
        inputs, site = _read(self.settings, self.ingress, waits=not self.fixed["once"])
        agent = None
        deadline = StopDeadline(self.log)
        locks = self._locks(site)
        with Signals(deadline.begin) as signals, locks:
            while True:
                agent = self._agent(inputs, site, agent, locks, deadline.stopped)
                for warning in (*inputs.configuration[1], *(inputs.cautions if self.fixed["services"] else ())):
                    self.log.warning(warning)
                signals.hand_to(agent)
                changes.start(partial(self._look, agent, inputs))
                try:
                    why = agent.run()
                finally:
                    changes.stop()
                    signals.hand_to(None)
                if why != "reload":
                    return
                changes = FileChanges(files)
                inputs, site = self._reloaded(inputs, site)

    def _locks(self, site: AnyEngine | None) -> AgentLocks:
        """Return the locks for the life of this process. Whoever writes nothing, or only once, has none."""
        from rulegen.agent.runtime.locks import AgentLocks  # noqa: PLC0415 - loads the client and netlink
        from rulegen.host.locks.agent_lock import AgentLock  # noqa: PLC0415 - loads the client and netlink

        if self.fixed["once"] or not self.fixed["mends"]:
            return AgentLocks()
        services = AgentLock.of_services() if self.fixed["services"] else None
        return AgentLocks(services, site.lock() if site is not None else None)

    def _agent(
        self,
        inputs: Inputs,
        site: AnyEngine | None,
        before: Agent | None,
        locks: AgentLocks,
        on_stopped: Callable[[], None],
    ) -> Agent:
        from rulegen.agent.agent import Agent  # noqa: PLC0415 - loads the client and netlink

        settings = self.settings
        return Agent(
            options=inputs.options,
            facts=inputs.facts,
            variant=settings.forced_variant,
            stale_udp=StaleUdpPolicy(settings.stale_udp),
            counts={"on": True, "off": False}.get(settings.nfacct),
            kubeconfig=settings.kubeconfig,
            context=settings.context,
            terms=settings.api_terms,
            log=self.log,
            clock=time.monotonic,
            site=site,
            known=before.known if before is not None else None,
            kept=before.parts if before is not None else None,
            locks=locks,
            can_reload=self._can_reload,
            follows_host=not settings.host,
            tables=inputs.tables,
            drivers=guarded(inputs, locks, self.owner),
            on_stopped=on_stopped,
            **self.fixed,
        )

    def _reloaded(self, inputs: Inputs, site: AnyEngine | None) -> tuple[Inputs, AnyEngine | None]:
        """Return the current configuration; the previous one if it is invalid."""
        try:
            fresh = _read(self.settings, self.ingress)
            opened = openings(inputs.options, fresh[0].options)
        except RulegenError as error:
            # An agent that works must not end because of an error in a file.
            self.log.error(NOT_RELOADED, error=error.message)
            return inputs, site
        self.log.info("configuration reloaded")
        for opening in opened:
            self.log.warning("the changed configuration opens access", what=opening)
        return fresh

    def _look(self, agent: Agent, inputs: Inputs) -> None:
        """Reload if a changed file leads to other options."""
        try:
            fresh, _ = _read(self.settings, self.ingress)
        except RulegenError as error:
            self.log.error("the changed configuration is invalid and not used", error=error.message, hint=error.hint)
            return
        has_other_facts = bool(self.settings.host) and fresh.facts != inputs.facts
        if fresh.options != inputs.options or has_other_facts or self.ingress.engine.files:
            self.log.info("the configuration has changed")
            agent.wake_up("reload")

    def _can_reload(self) -> bool:
        """Return whether a new agent could start now; if not, log the reason, and the current agent continues."""
        from rulegen.apiserver.transport.client import ApiServer  # noqa: PLC0415 - loads the client

        settings = self.settings
        try:
            _read(settings, self.ingress)
            ApiServer(settings.kubeconfig, settings.context, terms=settings.api_terms).close()
        except RulegenError as error:
            self.log.error(NOT_RELOADED, error=error.message, hint=error.hint)
            return False
        return True


def _read(settings: CliOptions, ingress: ChosenIngress, *, waits: bool = True) -> tuple[Inputs, AnyEngine | None]:
    """Read options and configuration now, and return them with the ingress engine, if there is one.

    Args:
        settings: Options about Services.
        ingress: Options about Ingresses.
        waits: Whether the agent may wait for the program of the engine, if it is missing or hangs.

    Raises:
        RulegenError: The configuration is invalid; without `waits`, also if the program does not work.
    """
    inputs = Inputs(settings, ingress=ingress if ingress.ingress else None)
    inputs.options  # noqa: B018 - a fault is to be known now
    inputs.facts  # noqa: B018 - the same
    inputs.node_name  # noqa: B018 - the same
    if ingress.ingress:
        _refuse_shared_ports(inputs, ingress)
    if not ingress.ingress:
        return inputs, None
    return inputs, IngressInputs(ingress, inputs, tries_aside=False, waits=waits).engine


def _refuse_shared_ports(inputs: Inputs, ingress: ChosenIngress) -> None:
    """Reject a port of the ingress engine that the agent itself uses.

    Raises:
        ConfigError: There is such a port.
    """
    for name, address in (
        ("--health-address", inputs.options.healthz_address),
        ("--metrics-address", inputs.options.metrics_address),
    ):
        for option, port in (("--http-port", ingress.http_port), ("--https-port", ingress.https_port)):
            if host_and_port(address)[1] == port:
                raise ConfigError(
                    f"{option} {port} is the port of {name} ({address})", hint="choose another port for one of them"
                )


def _idle(ingress: ChosenIngress, publishing: Publishing, status_flags: Sequence[str]) -> Iterator[str]:
    """Yield warnings about options without effect; `status_flags` are those that need published addresses."""
    if ingress.idle:
        yield ingress.idle
    if status_flags and not publishing.services and not (ingress.ingress and publishing.ingresses):
        needed = "--update-status" if ingress.ingress else "--ingress"
        have = "has" if len(status_flags) == 1 else "have"
        yield f"{', '.join(status_flags)} {have} no effect without {needed} or --publish-service-status"


def _seconds(text: str) -> float:
    """Return the value of --timeout in seconds.

    Raises:
        ConfigError: It is not a valid duration.
    """
    try:
        seconds = parse_duration(f"{text}s" if text.isascii() and text.isdigit() else text)
    except ValueError as error:
        raise ConfigError(f"--timeout: {error}") from error
    if seconds <= 0:
        raise ConfigError(f"--timeout: {text} must be more than 0")
    return seconds


def _files(settings: CliOptions, ingress: ChosenIngress) -> list[str]:
    """Return the files and folders of the options whose changes take effect while the agent runs."""
    own = ingress.engine.files if ingress.ingress else ()
    return [path for path in (settings.config, settings.host, *own) if path]
