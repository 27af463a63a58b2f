"""Finds the Ingress that makes an engine's program reject a configuration, so that all others are served.

The parts are sorted, oldest first. The program accepts a configuration without parts and rejects that of all parts, so
one part turns an accepted configuration into a rejected one: a binary search finds it. Of two parts that are rejected
only together, it finds the younger one, whatever the message says, so no part can displace an older one by a conflict.
The parts that the message names are tried first, which usually avoids the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

NameT = TypeVar("NameT", bound="Hashable")
ConfigurationT = TypeVar("ConfigurationT")

MOST_TESTS: Final = 400
"""After this many tests, the search ends: parts that no accepted configuration contained are left out."""

_HINTS: Final = 2
_NOT_TRIED: Final = "not tested: too many others were rejected"


@dataclass(frozen=True, slots=True)
class Settled(Generic[NameT, ConfigurationT]):
    """The configuration to serve.

    Attributes:
        configuration: The accepted configuration.
        quarantined: The left-out parts, name to reason, in the order of rejection.
    """

    configuration: ConfigurationT
    quarantined: Mapping[NameT, str]


class _Search(Generic[NameT, ConfigurationT]):
    """The remaining parts, and how many of the oldest ones are known to be accepted together."""

    def __init__(
        self,
        names: Sequence[NameT],
        compile_without: Callable[[frozenset[NameT]], ConfigurationT],
        test: Callable[[ConfigurationT], str | None],
    ) -> None:
        self.left = list(names)
        self.dropped: dict[NameT, str] = {}
        self.passing = 0
        self.tests = 0
        self._names = frozenset(names)
        self._compile = compile_without
        self._test = test

    def compiled(self, length: int) -> ConfigurationT:
        return self._compile(self._names - frozenset(self.left[:length]))

    def refusal(self, length: int) -> str | None:
        """Return why the first remaining parts are rejected together; None if they are accepted."""
        self.tests += 1
        return self._test(self.compiled(length))

    def drop_next(self, reason: str) -> None:
        """Leave out the part after the accepted ones."""
        self.dropped[self.left.pop(self.passing)] = reason


def settle(
    names: Sequence[NameT],
    compile_without: Callable[[frozenset[NameT]], ConfigurationT],
    test: Callable[[ConfigurationT], str | None],
    suspects: Callable[[str], Sequence[NameT]] = lambda _: (),
    *,
    program: str,
    most_tests: int = MOST_TESTS,
) -> Settled[NameT, ConfigurationT]:
    """Return the largest configuration that is accepted when parts are added oldest first.

    This takes 1 test if all are accepted, and at most 1 + c * (log2 n + 6) for c culprits among n parts.

    Args:
        names: The parts that may be left out, oldest first.
        compile_without: Returns the configuration without some of them.
        test: Returns why the program rejects a configuration, or None.
        suspects: Returns the parts that a message of the program names.
        program: Name of the program.
        most_tests: After this many tests, parts that were not accepted are left out.

    Raises:
        HostError: The program rejects the configuration even without all of them.
    """
    search = _Search(names, compile_without, test)
    message = search.refusal(len(search.left))
    if message is not None and (base := search.refusal(0)) is not None:
        raise HostError(f"{program} rejects its configuration even without any Ingress: {base}")
    while message is not None:
        reason = _narrow(search, message, suspects, most_tests)
        search.drop_next(reason)
        if search.tests >= most_tests:
            while len(search.left) > search.passing:
                search.drop_next(_NOT_TRIED)
            break
        message = search.refusal(len(search.left))
    return Settled(search.compiled(len(search.left)), MappingProxyType(search.dropped))


def _narrow(
    search: _Search[NameT, ConfigurationT], message: str, suspects: Callable[[str], Sequence[NameT]], most_tests: int
) -> str:
    """Search until the next part is the rejected one; return the reason."""
    failing, reason = len(search.left), message
    hints = _places(search, suspects(message))
    while failing - search.passing > 1 and search.tests < most_tests:
        middle = hints.pop() if hints else (search.passing + failing) // 2
        if not search.passing < middle < failing:
            continue
        refusal = search.refusal(middle)
        if refusal is None:
            search.passing = middle
        else:
            failing, reason = middle, refusal
    return reason


def _places(search: _Search[NameT, ConfigurationT], named: Sequence[NameT]) -> list[int]:
    """Return how many parts to try first: up to each suspect and just before it; the last is tried first."""
    indexes = {name: index for index, name in enumerate(search.left)}
    lengths = sorted({indexes[name] for name in named if name in indexes}, reverse=True)[:_HINTS]
    return [length for index in reversed(lengths) for length in (index, index + 1)]
