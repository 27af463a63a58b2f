"""`rulegen cleanup`: remove what is ours."""

from __future__ import annotations

import sys
from typing import Any

import click

from rulegen.cli.console import note
from rulegen.cli.ingress_options import BINARY, FOLDER, ChosenIngress
from rulegen.cli.inputs import Inputs, observe_live
from rulegen.cli.options import LOCK_WAIT, OUTPUT, YES, Chosen, no_services_option, variant_option
from rulegen.cli.writing import write
from rulegen.host.nginx.service import NginxService
from rulegen.host.runner import run
from rulegen.plan.show import Report
from rulegen.road import plan_cleanup

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
    if ingress.ingress:
        _drain(ingress, yes=yes)
    if no_services:
        return
    inputs = Inputs(Chosen(**chosen))
    with inputs.progress:
        choice, observed = observe_live(inputs, flows=False)
        plan = plan_cleanup(
            inputs.options.mode,
            observed,
            {address for family in inputs.facts.families for address in inputs.facts.addresses(family)},
            inputs.options.ipvs_excluded,
        )
    report = Report(node=inputs.facts.hostname, mode="no", observed=f"iptables-{choice.variant} ({choice.reason})")
    write(plan, report, choice.variant, output=output, wait_s=wait_s, yes=yes)


def _drain(ingress: ChosenIngress, *, yes: bool) -> None:
    """End the nginx of a folder, and take the folder away."""
    service = NginxService(ingress.folder, run, binary=ingress.nginx_binary)
    is_there = ingress.folder.exists()
    if is_there and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm(f"End nginx in {ingress.folder} and remove that folder?", abort=True, err=True)
    in_time = service.drain(DRAIN_S, remove=True)
    if is_there:
        note(f"nginx in {ingress.folder} has ended" + ("" if in_time else "; connections that lasted were cut"))
