"""Values of options that are paths: a shell completes them as files or folders."""

from __future__ import annotations

from typing import Any, Final

import click
from click.shell_completion import CompletionItem

_KINDS: Final = {"FILE": "file", "PATH": "file", "PATH|none": "file", "DIR": "dir"}
"""What the shell completes, by the metavar of the option."""


class PathText(click.ParamType[str]):
    """A path, which is checked when it is read."""

    name = "path"

    def __init__(self, kind: str) -> None:
        """Complete files (`file`) or folders (`dir`)."""
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's signature
        """Return the path as it was given."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:  # noqa: ARG002 - click's signature
        """Let the shell complete it."""
        return [CompletionItem(incomplete, type=self.kind)]


def complete_paths(command: click.Command) -> None:
    """Let a shell complete the paths among the options of a command."""
    for option in command.params:
        if isinstance(option, click.Option) and option.type is click.STRING and option.metavar in _KINDS:
            option.type = PathText(_KINDS[option.metavar])
