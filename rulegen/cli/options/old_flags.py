"""Arguments in the form in which ingress-nginx takes them: its own flags, booleans with a value, and empty values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from rulegen.cli.options.ingress import parameter_names
from rulegen.model.ingress.reasons import Reason
from rulegen.model.ingress.values.readers import boolean
from rulegen.model.ingress.values.without_effect.flags import FLAGS, OTHER_NAMES
from rulegen.model.ingress.values.without_effect.names import NameKind, NoEffect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VERBOSE: Final = "--verbose"
_LEVEL: Final = "v"
_EMPTY_IS_DEFAULT: Final = frozenset(
    {
        "--watch-namespace",
        "--watch-namespace-selector",
        "--configmap",
        "--default-ssl-certificate",
        "--default-backend-service",
        "--publish-service",
        "--publish-status-address",
    }
)
"""Options for which ingress-nginx reads an empty value as its default."""
_EVENTS: Final = NoEffect("disable-sync-events", NameKind.DONE, "only rulegen run writes Events")


class IngressCommand(click.Command):
    """A command with options about Ingresses, which can be given the flags of ingress-nginx.

    A flag without effect is reported, not rejected. Booleans may have a value, as in `--update-status=false`. `-v` may
    have a level, as in `-v=2`. The command receives the reports as `flag_reports`, and the names of all arguments about
    Ingresses as `flags_given`.

    Attributes:
        about_ingresses: Parameters of this command that have no effect without Ingresses, beside those of all commands.
    """

    def __init__(self, *settings: Any, about_ingresses: Sequence[str] = (), **named: Any) -> None:
        """Create the command."""
        super().__init__(*settings, **named)
        self.about_ingresses = about_ingresses

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments."""
        reports: list[Reason] = []
        rest = super().parse_args(ctx, list(self._known(args, reports)))
        ctx.params["flag_reports"] = tuple(reports)
        ctx.params["flags_given"] = tuple(
            dict.fromkeys((*self._given(ctx), *(each.path for each in reports if each.path != "-v")))
        )
        return rest

    def _given(self, ctx: click.Context) -> Iterator[str]:
        """Yield the options about Ingresses on the command line."""
        names = parameter_names().union(self.about_ingresses)
        for param in self.params:
            name = param.name or ""
            if name in names and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                off = ctx.params[name] is False and param.secondary_opts
                yield (off or param.opts)[0]

    def _known(self, args: Sequence[str], reports: list[Reason]) -> Iterator[str]:
        """Yield the arguments that click knows; adds what to report about the others."""
        flags = _booleans(self)
        names = {name for option in self.params for name in option.opts}
        waiting = list(reversed(args))
        while waiting:
            arg = waiting.pop()
            if arg == "--":
                yield from (arg, *reversed(waiting))
                return
            if (level := _level(arg, waiting)) is not None:
                yield from self._verbosity(level, reports)
                continue
            name, sign, value = arg.partition("=")
            if name in _EMPTY_IS_DEFAULT & names and not (value if sign else waiting[-1:] != [""]):
                if not sign:
                    waiting.pop()
                continue
            other = f"--{OTHER_NAMES.get(name.removeprefix('--'), name.removeprefix('--'))}"
            if name.startswith("--") and other in flags and name not in names | flags.keys():
                name = other
            if name in flags:
                yield from _switched(name, value, flags[name]) if sign else (name,)
                continue
            known = _without_effect(name) if name not in names else None
            if known is None:
                yield arg
                continue
            if not sign:
                # These commands have no arguments but options: what follows a flag without dash is its value.
                value = waiting.pop() if waiting and not waiting[-1].startswith("-") else "true"
            if value not in known.fulfilled_by:
                reports.append(Reason(None, known.verdict, name, known.message))

    def _verbosity(self, level: str, reports: list[Reason]) -> Iterator[str]:
        """Yield the option that a level of klog means; a command without log reports it.

        Raises:
            click.UsageError: It is no number.
        """
        if not re.fullmatch(r"-?[0-9]{1,9}", level):
            raise click.UsageError(f"-v: {level!r} is not a number such as 2")
        if not any(_VERBOSE in option.opts for option in self.params):
            known = FLAGS[_LEVEL]
            reports.append(Reason(None, known.verdict, "-v", known.message))
        elif int(level) > 0:
            yield _VERBOSE


def _level(arg: str, waiting: list[str]) -> str | None:
    """Return the level of an argument such as `-v=2`, `--v 2` or `-v2`; None if it has none.

    The level may be the next argument, which is then removed from `waiting`.
    """
    name, sign, level = arg.partition("=")
    if name in {f"-{_LEVEL}", f"--{_LEVEL}"}:
        if sign:
            return level
        return waiting.pop() if waiting and re.fullmatch(r"-?[0-9]+", waiting[-1]) else None
    return arg[2:] if re.fullmatch(rf"-{_LEVEL}[0-9]+", arg) else None


def _without_effect(name: str) -> NoEffect | None:
    if not name.startswith("--"):
        return None
    bare = name.removeprefix("--")
    return _EVENTS if bare == _EVENTS.name else FLAGS.get(bare)


def _booleans(command: click.Command) -> dict[str, str]:
    """Return the options of a command that take no value, each with its opposite; empty for none."""
    flags: dict[str, str] = {}
    for param in command.params:
        if isinstance(param, click.Option) and param.is_flag:
            off = param.secondary_opts[0] if param.secondary_opts else ""
            flags.update(dict.fromkeys((name for name in param.opts if name.startswith("--")), off))
    return flags


def _switched(name: str, value: str, opposite: str) -> Iterator[str]:
    """Yield the option without a value that a boolean with a value means.

    Raises:
        click.UsageError: The value is no boolean.
    """
    try:
        is_on = boolean(value)
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}") from None
    if is_on:
        yield name
    elif opposite:
        yield opposite
