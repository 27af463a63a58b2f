"""What tests of the watcher share: a consumer that believes all it is told, objects, and short pauses."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rulegen.apiserver.watching.backoff import ApiTiming
from rulegen.errors import Rejected
from rulegen.kube.objects.events import Changed, Event, Gone, Listed, called, name_of
from rulegen.kube.objects.names import Decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALL = "all"
NAMESPACE = "namespace"
NAMES = "names"
ROLES = (ALL, NAMESPACE, NAMES)
"""What a role allows of Secrets and ConfigMaps: those of all namespaces, of each namespace, single names."""

FAST = {
    "first_pause": 0.02,
    "longest_pause": 0.1,
    "slow_pause": 0.1,
    "list_silence": 0.5,
    "watch_silence": 0.4,
    "short_watch": 0.05,
    "outage": 1.0,
    "notice": 0.05,
    "overdue": 20.0,
    "wake_spread": 0.02,
    "poll": 0.1,
}


def allowed_to(role: str, path: str, query: Mapping[str, str]) -> bool:
    """Return whether a role allows a request for Secrets or ConfigMaps; all else is allowed."""
    if not re.search(r"/(secrets|configmaps)$", path) or role == ALL:
        return True
    return "/namespaces/" in path and (role == NAMESPACE or "metadata.name=" in query.get("fieldSelector", ""))


def fast(**other: Any) -> ApiTiming:
    return ApiTiming(**{**FAST, **other})


class Consumer:
    """Keeps what the events say, by kind: uids of usable objects by name, and titles of the others."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.usable: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
        self.rejected: dict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)
            kind = event.kind.__name__
            match event:
                case Listed(objects=objects):
                    usable = [each for each in objects if isinstance(each, Decoded)]
                    self.usable[kind] = {tuple(name_of(each)): each.object.metadata.uid for each in usable}
                    self.rejected[kind] = {each.object for each in objects if isinstance(each, Rejected)}
                case Changed(state=each, name=name):
                    self._forget(event.kind, name)
                    if isinstance(each, Decoded):
                        self.usable[kind][tuple(name)] = each.object.metadata.uid
                    else:
                        self.rejected[kind].add(each.object)
                case Gone(name=name):
                    self._forget(event.kind, name)

    def _forget(self, kind: Any, name: Any) -> None:
        self.usable[kind.__name__].pop(tuple(name), None)
        self.rejected[kind.__name__].discard(called(kind, name))

    def state(self, kind: str) -> tuple[dict[tuple[str, str], str], set[str]]:
        with self._lock:
            return dict(self.usable[kind]), set(self.rejected[kind])

    def names(self, kind: str) -> list[str]:
        return sorted(name for _, name in self.state(kind)[0])

    def of(self, kind: str, *types: type) -> list[Event]:
        with self._lock:
            return [each for each in self.events if each.kind.__name__ == kind and isinstance(each, types or object)]


def soon(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    """Wait until something is so, and tell whether it came to be; a loaded machine takes long."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
