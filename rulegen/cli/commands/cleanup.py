"""`rulegen cleanup`: remove what is ours."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from rulegen.cli.options.common import LOCK_WAIT, OUTPUT, YES, CliOptions, no_services_option, variant_option
from rulegen.cli.options.ingress import BINARY, FOLDER, ChosenIngress
from rulegen.cli.wiring.inputs import Inputs, observe_live
from rulegen.cli.wiring.writing import write
from rulegen.compiler.services.compile import beside_warning, plan_cleanup
from rulegen.host.commands.runner import run
from rulegen.host.nginx.service import NginxService
from rulegen.plan.nginx import NginxPlan, plan_ending
from rulegen.plan.plan import Plan, with_site
from rulegen.plan.show import Report

if TYPE_CHECKING:
    from rulegen.host.netfilter.variant import Variant

DRAIN_S = 300.0
"""Longer than nginx itself gives old connections by default (worker_shutdown_timeout, 240 s)."""


@click.command("cleanup")
@variant_option
@LOCK_WAIT
@YES
@OUTPUT
@click.option("--ingress", is_flag=True, help="End nginx too, once it has answered what it was asked, and its folder.")
@FOLDER
@BINARY
@no_services_option
def command(output: str, wait_s: int, *, yes: bool, no_services: bool, **chosen: Any) -> None:
    """Remove what is ours from this host, of whatever mode, and nothing else; what kube-proxy wrote counts as ours.

    That is our chains and jumps, our ipsets, the device kube-ipvs0, and virtual servers that our sets or that device
    tell to be ours. Virtual servers of others stay.

    Services stop working through this node. Where a kubelet is at work, the chain that it shares with us stays.

    \b
    rulegen cleanup
    rulegen cleanup --variant legacy
    rulegen cleanup --ingress --no-services      nginx alone
    """
    ingress = ChosenIngress.of(chosen)
    ingress.refuse_nothing(no_services=no_services, verb="remove")
    inputs = Inputs(CliOptions(**chosen))
    service = NginxService(ingress.folder, run, binary=ingress.nginx_binary) if ingress.ingress else None
    variant = None
    with inputs.progress:
        site = _planned_end(service) if service is not None else None
        if no_services:
            plan = Plan()
            report = Report(node=inputs.facts.hostname, mode="no", observed="nothing, as rules are left alone")
        else:
            plan, report, variant = _planned_rules(inputs)
    if site is not None and service is not None:
        plan = with_site(plan, site)
        report = replace(report, site=f"{service.folder}{'' if site.items else ', where none was ever started'}")
    ends = partial(_end, service, site) if service is not None and site is not None and site.items else None
    write(plan, report, variant, output=output, wait_s=wait_s, yes=yes, nginx_before=ends)


def _planned_rules(inputs: Inputs) -> tuple[Plan, Report, Variant]:
    """Return what must go of rules and what belongs to them, in both variants of iptables unless one is demanded."""
    choice, observed = observe_live(inputs, flows=False)
    other = choice.variant.other
    plan = plan_cleanup(
        inputs.options.mode,
        observed,
        {address for family in inputs.facts.families for address in inputs.facts.addresses(family)},
        inputs.options.ipvs_excluded,
        facts=inputs.facts,
        beside=str(other) if inputs.chosen.forced_variant is None else "",
    )
    takes_both = any(item.variant for item in plan.items)
    seen = f"iptables-{choice.variant} ({choice.reason})"
    if takes_both:
        seen = f"iptables-{choice.variant} ({choice.reason}), and iptables-{other}, where chains are ours too"
    left = "" if takes_both else beside_warning(observed, choice.variant)
    warnings = (*inputs.warnings, *filter(None, [left]), *plan.notes)
    return plan, Report(node=inputs.facts.hostname, mode="no", observed=seen, warnings=warnings), choice.variant


def _planned_end(service: NginxService) -> NginxPlan:
    """Return what must go of nginx and its folder."""
    exists = service.has_begun()
    return plan_ending(str(service.folder), exists=exists, runs=exists and service.runs())


def _end(service: NginxService, site: NginxPlan) -> list[str]:
    """End the nginx of a folder and remove the folder; return what was done, in lines."""
    in_time = service.drain(DRAIN_S, remove=True)
    if not site.runs:
        return [f"no nginx ran in {service.folder}; the folder was removed"]
    return [f"nginx in {service.folder} has ended" + ("" if in_time else "; connections that lasted were cut")]
