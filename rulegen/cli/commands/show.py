"""`rulegen show`: what a node's dumps say in terms of Services."""

from __future__ import annotations

import click

from rulegen.cli.command_tables import command_tables
from rulegen.cli.options.common import OUTPUT
from rulegen.cli.options.paths import PathText
from rulegen.cli.terminal.console import has_colour, print_json, print_long
from rulegen.compiler.dumped.read import as_services
from rulegen.plan.dumped.document import dump_document
from rulegen.plan.dumped.text import text


@click.command("show")
@click.argument("dumps", nargs=-1, required=True, metavar="DUMP...", type=PathText("file"))
@click.option("-v", "--verbose", is_flag=True, help="List all endpoints and foreign rules.")
@click.option("--no-pager", is_flag=True, help="Do not use a pager for an output longer than the terminal.")
@OUTPUT
def command(dumps: tuple[str, ...], *, verbose: bool, no_pager: bool, output: str) -> None:
    """Show which Services a node serves, from its dumps alone. Needs no objects and no cluster.

    DUMP is a file, a folder, or - for standard input. Dumps are the output of iptables-save, ip6tables-save, ipset
    save, ipvsadm -Sn, ip -br addr, and nft list ruleset with or without -j, and services.proxy of `rulegen export`.
    The output also lists rules that neither rulegen nor kube-proxy writes, and parts that the dumps do not contain.

    \b
    rulegen show web-1/                                   all dumps in a folder
    rulegen show iptables.save ip6tables.save             some files
    ssh root@web-1 iptables-save | rulegen show -         a node, from a laptop
    rulegen show web-1/ -o json                           for scripts
    """
    from rulegen.host.files.dumps import read_dumps  # noqa: PLC0415 - loads all languages, which help does not need

    read = read_dumps(dumps, command_tables().tables.languages, needs_rules=False)
    node = as_services(read.states, dumps, read.warnings)
    if output == "json":
        print_json(dump_document(node))
        return
    colour = has_colour()
    print_long(text(node, colour=colour, verbose=verbose), colour=colour, pager=not no_pager)
