"""Where the deployment is, and what the command line takes."""

from __future__ import annotations

import click

from rulegen.cli.main import cli
from tests.project.places import ROOT

DEPLOY = ROOT / "deploy"
KUSTOMIZE = DEPLOY / "kustomize"
OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUSTOMIZE / "components").iterdir())


def options(command: str) -> set[str]:
    """Return all options of a command, by name."""
    declared = cli.get_command(click.Context(cli), command)
    assert declared is not None
    return {
        name
        for parameter in declared.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def unknown(words: list[str]) -> set[str]:
    """Return the options in the arguments of `run` that it does not have, nor shares with `apply`."""
    return {word.partition("=")[0] for word in words if word.startswith("-")} - options("run")
