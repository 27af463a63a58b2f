"""HAProxy as a row of the table of ingress engines: its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from rulegen.cli.engines.haproxy.defaults import HAPROXY_DIR, NAMES_PORT
from rulegen.cli.engines.row import EngineRow, FolderName
from rulegen.host.doctor.findings import Level
from rulegen.host.doctor.tool import Tool

if TYPE_CHECKING:
    from rulegen.cli.engines.row import ChosenEngine


def _choice(**given: Any) -> ChosenEngine:
    from rulegen.cli.engines.haproxy.program import (  # noqa: PLC0415 - loads compilers, which most commands do not need
        ChosenHaproxy,
    )

    return ChosenHaproxy(**given)


HAPROXY: Final = EngineRow(
    name="haproxy",
    choice=_choice,
    place=(
        click.option(
            "--haproxy-dir",
            type=FolderName(),
            default=HAPROXY_DIR,
            show_default=True,
            metavar="DIR",
            help="Folder for HAProxy's files: configuration, keys, logs and sockets.",
        ),
        click.option(
            "--haproxy-binary", default="haproxy", show_default=True, metavar="PATH", help="HAProxy executable."
        ),
    ),
    live=(
        click.option(
            "--haproxy-names-port",
            type=click.IntRange(1, 65535),
            default=NAMES_PORT,
            show_default=True,
            help="UDP port, on 127.0.0.1 and 127.0.0.2, of the DNS resolver that rulegen runs for HAProxy.",
        ),
    ),
    export_help="Folder for HAProxy's configuration for Ingresses. Created if missing.",
    tools=(Tool("haproxy", "-v", "ingress", Level.INFO),),
)
