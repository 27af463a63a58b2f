"""`rulegen demo`: all commands at work, on a node in network namespaces."""

from __future__ import annotations

import os
import signal

import click

from rulegen.cli.terminal.console import has_colour, print_lines
from rulegen.errors import HostError
from rulegen.kube.proxyconfig.modes import DEFAULT_MODE, MODES
from rulegen.model.services.modes import NEEDS


@click.command("demo")
@click.option(
    "--mode",
    type=click.Choice(tuple(MODES)),
    default=DEFAULT_MODE,
    show_default=True,
    help="How Services are implemented on the demo node.",
)
def command(mode: str) -> None:
    """Show rulegen at work: a plan, apply, a rolling update under load, an Ingress, and an empty plan at the end.

    The demo creates a node, the Pods of a blog and an outside client in network namespaces, and removes them at the
    end. The rules of this machine are not touched. Needs root.

    \b
    rulegen demo
    rulegen demo --mode ipvs      needs a kernel with IPVS
    """
    from rulegen.demo.screen import Paint  # noqa: PLC0415 - so that help is quick
    from rulegen.demo.story import play  # noqa: PLC0415 - the same
    from rulegen.host.commands.runner import run  # noqa: PLC0415 - the same
    from rulegen.host.ipvs import servers  # noqa: PLC0415 - the same

    if os.geteuid() != 0:
        raise HostError("network namespaces need root", hint="run it as root: sudo rulegen demo")
    if NEEDS[mode].has_virtual_servers:
        servers.load(run, ("rr",))
    # Whatever ends the demo, such as Ctrl-C, everything must be removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    play(lambda line: print_lines([line], colour=has_colour()), Paint(colour=has_colour()), mode)
