"""Options from environment variables: `RULEGEN_MODE=ipvs` is `--mode ipvs`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PREFIX: Final = "RULEGEN_"
_ON_THE_COMMAND_LINE_ONLY: Final = ("yes", "with-secrets", "out", "output", "help", "version")
"""Consent, and what writes a file or secrets, must stand in the command that somebody types. `--output` is a format for
most commands and a folder for export."""
_SIMILARITY: Final = 0.8


def variable(option: click.Option) -> str:
    """Return the environment variable of an option; empty if the option has none."""
    name = next((name.removeprefix("--") for name in option.opts if name.startswith("--")), "")
    if not name or "allow" in name.split("-") or name in _ON_THE_COMMAND_LINE_ONLY:
        return ""
    return PREFIX + name.upper().replace("-", "_")


def read_variables(command: click.Command) -> None:
    """Let the options of a command have values from the environment; the command line has priority.

    The values of an option that can be repeated are separated by spaces.
    """
    for option in _options(command):
        option.envvar = variable(option) or None


def misspelled(
    environment: Mapping[str, str], command: click.Command, commands: Callable[[], Iterable[click.Command]]
) -> dict[str, str]:
    """Return variables that are similar to the variable of an option but not equal, each with that variable.

    Args:
        environment: The environment. Kubernetes adds variables for Services, such as `RULEGEN_SERVICE_HOST`; they are
            not similar to any.
        command: The command that runs.
        commands: Returns all commands. Called only if a variable is similar to one of `command`, because it is slow.
    """
    known = {variable(option).removeprefix(PREFIX) for option in _options(command)} - {""}
    given = sorted(name.removeprefix(PREFIX) for name in environment if name.startswith(PREFIX))
    similar = {name: get_close_matches(name, known, 1, _SIMILARITY) for name in given if name not in known}
    if not any(similar.values()):
        return {}
    others = {variable(option).removeprefix(PREFIX) for other in commands() for option in _options(other)}
    return {PREFIX + name: PREFIX + matches[0] for name, matches in similar.items() if matches and name not in others}


def _options(command: click.Command) -> Iterator[click.Option]:
    return (param for param in command.params if isinstance(param, click.Option))
