"""From options to an ingress engine, its desired and its current configuration."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.cli.terminal.console import note, print_lines
from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import HostError
from rulegen.host.node.facts import speaks_ipv6
from rulegen.host.node.gateways import gateways
from rulegen.host.node.interfaces import interfaces
from rulegen.host.node.name_servers import resolvers
from rulegen.model.forbidden import of_host
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.last_read import CompletedSnapshot, completed, renewed
from rulegen.model.ingress.options import IngressOptions
from rulegen.plan import show
from rulegen.plan.plan import Plan, with_site
from rulegen.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.cli.options.ingress import ChosenIngress
    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.compiler.ingress.engine import AnyCompiler, AnyEngine, KnownObjects
    from rulegen.model.forbidden import Forbidden
    from rulegen.model.host.facts import HostFacts
    from rulegen.plan.ingress import IngressPlan
    from rulegen.plan.show import Report


@dataclass(frozen=True)
class IngressInputs:
    """The input about Ingresses of a command; each part is read when it is first needed.

    Attributes:
        is_live: Whether the engine of this host serves Ingresses.
        tries_aside: Whether nothing may be written to the engine's folder until the plan is applied.
        waits: Whether the program of the engine may be missing or hang for now.
    """

    chosen: ChosenIngress
    inputs: Inputs
    is_live: bool = True
    tries_aside: bool = True
    waits: bool = False
    notes: list[str] = field(default_factory=list)

    @cached_property
    def options(self) -> IngressOptions:
        """Options that every engine has."""
        chosen = self.chosen
        host = HttpHost(
            http_port=chosen.http_port,
            https_port=chosen.https_port,
            ipv6=self.inputs.facts.ipv6 and not (self.is_live and not speaks_ipv6()),
        )
        return IngressOptions(
            selection=chosen.selection,
            prefix=chosen.annotations_prefix,
            host=host,
            config_map=chosen.configmap,
            default_certificate=chosen.default_ssl_certificate,
            default_backend=chosen.default_backend_service,
            refuses_names=chosen.disable_svc_external_name,
            resolvers=tuple(map(str, resolvers())),
            families=tuple(self.inputs.facts.families),
            node=self.inputs.options.node_name or self.inputs.facts.hostname,
            forbidden=self._forbidden(self.inputs.facts),
            now=dt.datetime.now(dt.UTC),
            most_hosts=chosen.max_namespace_hosts,
            reports=chosen.flag_reports,
        )

    @cached_property
    def engine(self) -> AnyEngine:
        """The engine of this host.

        Raises:
            HostError: Its program is not installed or not usable; with `waits`, `refresh` of the engine says so.
        """
        engine = self.chosen.engine.engine(self.options, self.notes, look=self._refreshed, tries_aside=self.tries_aside)
        if not self.waits:
            engine.refresh()
        return engine

    @cached_property
    def compiler(self) -> AnyCompiler:
        """The compiler, if no engine of this host is involved."""
        return self.chosen.engine.compiler(self.options, self.notes)

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name if self.is_live else self.compiler.name

    def _forbidden(self, facts: HostFacts) -> Forbidden:
        """Return the addresses of this host to which requests must not be forwarded."""
        chosen = self.chosen
        ports = (chosen.http_port, chosen.https_port)
        return replace(of_host(facts), allowed=chosen.ingress_allow_endpoint, ports=ports)

    def _refreshed(self, options: IngressOptions) -> IngressOptions:
        """Return options with the host's current name servers, addresses, gateways and IPv6 support.

        If resolv.conf(5) names no server, the previous ones stay: the file is empty for a moment when it is replaced.
        """
        speaks, facts = speaks_ipv6(), self.inputs.facts
        if not self.inputs.chosen.host:
            facts = replace(facts, ipv6=speaks, interfaces=interfaces(), gateways=gateways())
        return msgspec.structs.replace(
            options,
            host=msgspec.structs.replace(options.host, ipv6=facts.ipv6 and speaks),
            resolvers=tuple(map(str, resolvers())) or options.resolvers,
            families=tuple(facts.families),
            forbidden=self._forbidden(facts),
        )

    @cached_property
    def observed(self) -> Any:
        """The served configuration; None if the engine serves nothing, or it cannot be read."""
        return self.engine.observe() if self.is_live else None

    @cached_property
    def known(self) -> KnownObjects:
        """Last known contents of objects, saved for the engine of this host."""
        return self.engine.known_objects()

    @cached_property
    def completed(self) -> CompletedSnapshot:
        """The objects, with last known contents for objects that the API server denies, and for classes.

        With files as input, there are no last known contents.
        """
        world, known = self.inputs.world, {}
        if self.is_live and not self.inputs.chosen.files:
            known = dict(self.known.objects)
            self.notes.extend(self.known.notes)
        return completed(world, self.options, known, lambda _: "", may_be_gone=False)

    @cached_property
    def site(self) -> Any:
        """The configuration, without the Ingresses that the engine's program rejects."""
        world = self.completed.world
        self.inputs.progress(f"resolving {len(world.ingresses):,} Ingresses …")
        return self.engine.check(world, self.observed) if self.is_live else self.compiler.compile(world)

    @cached_property
    def plan(self) -> IngressPlan:
        """The changes for the engine."""
        return self.engine.plan(self.site, self.observed) if self.is_live else self.compiler.plan_all(self.site)

    @cached_property
    def taken_ports(self) -> tuple[str, ...]:
        """One line for each needed port on which another program listens."""
        return tuple(self.engine.taken_ports(self.site)) if self.is_live and self.plan.changes_program else ()

    @property
    def compared_with(self) -> str:
        """What the plan is compared with."""
        if not self.is_live:
            return show.NO_SITE
        return f"{self.engine.location}, {'which serves nothing yet' if self.observed is None else 'as it is served'}"

    def apply(self) -> list[str]:
        """Deploy the configuration; return the completed actions, one line each.

        Raises:
            HostError: This failed; the message says what is served.
        """
        outcome = self.engine.deploy(self.site)
        try:
            self.known.keep(renewed(*self.completed, self.options))
        except HostError as error:
            self.notes.append(error.message)
        took = f" in {outcome.seconds:.2f} s" if outcome.seconds else ""
        done = () if outcome.action is DeployAction.NOTHING else (f"{self.name} {outcome.action.value}{took}",)
        return [*done, *outcome.notes, *self.notes]


