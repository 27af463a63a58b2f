"""Protocol of a driver: how objects of a language are read from the kernel of this host and written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.commands.runner import Runner
    from rulegen.host.netfilter.variant import Variant
    from rulegen.languages.language import Shape, StateKey, Task
    from rulegen.net import Family


class ReadContext(msgspec.Struct, frozen=True, kw_only=True):
    """What is read, and with which tools.

    Attributes:
        run: Runs the tools.
        variant: The iptables variant.
        families: The IP families.
        needed: Languages that the mode uses; others are read to find leftovers.
    """

    run: Runner
    variant: Variant
    families: tuple[Family, ...]
    needed: frozenset[str]


class WriteContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a write needs.

    Attributes:
        run: Runs the tools.
        variant: The iptables variant.
        wait_s: Maximum wait for the xtables lock, in seconds; 0 for no limit.
        on_wait: Called with the holder of the lock while we wait.
        on_commits: Called with the number of commits in a piece of work, as other programs see them.
    """

    run: Runner
    variant: Variant
    wait_s: int
    on_wait: Callable[[str], None] | None = None
    on_commits: Callable[[int], None] = msgspec.field(default=lambda _count: None)


class Culprit(NamedTuple):
    """A Service that an error identifies.

    Attributes:
        reason: The rejected rule or object, and the error message.
        needs: Kernel features that the rejected rule or object needs; None if unknown.
    """

    reason: str
    needs: Shape | None = None


class Preparation(NamedTuple):
    """Preparation before the first write of a plan, such as loading a module."""

    title: str
    prepare: Callable[[], None]


class ProgramNotices(Protocol):
    """Reports about a program that serves the objects of a language, in threads of its own.

    It reports when the program ends, whether it answers, and which endpoints it ejects.
    """

    def start(self) -> None:
        """Start to report: from now on, the program is expected to run."""

    def stop(self) -> None:
        """Stop reporting."""


class Driver(Protocol):
    """A driver: one language on this host."""

    @property
    def name(self) -> str:
        """The language."""

    @property
    def tells_of_writes(self) -> bool:
        """Whether foreign writes in this language can be detected later.

        They are detected by the generation of nf_tables if rules are there, else by the text that `read` returns.
        """

    def read(self, context: ReadContext) -> Any:
        """Return the unparsed state of the kernel; None if it cannot be read and the mode does not use the language.

        Raises:
            HostError: It cannot be read. The result is never incomplete.
        """

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:
        """Return the parsed state.

        Raises:
            InputError: The output of a tool is malformed.
        """

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function for each type of task; each function raises HostError if the task is rejected."""

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:
        """Return the preparation that these tasks need; None for nothing."""

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether a write failed because of its content, so that another part may be accepted."""

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Services that an error of this language identifies; empty if it identifies none."""
