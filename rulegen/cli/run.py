"""`rulegen run`: keep a node as the cluster wants it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import click

from rulegen.cli.ingress import IngressInputs
from rulegen.cli.ingress_options import ChosenIngress, ingress_options
from rulegen.cli.inputs import Inputs
from rulegen.cli.options import Chosen, input_options, no_services_option, variant_option
from rulegen.errors import ConfigError, RulegenError
from rulegen.model.conntrack import Forgetting

if TYPE_CHECKING:
    from types import FrameType

    from rulegen.agent.agent import Agent


@click.command("run")
@input_options
@variant_option
@ingress_options()
@no_services_option
@click.option(
    "--health-address", metavar="ADDRESS:PORT", help="Where /healthz and /livez are told.  [default: 0.0.0.0:10256]"
)
@click.option(
    "--metrics-address", metavar="ADDRESS:PORT", help="Where metrics and views are told.  [default: 127.0.0.1:10249]"
)
@click.option(
    "--drift",
    type=click.Choice(["mend", "report"]),
    default="mend",
    show_default=True,
    help="Mend what others change in our rules; or write nothing at all, and report what is not as wanted.",
)
@click.option("--once", is_flag=True, help="End when all is written once.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people or machines.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every sync.")
def command(*, drift: str, once: bool, log_format: str, verbose: bool, no_services: bool, **chosen: Any) -> None:
    """Watch the cluster and keep this node's rules so, until it is told to end.

    Nothing is written before every list has come once. Rules that others take away or put in are told, and mended.
    SIGTERM ends it and leaves the rules as they are; SIGHUP has it read the configuration anew.

    \b
    rulegen run                                      in a Pod, or with your kubeconfig
    rulegen run --config kube-proxy.yaml --node web-1
    rulegen run --ingress                            Ingresses too, served by nginx on this host
    rulegen run --drift report                       tell what others change, and mend nothing of it
    """
    from rulegen.agent.agent import Agent  # noqa: PLC0415 - loads the client and netlink
    from rulegen.agent.journal import Journal  # noqa: PLC0415 - the same

    if chosen.get("files"):
        raise ConfigError("run watches an API server, not files", hint="use `rulegen apply -f` for files")
    journal = Journal(is_json=log_format == "json", least="debug" if verbose else "info")
    told = ChosenIngress.of(chosen)
    settings = Chosen(**chosen)
    inputs = _read(settings, told)
    while True:
        agent = Agent(
            options=inputs.options,
            facts=inputs.facts,
            variant=settings.forced_variant,
            forgetting=Forgetting(settings.stale_udp),
            counts={"on": True, "off": False}.get(settings.nfacct),
            kubeconfig=settings.kubeconfig,
            context=settings.context,
            journal=journal,
            mends=drift == "mend",
            once=once,
            services=not no_services,
            clock=time.monotonic,
            site=IngressInputs(told, inputs).live if told.ingress else None,
        )
        for warning in inputs.configuration[1]:
            journal.warning(warning)
        with _Signals(agent):
            why = agent.run()
        if why != "reload":
            return
        try:
            inputs = _read(settings, told)
            journal.info("begins anew, as it was told to")
        except RulegenError as error:
            # A node that works is not given up for a slip in a file.
            journal.error("the configuration is not read anew: it goes on as before", error=error.message)


def _read(settings: Chosen, told: ChosenIngress) -> Inputs:
    """Return what the options and the configuration come to, read now.

    Raises:
        RulegenError: The configuration cannot be used.
    """
    inputs = Inputs(settings, ingress=told if told.ingress else None)
    inputs.options  # noqa: B018 - a fault is to be known now
    inputs.facts  # noqa: B018 - the same
    return inputs


class _Signals:
    """Hands signals to an agent for as long as it runs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number, why in ((signal.SIGTERM, "stop"), (signal.SIGINT, "stop"), (signal.SIGHUP, "reload")):
            self._before[number] = signal.signal(number, self._taker(why))

    def __exit__(self, *_: object) -> None:
        for number, taker in self._before.items():
            signal.signal(number, taker)

    def _taker(self, why: str) -> Any:
        def take(_number: int, _frame: FrameType | None) -> None:
            self._agent.wake(why)

        return take
