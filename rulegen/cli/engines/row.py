"""What a row of the table of ingress engines says: the engine's options, its tools, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.compiler.ingress.engine import AnyCompiler, AnyEngine, EngineRemoval
    from rulegen.host.doctor.tool import Tool
    from rulegen.model.ingress.options import IngressOptions

    Option = Callable[[Any], Any]
    """What `click.option` returns."""


class ChosenEngine(Protocol):
    """An engine, with what a command line says about it."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files and folders that the options name; the agent follows their changes."""

    def compiler(self, options: IngressOptions, notes: list[str]) -> AnyCompiler:
        """Return what compiles for a host that may be another one.

        Args:
            options: What is wanted of every engine.
            notes: What a user should know is added to it.
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
            options: What is wanted of every engine.
            notes: What a user should know is added to it.
            look: Returns options of every engine with the present state of the host.
            tries_aside: Whether nothing may be written where the engine runs until its plan is applied.

        Raises:
            HostError: The program is not installed, or cannot be used.
        """

    def removal(self) -> EngineRemoval:
        """Return what removes the engine from this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """One ingress engine.

    Attributes:
        name: As in the option --ingress-engine, and in `export --NAME DIR`.
        choice: Makes a `ChosenEngine`; a dataclass, whose fields are the options below.
        place: Options that say where the program runs: of all commands that start, ask or end it.
        live: Options of the commands that start or ask it.
        form: Options that say what its configuration looks like: of these commands, and of `export`.
        export_help: What `export --NAME DIR` does.
        tools: What `doctor` looks for.
    """

    name: str
    choice: Callable[..., ChosenEngine]
    place: tuple[Option, ...] = ()
    live: tuple[Option, ...] = ()
    form: tuple[Option, ...] = ()
    export_help: str
    tools: tuple[Tool, ...] = ()

    def take(self, given: dict[str, Any]) -> ChosenEngine:
        """Return the engine with those of a command's options that are its own; they are removed from `given`.

        Raises:
            ConfigError: One of them cannot be used.
        """
        names = [field.name for field in fields(self.choice)]  # type: ignore[arg-type]
        return self.choice(**{name: given.pop(name) for name in names if name in given})
