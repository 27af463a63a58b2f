"""`rulegen completion`: commands, options and values of rulegen for the Tab key of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rulegen.cli.terminal.console import print_lines


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and values in a shell.

    \b
    source <(rulegen completion bash)                                       in ~/.bashrc
    source <(rulegen completion zsh)                                        in ~/.zshrc, after compinit
    rulegen completion fish > ~/.config/fish/completions/rulegen.fish       once
    """
    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 - the type of the argument allows no other shell
    # `kubectl rulegen` is not completed by this script: kubectl asks a program of its own for it.
    print_lines(completion(context.find_root().command, {}, "rulegen", "_RULEGEN_COMPLETE").source().splitlines())
