"""Finding the Services that the kernel or a tool rejects, so that each harms only itself.

What is tried is always a part of what is to be written: some Services, with all that they need. A part that is taken is
written, and stays. Of a part that is rejected, the Services go that the error names; where it names none, the part is
cut in two, Services that need the same of the kernel side by side. Where Services were rejected that need something
which no Service was seen to get, one more of their kind is tried, and if that is rejected too, all others of the kind
are left out without a try: a kernel without a match rejects thousands of them.

What is not by a Service is never searched for: a lock that is held, a tool that is missing, want of memory, a signal.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from rulegen.errors import ApplyError, HostError
from rulegen.host.netfilter.restore_error import RestoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.dataplane.driver import Culprit, Driver
    from rulegen.languages.language import Shape

MOST_TRIES: Final = 60
"""After so many tries no more culprits are searched for: what was not seen to pass is left as it is."""
MOST_S: Final = 45.0
"""Nor after so many seconds. A try at 10,000 Services takes up to some seconds."""
ENOUGH: Final = 2
"""So many rejected Services that need the same make it worth a try whether all of their kind are rejected."""

_NOT_TRIED: Final = "not tested yet: too many others were rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalVerdict:
    """What a search came to.

    Attributes:
        refused: The Services that are left out, `namespace/name`, each with the reason.
        untried: Those of them that were not tried, as there was no time: they may well be taken.
        lacking: What the kernel was seen to reject to every Service that needs it; each set is needed together.
        tries: How many tries it took.
    """

    refused: Mapping[str, str]
    untried: frozenset[str]
    lacking: tuple[frozenset[Shape], ...]
    tries: int


def is_refusal(error: HostError, drivers: Mapping[str, Driver]) -> bool:
    """Whether a write failed by what was to be written, so that another part of it may well be taken."""
    cause = error.__cause__ if isinstance(error, ApplyError) else error
    return any(driver.is_refusal(cause) for driver in drivers.values())


def culprits(error: HostError, belongings: Belongings, drivers: Mapping[str, Driver]) -> dict[str, Culprit]:
    """Return the Services that an error names; empty where it names none."""
    cause = error.__cause__ if isinstance(error, ApplyError) else error
    named: dict[str, Culprit] = {}
    for driver in drivers.values():
        named.update(driver.culprits(cause, belongings))
    named.pop("", None)
    return named


class Attempt(Protocol):
    """Writes a part."""

    def __call__(self, owners: Collection[str], *, with_node: bool) -> HostError | None:
        """Write what some Services come to, and what the node needs if that is requested.

        Returns:
            Why that was rejected; None if it was taken.

        Raises:
            HostError: It failed by what is not for a Service, see `is_refusal`.
        """


@dataclass(slots=True)
class _Group:
    """Services that are to be tried together.

    Attributes:
        error: Why it is rejected, where that is known already.
        is_half: Whether it is a half of Services that all need the same.
        other: The other half, of two of which one at least is rejected, and why both together are.
    """

    owners: list[str]
    error: HostError | None = None
    is_half: bool = False
    other: tuple[_Group, HostError] | None = None


@dataclass(slots=True)
class Search:
    """A search for the Services that are rejected.

    Attributes:
        attempt: Writes what some Services come to.
        belongings: Tells whose a line is, and what a Service needs.
        drivers: By language, whose errors are read.
        most_s: After so many seconds no more is searched for.
        clock: Seconds that only grow.
    """

    attempt: Attempt
    belongings: Belongings
    drivers: Mapping[str, Driver]
    most_s: float = MOST_S
    clock: Callable[[], float] = time.monotonic
    _tries: int = 0
    _until: float = 0.0
    _has_node: bool = False
    _written: set[str] = field(default_factory=set)
    _waiting: deque[_Group] = field(default_factory=deque)
    _refused: dict[str, str] = field(default_factory=dict)
    _untried: set[str] = field(default_factory=set)
    _good: set[Shape] = field(default_factory=set)
    _counts: Counter[frozenset[Shape]] = field(default_factory=Counter)
    _lacking: list[frozenset[Shape]] = field(default_factory=list)

    def run(self, owners: Sequence[str], error: HostError) -> RefusalVerdict:
        """Return which Services are rejected; all others are written.

        Args:
            owners: The Services that were to be written, `namespace/name`; all others are there already.
            error: Why all of it together was rejected.

        Raises:
            HostError: What the node itself needs is rejected, or a try failed by something else.
        """
        self._until = self.clock() + self.most_s
        for owner in set(self.belongings.owners) - set(owners):
            self._good |= self.belongings.shapes(owner)
        self._split(list(owners), error)
        while self._waiting:
            self._turn(self._waiting.popleft())
        for needs, count in self._counts.items():  # all of a kind may have been named at once
            if count > ENOUGH and needs and not needs & self._good and needs not in self._lacking:
                self._lacking.append(needs)
        return RefusalVerdict(
            refused=self._refused,
            untried=frozenset(self._untried),
            lacking=tuple(self._lacking),
            tries=self._tries,
        )

    def _turn(self, group: _Group) -> None:
        owners = self._worth_a_try(group.owners)
        if not owners:
            return
        if self._refused and (self._tries >= MOST_TRIES or self.clock() >= self._until):  # each search finds one
            self._refused |= dict.fromkeys(owners, _NOT_TRIED)
            self._untried.update(owners)
            return
        error = group.error or self._tried(owners)
        if error is not None:
            self._split(owners, error)
        elif group.other is not None and len(owners) == len(group.owners):
            other, why = group.other
            other.error = why

    def _tried(self, group: Collection[str]) -> HostError | None:
        self._tries += 1
        error = self.attempt(group, with_node=not self._has_node)
        if error is None:
            self._has_node = True
            self._written.update(group)
            self._good.update(shape for owner in group for shape in self.belongings.shapes(owner))
        return error

    def _split(self, group: list[str], error: HostError) -> None:
        """Take out whom an error names, or cut a group that is rejected in two."""
        blamed = culprits(error, self.belongings, self.drivers)
        named = [owner for owner in group if owner in blamed]
        if not named and not self._has_node and (of_node := self._tried(())) is not None:
            raise of_node
        if named:
            self._take_out(group, {owner: blamed[owner] for owner in named})
        elif len(group) == 1:
            (owner,) = group
            needs = self.belongings.shapes(owner) - self._good
            self._refuse(owner, self._said(error, needs), needs)
            self._probe()
            self._join(owner)
        elif group:
            first, second = self._halves(group, error)
            is_half = len({self.belongings.shapes(owner) for owner in group}) == 1
            later = _Group(second, is_half=is_half)
            self._waiting.extendleft((later, _Group(first, is_half=is_half, other=(later, error))))

    def _join(self, owner: str) -> None:
        """Put the halves that nothing is known of together again: mostly one was rejected, and all others are taken."""
        shapes = self.belongings.shapes(owner)
        halves = [
            group
            for group in self._waiting
            if group.is_half and group.error is None and self.belongings.shapes(group.owners[0]) == shapes
        ]
        if len(halves) > 1:
            self._waiting = deque(group for group in self._waiting if group not in halves)
            self._waiting.appendleft(_Group([member for half in halves for member in half.owners], is_half=True))

    def _take_out(self, group: list[str], named: dict[str, Culprit]) -> None:
        """Leave those out that are named; the others of their kind are tried behind the rest."""
        needs = {culprit.needs for culprit in named.values() if culprit.needs is not None} - self._good
        for owner, culprit in named.items():
            self._refuse(owner, culprit.reason, frozenset({culprit.needs} if culprit.needs in needs else ()))
        rest = [owner for owner in group if owner not in named]
        kin = [owner for owner in rest if self.belongings.shapes(owner) & needs]
        others = sorted(set(rest) - set(kin))
        self._waiting.extendleft((_Group(kin), _Group(others)))
        self._probe()

    def _refuse(self, owner: str, why: str, needs: frozenset[Shape | None]) -> None:
        self._refused[owner] = why
        self._counts[frozenset(shape for shape in needs if shape is not None)] += 1

    def _probe(self) -> None:
        """Try one more of a kind of which some were rejected and none was taken."""
        for needs, count in list(self._counts.items()):
            if count < ENOUGH or not needs or needs & self._good or needs in self._lacking:
                continue
            kin = (
                owner
                for group in self._waiting
                for owner in self._worth_a_try(group.owners)
                if self.belongings.shapes(owner) >= needs
            )
            owner = next(kin, None)
            if owner is None:
                continue
            error = self._tried((owner,))
            if error is not None:
                self._refused[owner] = self._said(error, needs)
                self._lacking.append(needs)

    def _said(self, error: HostError, needs: frozenset[Shape]) -> str:
        """Return why a Service is rejected that was tried alone, without numbers of lines, which change."""
        cause = error.__cause__ if isinstance(error, ApplyError) else error
        said = cause.complaint if isinstance(cause, RestoreError) else error.message.splitlines()[0]
        words = _words(needs) - _words(self._good)
        return f"{said}; it needs {', '.join(sorted(words))}" if words else said

    def _worth_a_try(self, group: list[str]) -> list[str]:
        """Return a group without those that were rejected, or need what the kernel rejects to all."""
        left = []
        for owner in group:
            if owner in self._refused or owner in self._written:
                continue
            needs = next((needs for needs in self._lacking if self.belongings.shapes(owner) >= needs), None)
            if needs is None:
                left.append(owner)
            else:
                self._refused[owner] = lacking_text(needs)
        return left

    def _halves(self, group: list[str], error: HostError) -> tuple[list[str], list[str]]:
        """Cut a group in two: those that do not need what the tool misses first, else what most need, else by name."""
        cause = error.__cause__ if isinstance(error, ApplyError) else error
        if isinstance(cause, RestoreError) and cause.extension:
            words = {f"-m {cause.extension}", f"-j {cause.extension}"}
            needing = {owner for owner in group if any(words & shape for shape in self.belongings.shapes(owner))}
            if needing and len(needing) < len(group):
                return [owner for owner in group if owner not in needing], sorted(needing)
        kinds: defaultdict[frozenset[Shape], list[str]] = defaultdict(list)
        for owner in group:
            kinds[self.belongings.shapes(owner)].append(owner)
        if len(kinds) == 1 and self.belongings.shapes(group[0]) - self._good:  # may be all of the kind, or some
            return group[:1], group[1:]
        parts = sorted(kinds.values(), key=len, reverse=True) if len(kinds) > 1 else [[owner] for owner in group]
        middle = len(parts) // 2
        return list(_flat(parts[:middle])), list(_flat(parts[middle:]))


def lacking_text(needs: frozenset[Shape]) -> str:
    """Return for people why a Service is left out that needs what the kernel rejects to all."""
    return f"the kernel rejects all rules of this kind: {', '.join(sorted(_words(needs))) or 'as others were rejected'}"


def _words(shapes: Collection[Shape]) -> set[str]:
    """Return matches, targets and protocols, as rules have them."""
    return {word for shape in shapes for word in shape if word.startswith(("-m", "-j", "-p"))}


def _flat(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    return (owner for group in groups for owner in group)
