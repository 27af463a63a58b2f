"""A row of the table of ingress engines: the engine's options, its tools, and its constructor."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.compiler.ingress.engine import AnyCompiler, AnyEngine, EngineRemoval
    from rulegen.host.doctor.tool import Tool
    from rulegen.model.ingress.options import IngressOptions

    Option = Callable[[Any], Any]
    """Return type of `click.option`."""


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
        """Return the engine of this host.

        Args:
            options: Options that every engine has.
            notes: Receives notes for the user.
            look: Returns these options with the current state of the host.
            tries_aside: Whether nothing may be written to the engine's folder until its plan is applied.

        Raises:
            HostError: The program is not installed or not usable.
        """

    def removal(self) -> EngineRemoval:
        """Return the removal of the engine from this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """One ingress engine.

    Attributes:
        name: Name in the option --ingress-engine, and in `export --NAME DIR`.
        choice: Creates a `ChosenEngine`; a dataclass whose fields are the options below.
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

    def take(self, given: dict[str, Any]) -> ChosenEngine:
        """Return the engine with its own options of a command; they are removed from `given`.

        Raises:
            ConfigError: One of them is invalid.
        """
        return self.choice(**{name: given.pop(name) for name in self.parameters if name in given})

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its own options as parameters of a command."""
        return tuple(field.name for field in fields(self.choice))  # type: ignore[arg-type]
