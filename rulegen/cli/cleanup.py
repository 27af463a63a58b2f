"""`rulegen cleanup`: remove what is ours."""

from __future__ import annotations

from typing import Any

import click

from rulegen.cli.inputs import Inputs, observe_live
from rulegen.cli.options import LOCK_WAIT, OUTPUT, YES, Chosen, variant_option
from rulegen.cli.writing import write
from rulegen.plan.show import Report
from rulegen.road import plan_cleanup


@click.command("cleanup")
@variant_option
@LOCK_WAIT
@YES
@OUTPUT
def command(output: str, wait_s: int, *, yes: bool, **chosen: Any) -> None:
    """Remove our chains and jumps from this host, and nothing else; what kube-proxy wrote counts as ours.

    Services stop working through this node. Where a kubelet is at work, the chain that it shares with us stays.

    \b
    rulegen cleanup
    rulegen cleanup --variant legacy
    """
    inputs = Inputs(Chosen(**chosen))
    with inputs.progress:
        choice, observed = observe_live(inputs, flows=False)
        plan = plan_cleanup(inputs.options.mode, observed)
    report = Report(node=inputs.facts.hostname, mode="no", observed=f"iptables-{choice.variant} ({choice.reason})")
    write(plan, report, choice.variant, output=output, wait_s=wait_s, yes=yes)
