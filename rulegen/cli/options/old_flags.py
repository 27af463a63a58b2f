"""Arguments in the form in which ingress-nginx took them: its own flags, and booleans with a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rulegen.model.ingress.reasons import Reason
from rulegen.model.ingress.values.readers import boolean
from rulegen.model.ingress.values.without_effect.flags import FLAGS, OTHER_NAMES
from rulegen.model.ingress.values.without_effect.names import NameKind, NoEffect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EVENTS: Final = NoEffect("disable-sync-events", NameKind.DONE, "only rulegen run writes Events")


class IngressCommand(click.Command):
    """A command with options about Ingresses, which can be given the flags of ingress-nginx.

    A flag without effect is reported, not rejected. Booleans may have a value, as in `--update-status=false`. The
    command receives the reports as `flag_reports`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments."""
        reports: list[Reason] = []
        rest = super().parse_args(ctx, list(self._known(args, reports)))
        ctx.params["flag_reports"] = tuple(reports)
        return rest

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
            name, sign, value = arg.partition("=")
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
