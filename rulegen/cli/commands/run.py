"""`rulegen run`: keep a node as the cluster wants it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import click

from rulegen.cli.options.common import ALLOW_UNKNOWN_NODE, CliOptions, input_options, no_services_option, variant_option
from rulegen.cli.options.ingress import ChosenIngress, ingress_options
from rulegen.cli.wiring.ingress import IngressInputs
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.services.compile import backend_of
from rulegen.errors import ConfigError, RulegenError
from rulegen.kube.proxyconfig.durations import parse_duration
from rulegen.kube.proxyconfig.validation import host_and_port
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.model.services.node.openings import openings
from rulegen.model.services.stale_flows import StaleUdpPolicy
from rulegen.net import parse_address

if TYPE_CHECKING:
    from types import FrameType

    from rulegen.agent.agent import Agent
    from rulegen.agent.status.setup import Publishing
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.host.nginx.deployment import NginxDeployment


@click.command("run")
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
    help="Also answer requests with this name as Host. Repeatable. Addresses, localhost and the node's names are"
    " always accepted.",
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
    help="Leave nginx running when this command ends. Default: nginx finishes its requests and stops.",
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
    help="Namespace of the Leases by which nodes agree on what to publish.  [default: the Pod's, else rulegen]",
)
@ALLOW_UNKNOWN_NODE
@click.option("--once", is_flag=True, help="Exit after everything was written once.")
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
    **chosen: Any,
) -> None:
    """Watch the cluster and keep this node's rules up to date, until SIGTERM.

    Nothing is written before every list was received once. If another program deletes or adds rules, that is reported
    and repaired. On SIGTERM, rules stay and nginx stops after its current requests. On SIGHUP, or when a
    configuration file changes, the configuration is reloaded.

    \b
    rulegen run                                      in a Pod, or with your kubeconfig
    rulegen run --config kube-proxy.yaml --node web-1
    rulegen run --ingress                            also Ingresses, served by nginx on this host
    rulegen run --drift report                       report changes of other programs, write nothing
    """
    from rulegen.agent.agent import Agent  # noqa: PLC0415 - loads the client and netlink
    from rulegen.agent.telemetry.log import AgentLog  # noqa: PLC0415 - the same
    from rulegen.host.files.watch import FileChanges  # noqa: PLC0415 - the same

    if chosen.get("files"):
        raise ConfigError("run watches an API server, not files", hint="use `rulegen apply -f` for files")
    if timeout is not None and not once:
        raise ConfigError("--timeout is for --once: without it, run waits for as long as it takes")
    for name in metrics_hosts:
        if not is_subdomain(name.lower()):
            raise ConfigError(f"--metrics-host: {name!r} is not a DNS name", hint="give a name without port")
    timeout_s = _seconds(timeout or "60s")
    journal = AgentLog(is_json=log_format == "json", least="debug" if verbose else "info")
    told = ChosenIngress.of(chosen)
    publishing = _publishing(chosen, told)
    if publishing.services and no_services:
        raise ConfigError(
            "--publish-service-status and --no-services exclude each other",
            hint="who publishes addresses for Services must also have rules for them",
        )
    told.refuse_nothing(no_services=no_services, verb="keep")
    settings = CliOptions(**chosen)
    inputs, site = _read(settings, told)
    known = None
    with _Signals() as signals:
        while True:
            agent = Agent(
                options=inputs.options,
                facts=inputs.facts,
                variant=settings.forced_variant,
                forgetting=StaleUdpPolicy(settings.stale_udp),
                counts={"on": True, "off": False}.get(settings.nfacct),
                kubeconfig=settings.kubeconfig,
                context=settings.context,
                terms=settings.api_terms,
                journal=journal,
                mends=drift == "mend",
                once=once,
                timeout_s=timeout_s,
                services=not no_services,
                clock=time.monotonic,
                allow_unknown_node=allow_unknown_node,
                site=site,
                drains=not keep_serving,
                events=not no_events,
                publishing=publishing,
                known=known,
                follows_host=not settings.host,
                metrics_hosts=metrics_hosts,
            )
            reloading = _Reloading(agent, inputs, settings, told, journal)
            agent.can_reload = reloading.is_possible
            for warning in (*inputs.configuration[1], *(() if no_services else inputs.cautions)):
                journal.warning(warning)
            changes = FileChanges(_files(settings, told), reloading.look)
            signals.hand_to(agent)
            changes.start()
            try:
                why = agent.run()
            finally:
                changes.stop()
                signals.hand_to(None)
            if why != "reload":
                return
            known = agent.known
            before = inputs.options
            try:
                inputs, site = _read(settings, told)
                journal.info("begins anew, as it was told to")
                for opening in openings(before, inputs.options):
                    journal.warning("the changed configuration opens what was closed", what=opening)
            except RulegenError as error:
                # A node that works is not given up for a slip in a file.
                journal.error("the configuration is not read anew: it goes on as before", error=error.message)


def _read(settings: CliOptions, told: ChosenIngress) -> tuple[Inputs, NginxDeployment | None]:
    """Return what the options and the configuration come to, read now, and where nginx serves Ingresses if it does.

    Raises:
        RulegenError: The configuration cannot be used.
    """
    inputs = Inputs(settings, ingress=told if told.ingress else None)
    inputs.options  # noqa: B018 - a fault is to be known now
    inputs.facts  # noqa: B018 - the same
    inputs.node_name  # noqa: B018 - the same
    backend_of(inputs.options.mode)
    if told.ingress:
        _refuse_shared_ports(inputs, told)
    return inputs, IngressInputs(told, inputs, tries_aside=False).live if told.ingress else None


def _refuse_shared_ports(inputs: Inputs, told: ChosenIngress) -> None:
    """Refuse a port of nginx on which the agent itself is to answer.

    Raises:
        ConfigError: There is such a port.
    """
    for name, address in (
        ("--health-address", inputs.options.healthz_address),
        ("--metrics-address", inputs.options.metrics_address),
    ):
        for option, port in (("--http-port", told.http_port), ("--https-port", told.https_port)):
            if host_and_port(address)[1] == port:
                raise ConfigError(f"{option} {port} is the port of {name} ({address})", hint="give one of them another")


def _publishing(chosen: dict[str, Any], told: ChosenIngress) -> Publishing:
    """Return what of a command's options is about publishing; it is taken out of them.

    Raises:
        ConfigError: An address is none, or a namespace.
    """
    from rulegen.agent.status.setup import Publishing  # noqa: PLC0415 - loads the client and netlink

    addresses = tuple(one.strip() for given in chosen.pop("publish_status_address") for one in given.split(","))
    for one in addresses:
        if not _is_address(one) and not is_subdomain(one):
            raise ConfigError(f"--publish-status-address: {one!r} is neither an address nor a name such as lb.example")
    namespace = chosen.pop("lease_namespace") or ""
    if namespace and not is_label(namespace):
        raise ConfigError(f"--lease-namespace: {namespace!r} is not the name of a namespace")
    return Publishing(
        ingresses=chosen.pop("update_status"),
        services=chosen.pop("publish_service_status"),
        group=told.ingress_class,
        addresses=addresses,
        internal=chosen.pop("report_node_internal_ip_address"),
        withdraws=chosen.pop("update_status_on_shutdown"),
        namespace=namespace,
    )


def _seconds(text: str) -> float:
    """Return what --timeout says, in seconds.

    Raises:
        ConfigError: It is no duration, or none that can be waited for.
    """
    try:
        seconds = parse_duration(f"{text}s" if text.isascii() and text.isdigit() else text)
    except ValueError as error:
        raise ConfigError(f"--timeout: {error}") from error
    if seconds <= 0:
        raise ConfigError(f"--timeout: {text} is not more than 0")
    return seconds


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _files(settings: CliOptions, told: ChosenIngress) -> list[str]:
    """Return the files and folders that the options name, and a change of which is obeyed."""
    return [path for path in (settings.config, settings.host, told.ingress and told.nginx_templates) if path]


@dataclass(frozen=True, slots=True)
class _Reloading:
    """Has an agent begin anew when its configuration has changed, and can be used."""

    agent: Agent
    inputs: Inputs
    settings: CliOptions
    told: ChosenIngress
    journal: AgentLog

    def look(self) -> None:
        """Look what a changed file comes to."""
        try:
            fresh, _ = _read(self.settings, self.told)
        except RulegenError as error:
            self.journal.error("the changed configuration is not used", error=error.message, hint=error.hint)
            return
        has_other_facts = bool(self.settings.host) and fresh.facts != self.inputs.facts
        if fresh.options != self.inputs.options or has_other_facts or self.told.nginx_templates:
            self.journal.info("the configuration has changed")
            self.agent.wake("reload")

    def is_possible(self) -> bool:
        """Tell whether another agent could begin now; what it lacks is told, and the one there is goes on."""
        from rulegen.apiserver.transport.client import ApiServer  # noqa: PLC0415 - loads the client

        try:
            settings = self.settings
            _read(settings, self.told)
            ApiServer(settings.kubeconfig, settings.context, terms=settings.api_terms).close()
        except RulegenError as error:
            self.journal.error(
                "the configuration is not read anew: it goes on as before", error=error.message, hint=error.hint
            )
            return False
        return True


class _Signals:
    """Hands signals to the agent that there is. One that comes between two is for the next; an end always is.

    The kernel gives the second of two signals to any thread, and the main one, which is to take it, would sleep on
    until something else happens. So another thread hears of each (by `set_wakeup_fd`), and has the agent's wait end.
    """

    def __init__(self) -> None:
        self._agent: Agent | None = None
        self._why = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._ear, self._mouth = socket.socketpair()
        self._mouth.settimeout(0)
        self._other_mouth = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        for number, why in ((signal.SIGTERM, "stop"), (signal.SIGINT, "stop"), (signal.SIGHUP, "reload")):
            self._before[number] = signal.signal(number, self._taker(why))
        return self

    def __exit__(self, *_: object) -> None:
        for number, taker in self._before.items():
            signal.signal(number, taker)
        signal.set_wakeup_fd(self._other_mouth)
        self._mouth.close()
        self._thread.join()
        self._ear.close()

    def _listen(self) -> None:
        while self._ear.recv(64):
            agent = self._agent
            if agent is not None:
                agent.rouse()

    def hand_to(self, agent: Agent | None) -> None:
        """Hand signals to this agent from now on, and what came while there was none."""
        self._agent = agent
        if agent is not None and self._why:
            agent.wake(self._why)
            self._why = self._why if self._why == "stop" else ""

    def _taker(self, why: str) -> Any:
        def take(_number: int, _frame: FrameType | None) -> None:
            # An end also where there is an agent: it may just end to begin anew, and listen no longer.
            if why == "stop" or (self._agent is None and not self._why):
                self._why = why
            if self._agent is not None:
                self._agent.wake(why)

        return take
