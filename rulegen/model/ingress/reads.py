"""What was looked up to decide: by it is told which decisions still hold, and which changes touch any of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from rulegen.kube.objects.names import ObjectName

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Default = TypeVar("Default")


class RecordedMapping(Mapping[Key, Value]):
    """A mapping that notes what is looked up in it.

    Attributes:
        answers: What was looked up, with the answer; None for what is not there.
    """

    __slots__ = ("_known", "answers")

    def __init__(self, known: Mapping[Key, Value]) -> None:
        """Look up in another mapping."""
        self._known = known
        self.answers: dict[Key, Value | None] = {}

    @overload
    def get(self, key: Key, /) -> Value | None: ...

    @overload
    def get(self, key: Key, /, default: Value | Default) -> Value | Default: ...

    def get(self, key: Key, /, default: object = None) -> object:
        """Return a value, and note that it was looked up."""
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
    """The Services and addresses that decisions were made of, those that are not there among them.

    Attributes:
        services: Names that were looked up.
        addresses: Addresses of which it was looked up whether they are a Service's.
    """

    services: frozenset[ObjectName] = frozenset()
    addresses: frozenset[str] = frozenset()

    def is_touched(self, services: AbstractSet[ObjectName], addresses: AbstractSet[str]) -> bool:
        """Return whether another decision may follow once these Services, or owners of these addresses, changed."""
        return not (self.services.isdisjoint(services) and self.addresses.isdisjoint(addresses))

    def with_others(self, other: ServiceReads) -> ServiceReads:
        """Return what either of two was made of."""
        return ServiceReads(self.services | other.services, self.addresses | other.addresses)
