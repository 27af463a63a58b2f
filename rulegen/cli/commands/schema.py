"""`rulegen schema`: JSON Schemas of what the commands print as JSON."""

from __future__ import annotations

import click

from rulegen.cli.json_schemas import SCHEMAS
from rulegen.cli.terminal.console import print_json


@click.command("schema")
@click.argument("name", metavar="NAME", type=click.Choice(list(SCHEMAS)))
def command(name: str) -> None:
    """Print the JSON Schema of a document.

    \b
    plan              output of plan, apply and cleanup with -o json
    fleet-plan        output of plan --observed-dir with -o json
    dumped-services   output of show -o json
    findings          output of doctor -o json
    saved-plan        file of plan --out
    error             error of any command with -o json
    model             model.json of export, and page /model of run
    provenance        provenance.json of export
    rules             page /rules of run
    health            pages /healthz and /livez of run
    service-health    answer of a health check node port of run
    log               one line of run --log-format json

    \b
    rulegen schema plan
    """
    print_json(SCHEMAS[name])
