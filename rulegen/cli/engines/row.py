"""A row of the table of ingress engines: the engine's options, its tools, and its constructor.

A row loads none of the engine's code: that takes a third of the start of a command, and most need none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.compiler.ingress.engine import AnyCompiler, AnyEngine, EngineRemoval
    from rulegen.host.doctor.tool import Tool
    from rulegen.model.ingress.options import IngressOptions

    Option = Callable[[Any], Any]
    """Return type of `click.option`."""


class FolderName(click.ParamType[str]):
    """The folder of an engine."""

    name = "DIR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it was given."""
        if not value:
            default = "" if param is None else f"; omit the option to use {param.default}"
            self.fail(f"'' is not a folder{default}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:  # noqa: ARG002 - click's signature
        """Let the shell complete folders."""
        return [CompletionItem(incomplete, type="dir")]


class ChosenEngine(Protocol):
    """An engine with its command-line options."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files and folders of the options; the agent watches them for changes."""

    def compiler(self, options: IngressOptions, notes: list[str]) -> AnyCompiler:
        """Return a compiler that does not depend on this host.

        Args:
            options: Options that every engine has.
            notes: Receives notes for the user.
        """

    def engine(
        self,
        options: IngressOptions,
        notes: list[str],
        *,
        look: Callable[[IngressOptions], IngressOptions],
        tries_aside: bool,
    ) -> AnyEngine:
        """Return the engine of this host. Its program is first asked in `refresh`, which completes the options.

        Args:
            options: Options that every engine has.
            notes: Receives notes for the user.
            look: Returns these options with the current state of the host.
            tries_aside: Whether nothing may be written to the engine's folder until its plan is applied.

        Raises:
            HostError: An option names something that is not on this host.
        """

    def removal(self) -> EngineRemoval:
        """Return the removal of the engine from this host."""


class EngineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One ingress engine.

    Attributes:
        name: Name in the option --ingress-engine, and in `export --NAME DIR`.
        choice: Creates a `ChosenEngine` from values of the options below; those that are missing have their defaults.
        place: Options about where the program runs: for all commands that start, query or stop it.
        live: Options for the commands that start or query it.
        form: Options about its configuration: for these commands, and for `export`.
        export_help: Help text of `export --NAME DIR`.
        tools: Tools that `doctor` checks.
    """

    name: str
    choice: Callable[..., ChosenEngine]
    place: tuple[Option, ...] = ()
    live: tuple[Option, ...] = ()
    form: tuple[Option, ...] = ()
    export_help: str
    tools: tuple[Tool, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its own options as parameters of a command."""

        def command() -> None:
            pass

        for option in (*self.place, *self.live, *self.form):
            option(command)
        return tuple(parameter.name for parameter in getattr(command, "__click_params__", ()))
