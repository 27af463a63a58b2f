"""What a language is to this host: how its objects are read from the kernel, and who does its work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.commands.runner import Runner
    from rulegen.host.netfilter.variant import Variant
    from rulegen.languages.language import Shape, StateKey, Task
    from rulegen.net import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadContext:
    """What is read, and with what.

    Attributes:
        run: What runs the tools.
        variant: Which iptables.
        families: Which families.
        needed: The languages that the mode writes; others are looked at for leftovers.
    """

    run: Runner
    variant: Variant
    families: tuple[Family, ...]
    needed: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteContext:
    """With what work is done.

    Attributes:
        run: What runs the tools.
        variant: Where the rules live.
        wait_s: How long to wait for the xtables lock, in seconds; 0 waits for ever.
        on_wait: Called with who holds the lock, once we wait.
        on_commits: Called with the number of commits that others who watch the kernel see of a piece of work.
    """

    run: Runner
    variant: Variant
    wait_s: int
    on_wait: Callable[[str], None] | None = None
    on_commits: Callable[[int], None] = field(default=lambda _count: None)


class Culprit(NamedTuple):
    """A Service that an error names.

    Attributes:
        reason: What was rejected, and what was said of it.
        needs: What the rejected rule or object needs of the kernel; None if that is not known.
    """

    reason: str
    needs: Shape | None = None


class Preparation(NamedTuple):
    """What must be done before the first write of a plan, such as loading a module."""

    title: str
    prepare: Callable[[], None]


class Driver(Protocol):
    """One row: a language on this host."""

    @property
    def name(self) -> str:
        """The language."""

    @property
    def tells_of_writes(self) -> bool:
        """Whether it can be told later if somebody else has written in this language.

        It is told by the generation of nf_tables where rules are there, else by the text of what `read` returns.
        """

    def read(self, context: ReadContext) -> Any:
        """Return what the kernel has, as it is read; None where nobody can look, and the mode does not write it.

        Raises:
            HostError: It cannot be read. Never less than all.
        """

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:
        """Return what was read, as the language has it.

        Raises:
            InputError: A tool has printed what it never prints.
        """

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return what does each type of the language's work; each raises HostError where it is rejected."""

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:
        """Return what must be done before any of the tasks; None for nothing."""

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether a write failed by what was to be written, so that another part of it may well be taken."""

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Services that an error of this language names; empty if it names none."""
