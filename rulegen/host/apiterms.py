"""What an API server's answers may cost, and what a kubeconfig may have us do.

An answer is whatever comes over the network: the server may be another one, or a proxy between us and it may write
what it likes. So all of it is bounded, in bytes, in memory and in time, each answer alone and all of them together.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.errors import HostError, Rejected
from rulegen.kube.events import Changed, Gone, called, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.kube.objects import KubeObject
    from rulegen.kube.validate import Decoded
    from rulegen.kube.world import ObjectName

DEFAULT_MEBIBYTES: Final = 256
"""Enough for 20,000 Services with an EndpointSlice of five endpoints each, measured with what a real server adds."""
MOST_MEBIBYTES: Final = 16_384
LIMIT_HINT: Final = "if the cluster is as large as that: --api-limit"

HEAD_BYTES: Final = 64 << 10
"""Bytes of an answer before its body: status line, headers, interim answers (1xx). A server's are about 500 bytes."""
ANSWER_S: Final = 60.0
"""Seconds for one answer, from the request to its last byte."""
LIST_S: Final = 300.0
"""Seconds for a list, all pages and tries of it: about as long as a server keeps the state that pages come from."""
MAX_PAGES: Final = 20_000
MAX_TOKEN: Final = 32 << 10
"""Characters of what asks for the next page, which goes into a URL. A server's are about 300."""
MAX_OBJECT: Final = 16 << 20
"""Bytes of one object, or of one event of a watch. A server takes objects of up to 3 MiB; their JSON may be longer."""


@dataclass(frozen=True, slots=True)
class ApiTerms:
    """What an API server and a kubeconfig may do.

    Attributes:
        mebibytes: MiB of all lists of one command, and of the memory that their objects take.
        exec_plugins: Whether a kubeconfig may have a program run that provides its credentials.
    """

    mebibytes: int = DEFAULT_MEBIBYTES
    exec_plugins: bool = True

    @property
    def most(self) -> int:
        """Bytes of all lists together, and of memory for objects."""
        return self.mebibytes << 20

    @property
    def page(self) -> int:
        """Bytes of one page of a list; all answers that `run` is reading at the same time may have twice as many."""
        return self.mebibytes << 17


class TooLargeError(HostError):
    """An answer is larger than may be; fewer objects at a time may fit."""


class Budget:
    """What one command may read from an API server, all its requests together.

    Attributes:
        terms: What it may be.
    """

    def __init__(self, terms: ApiTerms) -> None:
        self.terms = terms
        self._received = self._kept = 0

    def receive(self, count: int, url: str) -> None:
        """Count bytes of answers.

        Raises:
            HostError: There are more than the command may read.
        """
        self._received += count
        if self._received > self.terms.most:
            raise HostError(f"{url}: more than {self.terms.mebibytes} MiB of answers", hint=LIMIT_HINT)

    def keep(self, objects: Sequence[Decoded | Rejected], url: str) -> None:
        """Count the memory of objects.

        Raises:
            HostError: Objects take more of it than they may.
        """
        self._kept += weight(objects)
        if self._kept > self.terms.most:
            raise HostError(f"{url}: objects that need more than {self.terms.mebibytes} MiB", hint=LIMIT_HINT)


class Kept:
    """Memory for the objects that the watchers of a program have told, together; any thread may call.

    Attributes:
        terms: What it may be.
        decoding: Held while a page is decoded: one takes much more memory then than what is kept of it.
    """

    def __init__(self, terms: ApiTerms) -> None:
        self.terms = terms
        self.decoding = threading.Lock()
        self._by: dict[object, int] = {}
        self._sum = 0
        self._lock = threading.Lock()

    def note(self, who: object, weight: int) -> bool:
        """Note the weight of all that somebody has told, or is about to, if it may be; 0 forgets about it."""
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


class Account:
    """Counts bytes that several threads hold at the same time.

    Attributes:
        most: How many they may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Count more bytes as held, if they may be; a negative number gives bytes back."""
        with self._lock:
            if count > 0 and self._held + count > self.most:
                return False
            self._held += count
            return True


def weight(objects: Sequence[Decoded | Rejected]) -> int:
    """Return about how many bytes of memory objects take: rather more than they do.

    JSON of many small values takes up to thirty times its own size as objects. So what is kept is counted, and not the
    text that it came from.
    """
    usable = [one for one in objects if not isinstance(one, Rejected)]
    text = _ENCODER.encode([one.object for one in usable])
    sum_of_all = 1024 * len(usable) + len(text) + 64 * (text.count(b",") + text.count(b'":"'))
    for one in objects:
        if isinstance(one, Rejected):
            sum_of_all += 512 + sum(256 + len(fault.path) + len(fault.message) for fault in one.faults)
        elif one.warnings:
            sum_of_all += sum(128 + len(text) for text in one.warnings)
    return sum_of_all


_ENCODER: Final = msgspec.json.Encoder()


class Weights:
    """The weights of the objects of one kind that were told, by name.

    Attributes:
        total: Their sum.
    """

    def __init__(self, kind: type[KubeObject]) -> None:
        self.total = 0
        self._kind = kind
        self._usable: dict[ObjectName, int] = {}
        self._rejected: dict[str, int] = {}

    def changed(self, event: Changed | Gone) -> None:
        """Note what one object is now, or that it is gone."""
        self.total -= self._usable.pop(event.name, 0)
        if self._rejected:
            self.total -= self._rejected.pop(called(self._kind, event.name), 0)
        if isinstance(event, Changed):
            self.add(event.one)

    def add(self, one: Decoded | Rejected) -> None:
        """Note one object as it is now."""
        heavy = weight([one])
        self.total += heavy
        if isinstance(one, Rejected):
            self.total -= self._rejected.pop(one.object, 0)
            self._rejected[one.object] = heavy
        else:
            name = name_of(one)
            self.total -= self._usable.pop(name, 0)
            self._usable[name] = heavy
