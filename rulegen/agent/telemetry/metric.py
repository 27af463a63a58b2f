"""Kinds of metrics: what an agent counts or measures, each an object that whoever counts holds.

Every method may be called by any thread. Names and values are those of Prometheus' data model; how they are written is
in `rulegen.agent.telemetry.metrics`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT: Final = 1000
"""How many durations of a histogram are kept one by one."""
SYNC_BOUNDS: Final = tuple(0.001 * 2**power for power in range(15))
"""kube-proxy's buckets: from a millisecond to 16 seconds."""
PROGRAMMING_BOUNDS: Final = (
    *(0.25, 0.5),
    *(float(seconds) for seconds in range(1, 60)),
    *(float(seconds) for seconds in range(60, 120, 5)),
    *(float(seconds) for seconds in range(120, 301, 30)),
)
"""kube-proxy's buckets for the time from a change of endpoints to the rules: to five minutes."""


@dataclass(eq=False, slots=True)
class CounterMetric:
    """Counts what only grows.

    Attributes:
        name: Of the metric.
        text: What it counts, for people.
    """

    kind: ClassVar = "counter"
    label: ClassVar = ""
    name: str
    text: str
    value: float = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, by: int = 1) -> None:
        """Count so many more."""
        with self._lock:
            self.value += by

    def values(self) -> Mapping[str, float]:
        """Return the value, under the empty label."""
        return {"": self.value}


@dataclass(eq=False, slots=True)
class LabelledCounterMetric:
    """Counts what only grows, apart for each value of one label.

    Attributes:
        name: Of the metric.
        label: Name of the label.
        text: What it counts, for people.
    """

    kind: ClassVar = "counter"
    name: str
    label: str
    text: str
    _values: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, label: str, by: int = 1) -> None:
        """Count so many more for a value of the label."""
        with self._lock:
            self._values[label] += by

    def __getitem__(self, label: str) -> float:
        """Return the count for a value of the label; 0 where none was counted."""
        return self._values[label]

    def values(self) -> Mapping[str, float]:
        """Return the counts by value of the label."""
        with self._lock:
            return dict(self._values)


@dataclass(eq=False, slots=True)
class GaugeMetric:
    """Holds a value that grows and shrinks: what was set last, or what `read` returns at the time of asking.

    Attributes:
        name: Of the metric.
        text: What it is, for people.
        read: Returns the value; None where it is set.
    """

    kind: ClassVar = "gauge"
    label: ClassVar = ""
    name: str
    text: str
    read: Callable[[], float] | None = None
    value: float = 0

    def set(self, value: float) -> None:
        """Hold this value from now on."""
        self.value = value

    def values(self) -> Mapping[str, float]:
        """Return the value, under the empty label."""
        return {"": self.value if self.read is None else self.read()}


@dataclass(eq=False, slots=True)
class LabelledGaugeMetric:
    """Holds a value for each value of one label.

    Attributes:
        name: Of the metric.
        label: Name of the label.
        text: What it is, for people.
    """

    kind: ClassVar = "gauge"
    name: str
    label: str
    text: str
    _values: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, label: str, value: float) -> None:
        """Hold this value for a value of the label."""
        with self._lock:
            self._values[label] = value

    def __getitem__(self, label: str) -> float:
        """Return the value for a value of the label."""
        return self._values[label]

    def values(self) -> Mapping[str, float]:
        """Return the values by value of the label."""
        with self._lock:
            return dict(self._values)


@dataclass(eq=False, slots=True)
class HistogramMetric:
    """Counts durations by bucket, and keeps the last few.

    Attributes:
        name: Of the metric.
        text: What takes so long, for people.
        bounds: Upper bounds of the buckets, in seconds.
        counts: How many were at most that, by bound; the last is for all.
        total: Sum of all, in seconds.
        last: The last few, in seconds.
    """

    kind: ClassVar = "histogram"
    label: ClassVar = ""
    name: str
    text: str
    bounds: tuple[float, ...] = SYNC_BOUNDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    last: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        with self._lock:
            for index, bound in enumerate(self.bounds):
                self.counts[index] += seconds <= bound
            self.counts[-1] += 1
            self.total += seconds
            self.last.append(seconds)


Metric = CounterMetric | LabelledCounterMetric | GaugeMetric | LabelledGaugeMetric | HistogramMetric
