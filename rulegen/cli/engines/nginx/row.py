"""nginx as a row of the table of ingress engines: its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from rulegen.cli.engines.nginx.defaults import NAMES_PORT, NGINX_DIR
from rulegen.cli.engines.row import EngineRow, FolderName
from rulegen.host.doctor.findings import Level
from rulegen.host.doctor.tool import Tool

if TYPE_CHECKING:
    from rulegen.cli.engines.row import ChosenEngine


def _choice(**given: Any) -> ChosenEngine:
    from rulegen.cli.engines.nginx.program import (  # noqa: PLC0415 - loads compilers, which most commands do not need
        ChosenNginx,
    )

    return ChosenNginx(**given)


NGINX: Final = EngineRow(
    name="nginx",
    choice=_choice,
    place=(
        click.option(
            "--nginx-dir",
            type=FolderName(),
            default=NGINX_DIR,
            show_default=True,
            metavar="DIR",
            help="Folder for nginx's files: configuration, keys, logs and sockets.",
        ),
        click.option("--nginx-binary", default="nginx", show_default=True, metavar="PATH", help="nginx executable."),
    ),
    live=(
        click.option(
            "--names-port",
            type=click.IntRange(1, 65535),
            default=NAMES_PORT,
            show_default=True,
            help="UDP port, on 127.0.0.1 and 127.0.0.2, of the DNS resolver that rulegen runs for nginx.",
        ),
    ),
    form=(
        click.option(
            "--nginx-templates",
            metavar="DIR",
            help="Folder with your own version of nginx_templates/. Default: the templates of this package.",
        ),
        click.option(
            "--nginx-user",
            default="",
            metavar="USER",
            help="User of nginx's workers.  [default: the first of rulegen-nginx, www-data, nginx and nobody that"
            " exists]",
        ),
    ),
    export_help="Folder for nginx's configuration for Ingresses. Created if missing.",
    tools=(Tool("nginx", "-v", "ingress", Level.INFO),),
)
