"""Words of kubectl, terraform, helm and other tools, and what rulegen has instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLAN: Final = "`{program} plan` shows what would change, and changes nothing"
_APPLY: Final = "`{program} apply` shows the plan, asks, and writes it"
_RUN: Final = "`{program} run` watches the cluster and keeps this node's rules up to date"
_CLEANUP: Final = "`{program} cleanup` removes the rules of rulegen and kube-proxy from this node"
_EXPORT: Final = "`{program} export` writes rules and configuration to files"
_DOCTOR: Final = "`{program} doctor` checks this host"
_HELP: Final = "`{program} --help` lists the commands, `{program} plan --help` the options of plan"
_YES: Final = "--yes writes without asking"
_COLOUR: Final = "set NO_COLOR=1"
_PREVIEW: Final = "`{program} plan` reads and checks manifests: -f PATH --observed none needs no cluster"
_NO_STATE: Final = "`{program} plan` needs no preparation and keeps no state: it reads the cluster and this node"
_LOGS: Final = "`{program} run` logs to standard error: `journalctl -u rulegen`, or `kubectl logs` for its Pod"
_WATCH: Final = _RUN + "; its page /plan shows what would change"
_PART: Final = "`{program} plan NAMESPACE/NAME` shows one Service, -n and -l several"
_NODE: Final = "--node NAME selects the node, and --host FILE contains its facts"

COMMANDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("check", "preflight", "status", "verify"), _DOCTOR),
    **dict.fromkeys(("agent", "daemon", "serve", "start", "watch"), _RUN),
    **dict.fromkeys(("create", "deploy", "install", "patch", "reconcile", "replace", "sync", "update"), _APPLY),
    **dict.fromkeys(("delete", "destroy", "flush", "remove", "reset", "rollback", "uninstall"), _CLEANUP),
    **dict.fromkeys(("describe", "diff", "dry-run", "get", "list", "preview", "refresh"), _PLAN),
    **dict.fromkeys(("fmt", "lint", "test", "validate"), _PREVIEW),
    **dict.fromkeys(("import", "init", "login", "output", "state", "workspace"), _NO_STATE),
    **dict.fromkeys(("events", "logs", "top"), _LOGS),
    **dict.fromkeys(("explain", "inspect", "why"), _PLAN + "; -v names the reason for each rule"),
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
    "--silent": "`{program} plan -q` shows only the totals, and --detailed-exitcode reports changes by the exit code",
    **dict.fromkeys(("--follow", "--watch"), _WATCH),
    **dict.fromkeys(("--resource", "--target"), _PART),
    "--destroy": _CLEANUP,
    "--field-selector": _PART,
    "--label": "-l SELECTOR shows Services with these labels",
    "--prune": "`{program} apply` always removes what no object needs any more",
    "--json": "-o json prints JSON",
    **dict.fromkeys(("--nodename", "--node-name"), _NODE),
    **dict.fromkeys(("--proxy-mode", "--backend"), "--mode NAME selects how Services are implemented"),
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

UNQUOTED: Final = "a path needs an -f of its own; quote a pattern, so that the shell does not expand it: -f '*.yaml'"
"""The next step for a path where none is expected."""
_ONE_DASH: Final = re.compile(r"-[a-z][a-z-]+(=.*)?", re.DOTALL)
_UNEXPECTED: Final = re.compile("Got unexpected extra argument")
_INPUTS: Final = frozenset(("-f", "--file", "--filename", "--observed"))
_FORMATS: Final = "-o json prints JSON; `{program} export` writes rules and configuration as files"


def next_step(error: click.UsageError, program: str, arguments: Sequence[str] = ()) -> str:
    """Return a hint for a user who has typed something unknown; empty if there is none.

    Args:
        error: What click could not parse.
        program: How the program was called, such as `kubectl rulegen`.
        arguments: The words of the command line.
    """
    match error:
        case click.NoSuchOption() | click.BadParameter() if step := _with_two_dashes(error, arguments):
            return step.format(program=program)
        case click.UsageError(ctx=click.Context() as context) if _UNEXPECTED.match(error.message) and _reads(context):
            step = UNQUOTED
        case click.exceptions.NoSuchCommand():
            step = COMMANDS.get(error.command_name, "")
        case click.NoSuchOption(ctx=click.Context(command=click.Command(name="apply"))) if error.option_name in FILTERS:
            step = _WHOLE
        case click.NoSuchOption(ctx=click.Context(command=click.Command(name="show"))) if error.option_name in _INPUTS:
            step = "`{program} show PATH...` takes the paths of dumps without an option"
        case click.NoSuchOption():
            step = OPTIONS.get(error.option_name, "")
        case click.BadParameter(param=click.Option() as option) if _is_from_variable(error, option):
            step = f"correct or unset the environment variable {option.envvar}"
        case click.BadParameter(param=click.Option(name="output")):
            step = _FORMATS
        case _:
            step = ""
    return step.format(program=program)


def _with_two_dashes(error: click.UsageError, arguments: Sequence[str]) -> str:
    """Return the next step after a long option with one dash, as terraform has them; empty if there is none."""
    own = {text for option in error.ctx.command.params for text in option.opts} if error.ctx is not None else set()
    for word in arguments:
        option = f"-{word.partition('=')[0]}"
        if _ONE_DASH.fullmatch(word) and (option in own or option in OPTIONS):
            about = "" if option in own else f": {OPTIONS[option]}"
            return f"long options have two dashes, {option}{about}"
    return ""


def _reads(context: click.Context) -> bool:
    """Whether a command reads manifests."""
    return any("-f" in option.opts for option in context.command.params)


def _is_from_variable(error: click.UsageError, option: click.Option) -> bool:
    """Whether a value came from the environment."""
    source = error.ctx.get_parameter_source(option.name) if error.ctx is not None and option.name else None
    return source is ParameterSource.ENVIRONMENT
