"""Finds the Services that the kernel or a tool rejects, so that each affects only itself.

Each try writes a part of the changes: some Services, with everything that they need. An accepted part stays written.
From a rejected part, the Services that the error names are removed; if it names none, the part is split in two, with
Services that need the same kernel features together. If Services with a requirement were rejected and none was
accepted, one more of this kind is tried. If that is rejected too, all others of the kind are left out without a try,
because a kernel without a match rejects thousands of them.

Errors without a responsible Service start no search: a held lock, a missing tool, lack of memory, a signal.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from rulegen.errors import ApplyError, HostError
from rulegen.host.netfilter.restore_error import RestoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.dataplane.driver import Culprit, Driver
    from rulegen.languages.language import Shape

MOST_TRIES: Final = 60
"""After this many tries the search ends: Services that were not accepted stay as they are."""
MOST_S: Final = 45.0
"""Time limit of a search in seconds. A try with 10,000 Services takes up to some seconds."""
ENOUGH: Final = 2
"""Number of rejected Services with the same requirement after which the requirement itself is tested."""

_NOT_TRIED: Final = "not tested yet: too many others were rejected"


class RefusalVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a search.

    Attributes:
        refused: The left-out Services (`namespace/name`), each with the reason.
        untried: Those that were not tried for lack of time: they may be valid.
        lacking: Features that the kernel rejects for every Service; each set is needed together.
        tries: Number of tries.
    """

    refused: Mapping[str, str]
    untried: frozenset[str]
    lacking: tuple[frozenset[Shape], ...]
    tries: int


def is_refusal(error: HostError, drivers: Mapping[str, Driver]) -> bool:
    """Whether a write failed because of its content, so that another part may be accepted."""
    cause = error.__cause__ if isinstance(error, ApplyError) else error
    return any(driver.is_refusal(cause) for driver in drivers.values())


def culprits(error: HostError, belongings: Belongings, drivers: Mapping[str, Driver]) -> dict[str, Culprit]:
    """Return the Services that an error identifies; empty if it identifies none."""
    cause = error.__cause__ if isinstance(error, ApplyError) else error
    named: dict[str, Culprit] = {}
    for driver in drivers.values():
        named.update(driver.culprits(cause, belongings))
    named.pop("", None)
    return named


class Attempt(Protocol):
    """Writes a part."""

    def __call__(self, owners: Collection[str], *, with_node: bool) -> HostError | None:
        """Write the changes of some Services, and those of the node if requested.

        Returns:
            Why they were rejected; None if they were accepted.

        Raises:
            HostError: The write failed for another reason, see `is_refusal`.
        """


@dataclass(slots=True)
class _Group:
    """Services that are tried together.

    Attributes:
        error: Why they were rejected, if known.
        is_half: Whether it is a half of Services with the same requirements.
        other: The other half; at least one of both is rejected; and why both together are.
    """

    owners: list[str]
    error: HostError | None = None
    is_half: bool = False
    other: tuple[_Group, HostError] | None = None


@dataclass(slots=True)
class Search:
    """A search for the rejected Services.

    Attributes:
        attempt: Writes the changes of some Services.
        belongings: Finds the Service of a line, and the requirements of a Service.
        drivers: By language; they interpret its errors.
        most_s: Time limit of the search in seconds.
        clock: Monotonic time in seconds.
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
        """Return the rejected Services; all others are written.

        Args:
            owners: The Services to write (`namespace/name`); all others are written already.
            error: Why all of them together were rejected.

        Raises:
            HostError: Node-wide objects are rejected, or a try failed for another reason.
        """
        self._until = self.clock() + self.most_s
        for owner in set(self.belongings.owners) - set(owners):
            self._good |= self.belongings.shapes(owner)
        self._split(list(owners), error)
        while self._waiting:
            self._turn(self._waiting.popleft())
        for needs, count in self._counts.items():  # an error may name all of a kind at once
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
        """Remove the Services that an error names, or split a rejected group in two."""
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
        """Join the untested halves again: usually one Service was rejected, and all others are valid."""
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
        """Leave out the named Services; others of their kind are tried after the rest."""
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
        """Try one more Service of a kind of which some were rejected and none was accepted."""
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
        """Return why a single Service was rejected, without line numbers, which change."""
        cause = error.__cause__ if isinstance(error, ApplyError) else error
        said = cause.complaint if isinstance(cause, RestoreError) else error.message.splitlines()[0]
        words = _words(needs) - _words(self._good)
        return f"{said}; it needs {', '.join(sorted(words))}" if words else said

    def _worth_a_try(self, group: list[str]) -> list[str]:
        """Return a group without rejected Services, and without those that need a rejected feature."""
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
        """Split a group: Services without the missing feature first, else by the most common requirement or by name."""
        cause = error.__cause__ if isinstance(error, ApplyError) else error
        if isinstance(cause, RestoreError) and cause.extension:
            words = {f"-m {cause.extension}", f"-j {cause.extension}"}
            needing = {owner for owner in group if any(words & shape for shape in self.belongings.shapes(owner))}
            if needing and len(needing) < len(group):
                return [owner for owner in group if owner not in needing], sorted(needing)
        kinds: defaultdict[frozenset[Shape], list[str]] = defaultdict(list)
        for owner in group:
            kinds[self.belongings.shapes(owner)].append(owner)
        if len(kinds) == 1 and self.belongings.shapes(group[0]) - self._good:  # possibly all of the kind, or some
            return group[:1], group[1:]
        parts = sorted(kinds.values(), key=len, reverse=True) if len(kinds) > 1 else [[owner] for owner in group]
        middle = len(parts) // 2
        return list(_flat(parts[:middle])), list(_flat(parts[middle:]))


def lacking_text(needs: frozenset[Shape]) -> str:
    """Return as text why a Service is left out that needs a feature that the kernel rejects for every Service."""
    words = sorted(_words(needs))
    what = f"with {', '.join(words)}" if words else "that this Service needs"
    return f"the kernel rejects all rules {what}"


def _words(shapes: Collection[Shape]) -> set[str]:
    """Return matches, targets and protocols, as in rules."""
    return {word for shape in shapes for word in shape if word.startswith(("-m", "-j", "-p"))}


def _flat(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    return (owner for group in groups for owner in group)
