"""Records lookups, to know which decisions remain valid after a change and which do not."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from rulegen.kube.objects.names import ObjectName

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Default = TypeVar("Default")


class RecordedMapping(Mapping[Key, Value]):
    """A mapping that records lookups.

    Attributes:
        answers: The key and the value of each lookup; None for an absent key.
    """

    __slots__ = ("_known", "answers")

    def __init__(self, known: Mapping[Key, Value]) -> None:
        """Record lookups in another mapping."""
        self._known = known
        self.answers: dict[Key, Value | None] = {}

    @overload
    def get(self, key: Key, /) -> Value | None: ...

    @overload
    def get(self, key: Key, /, default: Value | Default) -> Value | Default: ...

    def get(self, key: Key, /, default: object = None) -> object:
        """Return a value and record the lookup."""
        answer = self.answers[key] = self._known.get(key)
        return default if answer is None else answer

    def __getitem__(self, key: Key) -> Value:
        answer = self.answers[key] = self._known.get(key)
        if answer is None:
            raise KeyError(key)
        return answer

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None  # type: ignore[arg-type] # what is no key is not there

    def __iter__(self) -> Iterator[Key]:
        raise TypeError("only lookups of single keys are recorded")

    def __len__(self) -> int:
        return len(self._known)


class ServiceReads(NamedTuple):
    """Services and addresses that were looked up for decisions, also absent ones.

    Attributes:
        services: Names that were looked up.
        addresses: Addresses that were looked up among the addresses of Services.
    """

    services: frozenset[ObjectName] = frozenset()
    addresses: frozenset[str] = frozenset()

    def is_touched(self, services: AbstractSet[ObjectName], addresses: AbstractSet[str]) -> bool:
        """Return whether a change of these Services, or of the owners of these addresses, may change a decision."""
        return not (self.services.isdisjoint(services) and self.addresses.isdisjoint(addresses))

    def with_others(self, other: ServiceReads) -> ServiceReads:
        """Return the union of both."""
        return ServiceReads(self.services | other.services, self.addresses | other.addresses)


def all_reads(reads: Iterable[ServiceReads | None]) -> ServiceReads | None:
    """Return the Services and addresses that were used for any of these decisions; None if any may matter."""
    union = ServiceReads()
    for each in reads:
        if each is None:
            return None
        union = union.with_others(each)
    return union
