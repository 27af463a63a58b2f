"""Finding what makes a program refuse a configuration, so that it harms only itself.

The parts are put in a row, oldest first. A row that begins with nothing passes and that ends with everything fails, so
somewhere one more part turns a pass into a failure: that part is the culprit, found by halving the row. Of two that
fail only together, the younger is found so, whatever the message points to: nobody can throw out an older part by
colliding with it. What the program's message points to is only tried first, which mostly saves the halving.
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
"""After so many tests no more culprits are looked for: what was not seen to pass is dropped."""

_HINTS: Final = 2
_NOT_TRIED: Final = "not tested: too many others were rejected"


@dataclass(frozen=True, slots=True)
class Settled(Generic[NameT, ConfigurationT]):
    """What goes live.

    Attributes:
        configuration: What passes.
        quarantined: What was left out of it, name to reason, in the order in which it was found.
    """

    configuration: ConfigurationT
    quarantined: Mapping[NameT, str]


class _Search(Generic[NameT, ConfigurationT]):
    """The parts that are left, and the longest row of them that is known to pass."""

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
        """Return why the row of the first parts that are left is refused; None where it passes."""
        self.tests += 1
        return self._test(self.compiled(length))

    def drop_next(self, reason: str) -> None:
        """Leave out the part behind the row that passes."""
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
    """Return the largest part of a configuration that passes when parts are added oldest first.

    Takes 1 test where all is well, and at most 1 + c * (log2 n + 6) for c culprits among n parts.

    Args:
        names: The parts that may be left out, oldest first.
        compile_without: Returns the configuration without some of them.
        test: Returns why the program refuses a configuration, or None.
        suspects: Returns the parts to which a message of the program points.
        program: Its name.
        most_tests: After so many tests what was not seen to pass is left out.

    Raises:
        HostError: It is refused even without all of them.
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
    """Lengthen the row that passes until one more part makes it fail; return why that does."""
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
    """Return the lengths of rows to try first: up to each suspect and just before it; the last is tried first."""
    indexes = {name: index for index, name in enumerate(search.left)}
    lengths = sorted({indexes[name] for name in named if name in indexes}, reverse=True)[:_HINTS]
    return [length for index in reversed(lengths) for length in (index, index + 1)]
