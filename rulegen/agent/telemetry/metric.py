"""Kinds of metrics. Each metric is an object that the counting code uses.

Every method may be called by any thread. Names and values follow Prometheus' data model; the text format is in
`rulegen.agent.telemetry.metrics`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT: Final = 1000
"""Number of durations of a histogram that are kept."""
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
    """A counter.

    Attributes:
        name: Name of the metric.
        text: Meaning of the value, for people.
    """

    kind: ClassVar = "counter"
    label: ClassVar = ""
    name: str
    text: str
    value: float = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, by: int = 1) -> None:
        """Increase the value."""
        with self._lock:
            self.value += by

    def values(self) -> Mapping[str, float]:
        """Return the value, under the empty label."""
        return {"": self.value}


@dataclass(eq=False, slots=True)
class LabelledCounterMetric:
    """A counter with one label: one value for each value of the label.

    Attributes:
        name: Name of the metric.
        label: Name of the label.
        text: Meaning of the values, for people.
    """

    kind: ClassVar = "counter"
    name: str
    label: str
    text: str
    _values: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, label: str, by: int = 1) -> None:
        """Increase the count for a value of the label."""
        with self._lock:
            self._values[label] += by

    def __getitem__(self, label: str) -> float:
        """Return the count for a value of the label; 0 if nothing was counted."""
        return self._values[label]

    def values(self) -> Mapping[str, float]:
        """Return the counts by value of the label."""
        with self._lock:
            return dict(self._values)


@dataclass(eq=False, slots=True)
class GaugeMetric:
    """A gauge: returns the value that was set last, or calls `read`.

    Attributes:
        name: Name of the metric.
        text: Meaning of the value, for people.
        read: Returns the value; None if the value is set.
    """

    kind: ClassVar = "gauge"
    label: ClassVar = ""
    name: str
    text: str
    read: Callable[[], float] | None = None
    value: float = 0

    def set(self, value: float) -> None:
        """Set the value."""
        self.value = value

    def values(self) -> Mapping[str, float]:
        """Return the value, under the empty label."""
        return {"": self.value if self.read is None else self.read()}


@dataclass(eq=False, slots=True)
class LabelledGaugeMetric:
    """A gauge with one label: one value for each value of the label.

    Attributes:
        name: Name of the metric.
        label: Name of the label.
        text: Meaning of the values, for people.
    """

    kind: ClassVar = "gauge"
    name: str
    label: str
    text: str
    _values: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, label: str, value: float) -> None:
        """Set the value for a value of the label."""
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
    """A histogram: counts durations by bucket, and keeps the last few.

    Attributes:
        name: Name of the metric.
        text: What is measured, for people.
        bounds: Upper bounds of the buckets, in seconds.
        counts: Number of durations up to each bound; the last is for all.
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
