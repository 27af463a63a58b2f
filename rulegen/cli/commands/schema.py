"""`rulegen schema`: JSON Schemas of what the commands print as JSON."""

from __future__ import annotations

import click

from rulegen.cli.json_schemas import SCHEMAS
from rulegen.cli.terminal.console import print_json


@click.command("schema")
@click.argument("name", metavar="NAME", type=click.Choice(list(SCHEMAS)))
def command(name: str) -> None:
    """Print the JSON Schema of a document.

    plan is that of plan, apply and cleanup with -o json; fleet-plan that of plan --observed-dir; dumped-services that
    of show; findings that of doctor; saved-plan that of plan --out; model and provenance those of files of export;
    error that of an error of any command with -o json. rules, health, service-health and log are those of run: its
    pages and its log.

    \b
    rulegen schema plan
    """
    print_json(SCHEMAS[name])
