"""`rulegen doctor`: checks this host."""

from __future__ import annotations

from typing import Any

import click

from rulegen.cli.engines.table import ENGINES
from rulegen.cli.options.common import OUTPUT, CliOptions, local_traffic_options, node_port_range_option, variant_option
from rulegen.cli.terminal.console import has_colour, print_json, print_lines
from rulegen.cli.wiring.inputs import Inputs
from rulegen.host.commands.runner import run
from rulegen.host.doctor.checks import examine
from rulegen.host.doctor.findings import as_document, as_text


@click.command("doctor")
@local_traffic_options
@variant_option
@node_port_range_option
@OUTPUT
def command(output: str, **chosen: Any) -> int:
    """Check this host and suggest fixes. Changes nothing.

    Checks tools, the iptables variant, rules of both variants, leftovers of older proxies, kernel parameters, ports
    in use, and whether traffic from this node's Pods can be recognised with this configuration. Loads sample rules in
    a temporary network namespace. Exits with 1 if something must be fixed.

    \b
    rulegen doctor --config kube-proxy.yaml
    rulegen doctor -o json
    """
    asked = CliOptions(**chosen)
    options = Inputs(asked).options
    findings = examine(
        run,
        forced=asked.forced_variant,
        node_ports=asked.node_port_range,
        options=options,
        engine_tools=tuple(tool for row in ENGINES.values() for tool in row.tools),
    )
    if output == "json":
        print_json(as_document(findings))
    else:
        print_lines([as_text(findings, colour=has_colour())], colour=has_colour())
    return int(any(finding.is_failure for finding in findings))
