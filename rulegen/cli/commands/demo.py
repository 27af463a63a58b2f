"""`rulegen demo`: all of it at work, on a node that exists for that only."""

from __future__ import annotations

import os
import signal

import click

from rulegen.cli.terminal.console import has_colour, print_lines
from rulegen.errors import HostError


@click.command("demo")
@click.option(
    "--mode",
    type=click.Choice(["iptables", "ipvs"]),
    default="iptables",
    show_default=True,
    help="How Services are made to work on the node.",
)
def command(mode: str) -> None:
    """Show all of it: plan, apply, a roll-over under load, an Ingress, a plan that is empty.

    A node, the pods of a blog and a client outside are made in network namespaces of their own and are gone when the
    demo ends. The rules of this machine are not touched. Needs root.

    \b
    rulegen demo
    rulegen demo --mode ipvs      where the kernel has IPVS
    """
    from rulegen.demo.screen import Paint  # noqa: PLC0415 - so that help is quick
    from rulegen.demo.story import play  # noqa: PLC0415 - the same
    from rulegen.host.commands.runner import run  # noqa: PLC0415 - the same
    from rulegen.host.ipvs import servers  # noqa: PLC0415 - the same

    if os.geteuid() != 0:
        raise HostError("network namespaces need root", hint="run it as root: sudo rulegen demo")
    if mode == "ipvs":
        servers.load(run, ("rr",))
    # Whoever ends it, by Ctrl-C or otherwise, nothing may be left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    play(lambda line: print_lines([line], colour=has_colour()), Paint(colour=has_colour()), mode)
