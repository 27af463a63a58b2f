"""The entry point: arguments, exit codes, errors as one line. Lower layers do the work.

Exit codes: 0 success (with --detailed-exitcode: no changes); 1 an error, including wrong usage; 2 changes, only with
--detailed-exitcode; 3 not served as specified, only with --strict; 130 interrupted. If the reader of the output ends,
SIGPIPE ends the command (141 in a shell).
"""

from __future__ import annotations

import gc
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rulegen import KUBE_PROXY, __version__
from rulegen.cli import habits
from rulegen.cli.options.environment import misspelled, read_variables
from rulegen.cli.options.paths import complete_paths
from rulegen.cli.terminal.console import complain
from rulegen.cli.terminal.failures import Failure, wants_json
from rulegen.cli.terminal.help_text import HelpContext
from rulegen.cli.terminal.streams import ends_with_its_reader, open_streams
from rulegen.cli.wiring.strict import NotAsWrittenError
from rulegen.errors import ApplyError, RulegenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.cli.command_tables import CommandTables

ERROR, NOT_AS_WRITTEN, INTERRUPTED = 1, 3, 130
_PLUGIN = "kubectl-"
"""kubectl runs its plugins as `kubectl-NAME`, and users call them `kubectl NAME`."""

_COMMANDS = {
    "plan": "Show what would change on a node.",
    "show": "Show which Services a node serves, from its dumps.",
    "apply": "Write the rules this node needs.",
    "run": "Watch the cluster and keep this node's rules up to date.",
    "export": "Write a node's rules and its configuration for Ingresses to files.",
    "cleanup": "Remove the rules of rulegen and kube-proxy from this node.",
    "doctor": "Check this host and suggest fixes.",
    "demo": "Show rulegen at work on a demo node in network namespaces.",
    "schema": "Print the JSON Schema of a command's JSON output.",
    "completion": "Print a completion script for a shell.",
    "man": "Print a manual page.",
}


class _Commands(click.Group):
    """The commands by name; the module of a command is loaded when it is called, so that help is fast."""

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"rulegen.cli.commands.{cmd_name}").command
        command.context_class = HelpContext
        read_variables(command)
        complete_paths(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name.

        Raises:
            NoSuchCommand: There is none of this name; the error has the similar ones.
        """
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            similar = _COMMANDS if error.command_name not in habits.COMMANDS else ()
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=similar, ctx=ctx) from None
        if command is not None and not ctx.resilient_parsing:
            for given, meant in misspelled(os.environ, command, lambda: self._commands(ctx)).items():
                complain(f"Warning: {given} has no effect; did you mean {meant}?\n")
        return name, command, rest

    def _commands(self, ctx: click.Context) -> list[click.Command]:
        return [command for name in _COMMANDS if (command := self.get_command(ctx, name)) is not None]

    def make_context(self, *given: Any, **settings: Any) -> click.Context:
        """Read the arguments; --help and --version are printed here."""
        with ends_with_its_reader():
            return super().make_context(*given, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with ends_with_its_reader():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    epilog="Every option can also be set by an environment variable: RULEGEN_MODE=ipvs means --mode ipvs. Exceptions:"
    " --yes, --with-secrets, --out, --output and options with 'allow' in the name. The command line has priority.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(
    __version__,
    "-V",
    "--version",
    prog_name="rulegen",
    message=f"%(prog)s %(version)s (rules of kube-proxy {KUBE_PROXY})",
)
def cli() -> None:
    """Turn Kubernetes Services and Ingresses into a node's rules (iptables, IPVS, nftables) and proxy configuration.

    \b
    rulegen plan -f manifests/ --observed none      preview what these manifests would write to an empty node
    rulegen plan                                    show what would change on this node
    rulegen apply                                   write these changes
    """


def main(arguments: list[str] | None = None, tables: CommandTables | None = None) -> None:
    """Run one command and exit; every error is one clear line and a next step.

    Args:
        arguments: Command-line arguments; None for those of the process.
        tables: The languages, modes and drivers to use; None for rulegen's own.
    """
    program = "kubectl rulegen" if Path(sys.argv[0]).name.startswith(_PLUGIN) else "rulegen"
    open_streams()
    os.umask(os.umask(0o077) | 0o022)  # files of a command are not writable for others, whatever the umask is
    gc.disable()  # a command ends soon, and its hundred thousands of frozen objects have no cycles
    as_json = wants_json(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=arguments, prog_name=program, standalone_mode=False, obj=tables)
        with ends_with_its_reader():
            sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except (click.ClickException, click.Abort, KeyboardInterrupt, RulegenError) as error:
        failure = _failure(error, program, sys.argv[1:] if arguments is None else arguments)
        failure.report(as_json=as_json)
        code = failure.code
    except Exception as error:
        if os.environ.get("RULEGEN_DEBUG"):
            raise
        message = f"internal error of rulegen: {type(error).__name__}: {error}"
        Failure(message=message, hint="set RULEGEN_DEBUG=1 for a traceback, and report it").report(as_json=as_json)
        code = ERROR
    sys.exit(code if isinstance(code, int) else 0)


def _failure(error: BaseException, program: str, arguments: Sequence[str]) -> Failure:
    """Return what is reported of an error."""
    match error:
        case click.UsageError():
            usage = io.StringIO()
            error.show(usage)
            step = habits.next_step(error, program, arguments)
            return Failure(message=error.format_message(), hint=step, text=usage.getvalue())
        case click.ClickException():
            return Failure(message=error.format_message())
        case ApplyError():
            return Failure(message=error.message, hint=error.hint, written=error.applied, pending=error.pending)
        case RulegenError():
            code = NOT_AS_WRITTEN if isinstance(error, NotAsWrittenError) else ERROR
            return Failure(message=error.message, hint=error.hint, code=code)
        case _:
            return Failure(message="interrupted", code=INTERRUPTED)
