"""Words of kubectl, terraform, helm and other tools, and what rulegen has instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAN: Final = "`{program} plan` shows what would change, and changes nothing"
_APPLY: Final = "`{program} apply` shows the plan, asks, and writes it"
_RUN: Final = "`{program} run` watches the cluster and keeps this node's rules up to date"
_CLEANUP: Final = "`{program} cleanup` removes the rules of rulegen and kube-proxy from this node"
_EXPORT: Final = "`{program} export` writes rules and configuration to files"
_DOCTOR: Final = "`{program} doctor` checks this host"
_HELP: Final = "`{program} --help` lists the commands, `{program} plan --help` the options of plan"
_YES: Final = "--yes writes without asking"
_COLOUR: Final = "set NO_COLOR=1"
_NODE: Final = "--node NAME is the node, and --host FILE has its facts"

COMMANDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("check", "preflight", "status", "verify"), _DOCTOR),
    **dict.fromkeys(("agent", "daemon", "serve", "start", "watch"), _RUN),
    **dict.fromkeys(("create", "deploy", "install", "patch", "reconcile", "replace", "sync", "update"), _APPLY),
    **dict.fromkeys(("delete", "destroy", "flush", "remove", "reset", "rollback", "uninstall"), _CLEANUP),
    **dict.fromkeys(("describe", "diff", "dry-run", "get", "list", "preview", "refresh"), _PLAN),
    **dict.fromkeys(("build", "compile", "convert", "dump", "generate", "render", "save", "template"), _EXPORT),
    "help": _HELP,
    "version": "`{program} --version` shows the version",
}
"""The next step for each command of other tools that rulegen does not have."""

OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("--assume-yes", "--auto-approve", "--force", "--no-prompt"), _YES),
    **dict.fromkeys(("--dry-run", "--server-side", "--what-if"), _PLAN),
    **dict.fromkeys(("--file", "--files", "--manifest", "--manifests"), "-f PATH reads manifests"),
    **dict.fromkeys(("--no-color", "--no-colour"), _COLOUR),
    "--json": "-o json prints JSON",
    **dict.fromkeys(("--nodename", "--node-name"), _NODE),
    **dict.fromkeys(("--proxy-mode", "--backend"), "--mode NAME is how Services are implemented"),
    "-V": "`{program} --version` shows the version",
    "--detailed-exit-code": "--detailed-exitcode, without a dash in the middle, as in terraform",
    "--recursive": "-f FOLDER reads all YAML and JSON files below a folder",
    "-R": "-f FOLDER reads all YAML and JSON files below a folder",
    "-k": "`kubectl kustomize FOLDER | {program} plan -f -` reads the output of kustomize",
    "--master": "--kubeconfig FILE names the API server and has the credentials",
}
"""The next step for each option of other tools that the command does not have."""

FILTERS: Final = frozenset(("-n", "--namespace", "-A", "--all-namespaces", "-l", "--selector", "--ingress-host"))
"""Options of `plan` that narrow what is shown; `apply` has none of them."""

_WHOLE: Final = (
    "apply always writes the whole plan, because Services share chains, sets and the node's own rules; `{program} plan`"
    " with the same filter shows that part of the plan"
)

_FORMATS: Final = "-o json prints JSON; `{program} export` writes rules and configuration as files"


def next_step(error: click.UsageError, program: str) -> str:
    """Return what somebody probably wants who has typed something unknown; empty if nothing is known.

    Args:
        error: What click could not parse.
        program: How the program was called, such as `kubectl rulegen`.
    """
    match error:
        case click.exceptions.NoSuchCommand():
            step = COMMANDS.get(error.command_name, "")
        case click.NoSuchOption(ctx=click.Context(command=click.Command(name="apply"))) if error.option_name in FILTERS:
            step = _WHOLE
        case click.NoSuchOption():
            step = OPTIONS.get(error.option_name, "")
        case click.BadParameter(param=click.Option() as option) if _is_from_variable(error, option):
            step = f"correct or unset the environment variable {option.envvar}"
        case click.BadParameter(param=click.Option(name="output")):
            step = _FORMATS
        case _:
            step = ""
    return step.format(program=program)


def _is_from_variable(error: click.UsageError, option: click.Option) -> bool:
    """Whether a value came from the environment."""
    source = error.ctx.get_parameter_source(option.name) if error.ctx is not None and option.name else None
    return source is ParameterSource.ENVIRONMENT