def _hidden_hosts(ingress: IngressInputs) -> Iterator[str]:
    """Yield a warning if hosts of Ingresses could not be read: nothing closes these hosts."""
    hiding = [each.object for each in ingress.inputs.world.rejected if each.may_hide_hosts]
    if hiding:
        yield f"hosts of Ingresses could not be read, so what they restrict may be open: {listed(hiding)}"


def plan_ingress(ingress: IngressInputs, plan: Plan, report: Report) -> tuple[Plan, Report]:
    """Return a plan and its report with the part about Ingresses."""
    site_plan = ingress.plan
    model = ingress.site.model
    taken = (f"{line}: {ingress.name} cannot listen there, so apply fails" for line in ingress.taken_ports)
    warnings = (*report.warnings, *_hidden_hosts(ingress), *ingress.notes, *taken)
    return with_site(plan, site_plan), msgspec.structs.replace(
        report, reasons=model.reasons, site=ingress.compared_with, warnings=warnings
    )


def report_unseen(ingress: IngressInputs, plan: Plan, report: Report) -> tuple[Plan, Report]:
    """Return a plan and its report with the reasons of Ingresses, if the engine's configuration was not observed."""
    name = ingress.name
    unseen = (
        f"{name} was not observed, so it is not in the plan: dumps do not contain its configuration. To compare it, run"
        " plan on the node without --observed; `--observed none` shows the whole configuration"
    )
    return plan, msgspec.structs.replace(
        report,
        reasons=ingress.site.model.reasons,
        site=show.UNSEEN_SITE,
        is_partial=True,
        warnings=(*report.warnings, *_hidden_hosts(ingress), *ingress.notes, unseen),
    )


def export_site(ingress: IngressInputs, folder: str, *, with_secrets: bool) -> None:
    """Write a configuration to a folder, which the engine's program can load without rulegen."""
    site = ingress.site
    ingress.inputs.progress("")
    lines = ingress.compiler.export(site, folder, with_secrets=with_secrets)
    report = ingress.inputs.report("nothing", *_hidden_hosts(ingress))
    report = msgspec.structs.replace(report, reasons=site.model.reasons)
    for line in show.notes(report):
        note(line)
    print_lines(lines)
