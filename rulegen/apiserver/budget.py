"""Limits for the bytes read from an API server, and for the memory of its objects, of one command or of `run`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.apiserver.limits import LIMIT_HINT
from rulegen.errors import HostError, Rejected
from rulegen.kube.objects.events import Changed, Gone, called, name_of
from rulegen.kube.objects.packed import PackedObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.apiserver.limits import ApiTerms
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded, ObjectName


class Budget:
    """What one command may read from an API server, over all its requests.

    Attributes:
        terms: The limits.
    """

    def __init__(self, terms: ApiTerms) -> None:
        self.terms = terms
        self._received = self._kept = 0

    def receive(self, count: int, url: str) -> None:
        """Count bytes of answers.

        Raises:
            HostError: The command has read more than allowed.
        """
        self._received += count
        if self._received > self.terms.most:
            raise HostError(f"{url}: more than {self.terms.mebibytes} MiB of answers", hint=LIMIT_HINT)

    def keep(self, objects: Sequence[Decoded | Rejected], url: str) -> None:
        """Count the memory of objects.

        Raises:
            HostError: The objects need more memory than allowed.
        """
        self._kept += weight(objects)
        if self._kept > self.terms.most:
            raise HostError(f"{url}: objects that need more than {self.terms.mebibytes} MiB", hint=LIMIT_HINT)


class Kept:
    """Memory of the objects that all watchers of a program have reported; any thread may call.

    Attributes:
        terms: The limits.
        decoding: Lock held while a page is decoded, because decoding needs much more memory than the result.
    """

    def __init__(self, terms: ApiTerms) -> None:
        self.terms = terms
        self.decoding = threading.Lock()
        self._by: dict[object, int] = {}
        self._sum = 0
        self._lock = threading.Lock()

    def note(self, who: object, weight: int) -> bool:
        """Record the memory of a watcher's objects, if the limit allows it; 0 removes the watcher."""
        with self._lock:
            sum_of_all = self._sum - self._by.get(who, 0) + weight
            if weight > self._by.get(who, 0) and sum_of_all > self.terms.most:
                return False
            self._sum = sum_of_all
            if weight:
                self._by[who] = weight
            else:
                self._by.pop(who, None)
            return True


class Untaken:
    """Memory of events that the consumer may not have taken yet; any thread may call."""

    def __init__(self, terms: ApiTerms, waiting: Callable[[], int]) -> None:
        """Start with none.

        Args:
            terms: The limits: a quarter of the memory of all objects.
            waiting: Returns how many events the consumer has not taken yet.
        """
        self.waiting = waiting
        self._most = terms.most // 4
        self._sum = 0
        self._lock = threading.Lock()

    def is_full(self, weight: int) -> bool:
        """Count an event; return whether to wait until the consumer has taken all."""
        with self._lock:
            if not self.waiting():
                self._sum = 0
            self._sum += weight
            return self._sum > self._most


class Account:
    """Counts bytes that several threads hold at the same time.

    Attributes:
        most: Maximum number of bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Count more bytes as held, if the limit allows it; a negative number releases bytes."""
        with self._lock:
            if count > 0 and self._held + count > self.most:
                return False
            self._held += count
            return True


def weight(objects: Sequence[Decoded | Rejected]) -> int:
    """Return an estimate of the memory of objects in bytes; it is rather too high.

    JSON of many small values can need thirty times its size as objects. The memory of objects is therefore counted, not
    the size of their text.
    """
    whole = [each for each in objects if not isinstance(each, Rejected | PackedObject)]
    text = _ENCODER.encode([each.object for each in whole])
    sum_of_all = 1024 * len(whole) + len(text) + 64 * (text.count(b",") + text.count(b'":"'))
    for each in objects:
        if isinstance(each, Rejected):
            sum_of_all += 512 + sum(256 + len(fault.path) + len(fault.message) for fault in each.faults)
            continue
        if isinstance(each, PackedObject):
            sum_of_all += 1024 + len(each.packed)
        if each.warnings:
            sum_of_all += sum(128 + len(text) for text in each.warnings)
    return sum_of_all


_ENCODER: Final = msgspec.json.Encoder()


class Weights:
    """Memory of the reported objects of one kind, by name.

    Attributes:
        total: Their sum.
    """

    def __init__(self, kind: type[KubeObject]) -> None:
        self.total = 0
        self._kind = kind
        self._usable: dict[ObjectName, int] = {}
        self._rejected: dict[str, int] = {}

    def changed(self, event: Changed | Gone) -> int:
        """Record the current state of one object, or its deletion, and return its memory."""
        self.total -= self._usable.pop(event.name, 0)
        if self._rejected:
            self.total -= self._rejected.pop(called(self._kind, event.name), 0)
        if isinstance(event, Changed):
            return self.add(event.state)
        return 0

    def add(self, each: Decoded | Rejected) -> int:
        """Record the current state of one object, and return its memory."""
        heavy = weight([each])
        self.total += heavy
        if isinstance(each, Rejected):
            self.total -= self._rejected.pop(each.object, 0)
            self._rejected[each.object] = heavy
        else:
            name = name_of(each)
            self.total -= self._usable.pop(name, 0)
            self._usable[name] = heavy
        return heavy
