"""Arguments in the form in which ingress-nginx takes them: its own flags, booleans with a value, and empty values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.core import ParameterSource

from rulegen.cli.options.ingress import parameter_names
from rulegen.model.ingress.reasons import Reason
from rulegen.model.ingress.values.readers import boolean
from rulegen.model.ingress.values.without_effect.flags import FLAGS, OTHER_NAMES
from rulegen.model.ingress.values.without_effect.names import NameKind, NoEffect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ARGUMENTS: Final = "rulegen.arguments"
"""Key of a context's `meta`: the arguments of the command, as they were given."""
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
"""Options for which an empty value means none, as in ingress-nginx. That is their default."""
_EVENTS: Final = NoEffect("disable-sync-events", NameKind.DONE, "only rulegen run writes Events")


class _Emptied(NamedTuple):
    """An option with an empty value: it has its default, whatever was given before."""

    option: str


class IngressCommand(click.Command):
    """A command with options about Ingresses, which can be given the flags of ingress-nginx.

    A flag without effect is reported, not rejected. Booleans may have a value, as in `--update-status=false`. `-v` may
    have a level, as in `-v=2`. The command receives the reports as `flag_reports`, and the names of all arguments about
    Ingresses as `flags_given`.

    Attributes:
        about_ingresses: Parameters of this command that have no effect without Ingresses, beside those of all commands.
        about_status: Parameters that have no effect unless addresses are published. If there are any, the command
            receives those on the command line as `status_flags_given`.
    """

    def __init__(
        self, *settings: Any, about_ingresses: Sequence[str] = (), about_status: Sequence[str] = (), **named: Any
    ) -> None:
        """Create the command."""
        super().__init__(*settings, **named)
        self.about_ingresses, self.about_status = about_ingresses, about_status

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments."""
        ctx.meta[ARGUMENTS] = tuple(args)
        reports: list[Reason] = []
        known, emptied = _last_values(self._known(args, reports))
        rest = super().parse_args(ctx, known)
        for param in self.params:
            if param.name and emptied.intersection(param.opts):
                ctx.params[param.name] = () if param.multiple else None
        names = parameter_names().union(self.about_ingresses)
        ctx.params["flag_reports"] = tuple(reports)
        ctx.params["flags_given"] = tuple(
            dict.fromkeys((*self._given(ctx, names), *(each.path for each in reports if each.path != "-v")))
        )
        if self.about_status:
            ctx.params["status_flags_given"] = tuple(self._given(ctx, frozenset(self.about_status)))
        return rest

    def _given(self, ctx: click.Context, names: frozenset[str]) -> Iterator[str]:
        """Yield those of some options that are on the command line."""
        for param in self.params:
            name = param.name or ""
            if name in names and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                off = ctx.params[name] is False and param.secondary_opts
                yield (off or param.opts)[0]

    def _known(self, args: Sequence[str], reports: list[Reason]) -> Iterator[str | _Emptied]:
        """Yield the arguments that click knows, and emptied options; adds what to report about the others."""
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
                yield _Emptied(name)
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


def _last_values(args: Iterable[str | _Emptied]) -> tuple[list[str], set[str]]:
    """Return the arguments without values that an empty one replaces, and the options that are empty in the end."""
    kept: list[str] = []
    emptied: set[str] = set()
    for arg in args:
        if isinstance(arg, _Emptied):
            kept = _without(kept, arg.option)
            emptied.add(arg.option)
        else:
            kept.append(arg)
            emptied.discard(arg.partition("=")[0])
    return kept, emptied


def _without(args: Sequence[str], option: str) -> list[str]:
    """Return arguments without an option and its values."""
    kept: list[str] = []
    waiting = list(reversed(args))
    while waiting:
        arg = waiting.pop()
        if arg == option:
            waiting = waiting[:-1]
        elif not arg.startswith(f"{option}="):
            kept.append(arg)
    return kept


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
