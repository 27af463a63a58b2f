"""From options to a configuration of nginx and what it serves now: the wiring for Ingresses."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from rulegen.cli.terminal.console import note, print_lines
from rulegen.compiler.ingress.compile import NginxSite, compile_ingress
from rulegen.errors import HostError
from rulegen.host.commands.runner import run
from rulegen.host.files.output import write_site
from rulegen.host.nginx.deployment import NginxDeployment
from rulegen.host.nginx.disk import default_certificate
from rulegen.host.nginx.disk.last_read import KnownObjects
from rulegen.host.nginx.disk.templates import read_templates
from rulegen.host.nginx.facts import gather_nginx, resolvers
from rulegen.host.nginx.resolver import control
from rulegen.host.nginx.service import NginxAction, NginxService
from rulegen.host.node.facts import speaks_ipv6
from rulegen.host.node.gateways import gateways
from rulegen.host.node.interfaces import interfaces
from rulegen.languages.nginx.facts import NginxFacts
from rulegen.model.forbidden import of_host
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.ir import SecretFile
from rulegen.model.ingress.last_read import CompletedSnapshot, completed, renewed
from rulegen.model.ingress.options import IngressOptions
from rulegen.plan import show
from rulegen.plan.nginx import NginxPlan, plan_site
from rulegen.plan.plan import Plan, with_site
from rulegen.plan.show import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.cli.options.ingress import ChosenIngress
    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.languages.nginx.configuration import Configuration
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.forbidden import Forbidden
    from rulegen.model.host.facts import HostFacts
    from rulegen.net import Address
    from rulegen.plan.show import Report

HTTP2_DIRECTIVE = (1, 25, 1)
"""The nginx since which HTTP/2 is switched on by a directive of its own."""
SHARED_USER = "nobody"
"""Whom programs run as that have no user of their own."""
PLACEHOLDER_NGINX = NginxFacts(version=(1, 22, 1), user="www-data", group="www-data")
"""What is taken for granted of a nginx that is not here."""


@dataclass(frozen=True)
class IngressInputs:
    """What a command line asks of Ingresses, each part found when it is first needed.

    Attributes:
        is_live: Whether this host's nginx serves it.
        tries_aside: Whether nothing may be written to nginx's folder until the plan is applied.
    """

    chosen: ChosenIngress
    inputs: Inputs
    is_live: bool = True
    tries_aside: bool = True
    notes: list[str] = field(default_factory=list)

    @cached_property
    def templates(self) -> Templates:
        """The templates."""
        return read_templates(self.chosen.nginx_templates)

    @cached_property
    def facts(self) -> NginxFacts:
        """What nginx is here."""
        if not self.is_live:
            return replace(PLACEHOLDER_NGINX, resolvers=resolvers())
        facts = gather_nginx(run, self.chosen.nginx_binary, user=self.chosen.nginx_user)
        if facts.user == SHARED_USER:
            self.notes.append(
                f"nginx's workers run as {SHARED_USER}. Other programs of that user can read TLS keys in their"
                " memory: create a user for nginx and give it with --nginx-user"
            )
        return facts

    @cached_property
    def service(self) -> NginxService:
        """The nginx of this host."""
        import grp  # noqa: PLC0415 - only a live one has a group

        try:
            group = grp.getgrnam(self.facts.group).gr_gid if self.facts.group else None
        except KeyError:
            raise HostError(f"the group {self.facts.group} for nginx's workers does not exist") from None
        return NginxService(self.chosen.folder, run, binary=self.chosen.nginx_binary, worker_group=group)

    @cached_property
    def default_certificate(self) -> bytes:
        """The made-up certificate: that of this host, if it has one."""
        known = default_certificate.load(self.chosen.folder) if self.is_live else None
        return known or default_certificate.make()

    @cached_property
    def options(self) -> IngressOptions:
        """What is wanted."""
        chosen, facts = self.chosen, self.facts
        user = chosen.nginx_user or facts.user
        if (stranger := self._stranger) is not None:
            self.notes.append(control.taken_by(chosen.names_port, stranger))
        host = HttpHost(
            http_port=chosen.http_port,
            https_port=chosen.https_port,
            names_port=chosen.names_port if self.is_live else 0,
            user=f"{user} {facts.group}" if user and facts.group else user,
            ipv6=self.inputs.facts.ipv6 and not (self.is_live and not speaks_ipv6()),
            http2_is_directive=facts.version >= HTTP2_DIRECTIVE,
        )
        return IngressOptions(
            selection=chosen.selection,
            prefix=chosen.annotations_prefix,
            host=host,
            config_map=chosen.configmap,
            default_certificate=chosen.default_ssl_certificate,
            made_up_certificate=SecretFile(content=self.default_certificate),
            default_backend=chosen.default_backend_service,
            refuses_names=chosen.disable_svc_external_name,
            resolvers=self._resolvers(facts.resolvers),
            families=tuple(self.inputs.facts.families),
            node=self.inputs.options.node_name or self.inputs.facts.hostname,
            forbidden=self._forbidden(self.inputs.facts),
            now=dt.datetime.now(dt.UTC),
            most_hosts=chosen.max_namespace_hosts,
        )

    @cached_property
    def live(self) -> NginxDeployment:
        """What nginx of this host serves, and is to serve."""
        return NginxDeployment(
            self.service,
            self.templates,
            self.options,
            self.notes,
            tries_aside=self.tries_aside,
            look=self._refreshed,
        )

    def _forbidden(self, facts: HostFacts) -> Forbidden:
        """Return what of a host nginx connects to for no Ingress."""
        chosen = self.chosen
        ports = (chosen.http_port, chosen.https_port)
        return replace(of_host(facts), allowed=chosen.ingress_allow_endpoint, ports=ports)

    def _resolvers(self, known: Iterable[Address | str]) -> tuple[str, ...]:
        """Return name servers as text; none where nginx would ask another user of the host instead of us."""
        return () if self._stranger is not None else tuple(map(str, known))

    @property
    def _stranger(self) -> int | None:
        return control.stranger(self.chosen.names_port) if self.is_live else None

    def _refreshed(self, options: IngressOptions) -> IngressOptions:
        """Return options with what the host is now: name servers, addresses, gateways, and whether it speaks IPv6.

        Name servers that are gone stay: resolv.conf(5) is empty for a moment whenever another one is written.
        """
        speaks, facts = speaks_ipv6(), self.inputs.facts
        if not self.inputs.chosen.host:
            facts = replace(facts, ipv6=speaks, interfaces=interfaces(), gateways=gateways())
        return replace(
            options,
            host=replace(options.host, ipv6=facts.ipv6 and speaks),
            resolvers=self._resolvers(resolvers()) or self._resolvers(options.resolvers),
            families=tuple(facts.families),
            forbidden=self._forbidden(facts),
        )

    @cached_property
    def observed(self) -> Configuration | None:
        """What nginx serves from its folder; None where it serves nothing, or nobody can tell."""
        return self.live.observed() if self.is_live else None

    @cached_property
    def known(self) -> KnownObjects:
        """What objects said when they were last read for the nginx of this host."""
        return KnownObjects(self.chosen.folder)

    @cached_property
    def completed(self) -> CompletedSnapshot:
        """The objects; with what is known from before of those that an API server does not let be read, or of classes.

        Files are all there is to be known.
        """
        known = self.known.objects if self.is_live and not self.inputs.chosen.files else {}
        self.notes.extend(self.known.notes)
        return completed(self.inputs.world, self.options, known, lambda _: "", may_be_gone=False)

    @cached_property
    def site(self) -> NginxSite:
        """The configuration, without the Ingresses that nginx does not take."""
        world = self.completed.world
        self.inputs.progress(f"resolving {len(world.ingresses):,} Ingresses …")
        if not self.is_live:
            return compile_ingress(world, self.options, self.templates, served=False)
        return self.live.settled(world, self.observed)

    @cached_property
    def plan(self) -> NginxPlan:
        """What changes for nginx."""
        if not self.is_live:
            return plan_site(None, self.site.configuration, self.site.names)
        return self.live.plan(self.site, self.observed)

    @cached_property
    def taken_ports(self) -> tuple[str, ...]:
        """Who else holds a port that nginx is to listen on once the plan is applied, in words."""
        return self.live.taken_ports(self.site) if self.is_live and self.plan.reload else ()

    @property
    def told(self) -> str:
        """Against what the plan is made."""
        if not self.is_live:
            return show.NO_SITE
        return f"{self.chosen.folder}, {'which serves nothing yet' if self.observed is None else 'as it is served'}"

    def apply(self) -> list[str]:
        """Have nginx serve it; return what was done, in lines.

        Raises:
            HostError: It cannot be done; says what is served.
        """
        outcome = self.live.apply(self.site)
        try:
            self.known.keep(renewed(*self.completed, self.options))
        except HostError as error:
            self.notes.append(error.message)
        took = f" in {outcome.seconds:.2f} s" if outcome.seconds else ""
        done = () if outcome.action is NginxAction.NOTHING else (f"nginx {outcome.action.value}{took}",)
        return [*done, *outcome.notes, *self.notes]


def plan_ingress(ingress: IngressInputs, plan: Plan, report: Report) -> tuple[Plan, Report]:
    """Return a plan and its report with what Ingresses add to them."""
    site_plan = ingress.plan
    model = ingress.site.model
    taken = (f"{line}: nginx cannot listen there, so apply fails" for line in ingress.taken_ports)
    warnings = (*report.warnings, *ingress.notes, *taken)
    return with_site(plan, site_plan), replace(report, reasons=model.reasons, site=ingress.told, warnings=warnings)


def export_site(ingress: IngressInputs, folder: str, *, with_secrets: bool) -> None:
    """Write a configuration for reading, which plain nginx takes, and where each location of it comes from."""
    site = ingress.site
    configuration = site.configuration
    ingress.inputs.progress("")
    secrets = {path: secret.content for path, secret in configuration.secrets.items()}
    if not with_secrets:
        secrets = {path: _placeholder(path, ingress.default_certificate) for path in secrets}
    document = {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "Provenance",
        "locations": site.provenance,
        "reasons": [str(reason) for reason in site.model.reasons],
    }
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    write_site(folder, {**configuration.files, "provenance.json": f"{text}\n"}, secrets)
    report = replace(ingress.inputs.report("nothing"), reasons=site.model.reasons)
    for line in show.notes(report):
        note(line)
    hint = "" if with_secrets else "; certificates are placeholders (--with-secrets writes the real ones)"
    print_lines([f"{folder}: {len(configuration.files)} files, for nginx -t -p {folder} -c nginx.conf{hint}"])


def _placeholder(path: str, certificate: bytes) -> bytes:
    return b"nobody:!\n" if path.endswith(".htpasswd") else certificate
