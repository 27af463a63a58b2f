"""`rulegen man`: the manual pages."""

from __future__ import annotations

from typing import Final

import click

from rulegen.cli.manual import man_page
from rulegen.cli.terminal.console import print_lines

EXIT_CODES: Final = (
    ("0", "Success. With plan --detailed-exitcode: nothing would change."),
    ("1", "An error, including wrong usage. For doctor: something must be fixed."),
    ("2", "With plan --detailed-exitcode: something would change."),
    ("3", "With --strict, for plan and apply: part of an Ingress is not served as specified."),
    ("130", "Interrupted."),
)


@click.command("man")
@click.argument("page", metavar="[COMMAND]", required=False)
@click.pass_context
def command(context: click.Context, page: str | None) -> None:
    """Print the manual page of a command, or of rulegen itself. It has the same text as --help.

    \b
    rulegen man plan | man -l -                                   read it
    rulegen man plan > /usr/local/share/man/man8/rulegen-plan.8   install it for `man rulegen-plan`
    """
    root = context.find_root()
    group = root.command
    assert isinstance(group, click.Group)  # noqa: S101 - this command belongs to a group
    names = group.list_commands(root)
    shown = root
    if page is not None:
        _, named, _ = group.resolve_command(root, [page])
        assert named is not None  # noqa: S101 - an unknown name is an error
        shown = click.Context(named, parent=root, info_name=page, help_option_names=root.help_option_names)
    root.info_name = "rulegen"
    text = man_page(shown, ["rulegen", *(f"rulegen-{name}" for name in names)], EXIT_CODES)
    print_lines(text.splitlines())
