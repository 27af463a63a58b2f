"""Finding what makes nginx refuse a configuration, so that it harms only itself.

The parts are put in a row, oldest first. A row that begins with nothing passes and that ends with everything fails, so
somewhere one more part turns a pass into a failure: that part is the culprit, found by halving the row. Of two that
fail only together, the younger is found so, whatever the message points to: nobody can throw out an older part by
colliding with it. What nginx's message points to is only tried first, which mostly saves the halving.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.languages.nginx.configuration import Configuration

MOST_TESTS: Final = 400
"""After so many tests no more culprits are looked for: what was not seen to pass is dropped."""

_HINTS: Final = 2
_NOT_TRIED: Final = "not tested: too many others were rejected"


@dataclass(frozen=True, slots=True)
class Settled:
    """What goes live.

    Attributes:
        configuration: What passes.
        quarantined: What was left out of it, name to reason, in the order in which it was found.
    """

    configuration: Configuration
    quarantined: Mapping[str, str]


class _Search:
    """The parts that are left, and the longest row of them that is known to pass."""

    def __init__(
        self,
        names: Sequence[str],
        compile_without: Callable[[frozenset[str]], Configuration],
        test: Callable[[Configuration], str | None],
    ) -> None:
        self.left = list(names)
        self.dropped: dict[str, str] = {}
        self.passing = 0
        self.tests = 0
        self._names = frozenset(names)
        self._compile = compile_without
        self._test = test

    def compiled(self, length: int) -> Configuration:
        return self._compile(self._names - frozenset(self.left[:length]))

    def refusal(self, length: int) -> str | None:
        """Return why the row of the first parts that are left is refused; None where it passes."""
        self.tests += 1
        return self._test(self.compiled(length))

    def drop_next(self, reason: str) -> None:
        """Leave out the part behind the row that passes."""
        self.dropped[self.left.pop(self.passing)] = reason


def settle(
    names: Sequence[str],
    compile_without: Callable[[frozenset[str]], Configuration],
    test: Callable[[Configuration], str | None],
    suspects: Callable[[str], Sequence[str]] = lambda _: (),
    *,
    most_tests: int = MOST_TESTS,
) -> Settled:
    """Return the largest part of a configuration that passes when parts are added oldest first.

    Takes 1 test where all is well, and at most 1 + c * (log2 n + 6) for c culprits among n parts.

    Args:
        names: The parts that may be left out, oldest first.
        compile_without: Returns the configuration without some of them.
        test: Returns why nginx refuses a configuration, or None.
        suspects: Returns the parts to which a message of nginx points.
        most_tests: After so many tests what was not seen to pass is left out.

    Raises:
        HostError: It is refused even without all of them.
    """
    search = _Search(names, compile_without, test)
    message = search.refusal(len(search.left))
    if message is not None and (base := search.refusal(0)) is not None:
        raise HostError(f"nginx rejects its configuration even without any Ingress: {base}")
    while message is not None:
        reason = _narrow(search, message, suspects, most_tests)
        search.drop_next(reason)
        if search.tests >= most_tests:
            while len(search.left) > search.passing:
                search.drop_next(_NOT_TRIED)
            break
        message = search.refusal(len(search.left))
    return Settled(search.compiled(len(search.left)), MappingProxyType(search.dropped))


def _narrow(search: _Search, message: str, suspects: Callable[[str], Sequence[str]], most_tests: int) -> str:
    """Lengthen the row that passes until one more part makes it fail; return why that does."""
    failing, reason = len(search.left), message
    hints = _places(search, suspects(message))
    while failing - search.passing > 1 and search.tests < most_tests:
        middle = hints.pop() if hints else (search.passing + failing) // 2
        if not search.passing < middle < failing:
            continue
        found = search.refusal(middle)
        if found is None:
            search.passing = middle
        else:
            failing, reason = middle, found
    return reason


def _places(search: _Search, named: Sequence[str]) -> list[int]:
    """Return the lengths of rows to try first: up to each suspect and just before it; the last is tried first."""
    indexes = {name: index for index, name in enumerate(search.left)}
    found = sorted({indexes[name] for name in named if name in indexes}, reverse=True)[:_HINTS]
    return [length for index in reversed(found) for length in (index, index + 1)]
