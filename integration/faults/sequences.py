"""Random sequences of faults and their ends, with changes of the cluster between them."""

from __future__ import annotations

import difflib
import os
import random
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from integration.agent import until
from integration.faults.kinds import KINDS
from integration.faults.programs import RESTORE_S
from integration.faults.scene import CHANGING
from integration.faults.scene import scene as made

if TYPE_CHECKING:
    from integration.faults.modes import ServiceMode
    from integration.faults.scene import Scene
    from integration.lab.hosts import Family
    from integration.manifests import App

MOST_AT_ONCE = 3
HOSTS = ("pod-a", "pod-b", "pod-x")
LATE_S = RESTORE_S + 8.0
"""What is not broken follows the cluster within this time: one time limit of a tool, and what a busy machine adds."""
START_S = 20.0
"""An agent that has just started may take so much longer: it reads everything first."""
PARTS: dict[str, Family] = {"IPv4": 4, "IPv6": 6}
CHOSEN = [name for name in KINDS if os.environ.get("RULEGEN_FAULT_KINDS", "") in name]
"""The kinds of faults to choose from: those whose names have this text in them."""


@dataclass
class Sequence:
    """One sequence on a node, by a seed.

    Attributes:
        scene: The node.
        steps: What has happened, for messages.
        begun: The faults among them.
    """

    scene: Scene
    seed: int
    steps: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._active: dict[str, ExitStack] = {}
        self._hosts = 0

    def run(self, count: int) -> float:
        """Do so many steps, end all faults, and return how long all took to settle."""
        try:
            for _ in range(count):
                self._step()
                time.sleep(self._random.uniform(0.1, 0.8))
                self.scene.check_agents()
            for name in list(self._active):
                self._end(name)
            return self._settle()
        except AssertionError as error:
            raise AssertionError(f"seed {self.seed}: {self.steps}\n{error}") from error
        finally:
            for name in list(self._active):
                self._end(name)

    def _settle(self) -> float:
        took_s = self.scene.settle()
        self.scene.client.is_excused = False
        return took_s

    def _step(self) -> None:
        chance = self._random.random()
        if chance < 0.5 and len(self._active) < MOST_AT_ONCE:
            self._begin()
        elif chance < 0.65 and self._active:
            self._end(self._random.choice(sorted(self._active)))
        else:
            self._change()

    def _begin(self) -> None:
        groups = {group for name in self._active for group in KINDS[name].groups}
        known = self.scene.mode.tools.keys()
        names = [name for name in CHOSEN if not KINDS[name].groups & groups and known >= {*KINDS[name].tools}]
        if not names:
            self._change()
            return
        name = self._random.choice(names)
        kind = KINDS[name]
        self.steps.append(f"begin: {name}")
        self.scene.broken |= kind.harmed(self.scene.mode)
        self.scene.client.is_excused |= kind.stops_site
        stack = ExitStack()
        stack.enter_context(kind.begin(self.scene, self._random))
        self._active[name] = stack
        self.begun.append(name)

    def _end(self, name: str) -> None:
        self.steps.append(f"end: {name}")
        self._active.pop(name).close()

    def _change(self) -> None:
        """Change a Service or an Ingress; what is not broken follows."""
        if self._random.random() < 0.3:
            self._hosts += 1
            self.steps.append("change: an Ingress")
            self.scene.serve_host(f"host-{self._random.randrange(4)}")
            return
        ready = tuple(sorted(self._random.sample(HOSTS, self._random.randint(1, 3))))
        self.steps.append(f"change: {ready} are ready")
        app = replace(CHANGING, ready=ready)
        self.scene.serve(app)
        within_s = LATE_S + START_S if self.scene.is_fresh else LATE_S
        for part, family in PARTS.items():
            if part not in self.scene.broken:
                until(lambda a=app, f=family: self._sends(a, f) == len(ready), within_s, f"{part} follows")

    def _sends(self, app: App, family: Family) -> int:
        return len(self.scene.mode.sent(self.scene.node, app, family))


@dataclass
class Endured:
    """What a node has endured.

    Attributes:
        sequences: The number of sequences.
        faults: How often each fault began.
        slowest_s: The longest time until all was as it should be.
        wrong: What broke a promise; empty if nothing did.
    """

    sequences: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    wrong: str = ""


def endure(layout: str, seconds: float, seed: int, steps: int = 8, mode: ServiceMode | None = None) -> Endured:
    """Run sequences on a node of its own for so long, then compare it with a fresh start."""
    results, faults = Endured(), Counter[str]()
    try:
        with made(layout, seed, mode) as node:
            until_s = time.monotonic() + seconds
            while not results.sequences or time.monotonic() < until_s:
                sequence = Sequence(node, seed + results.sequences)
                took_s = run_asked(sequence, steps)
                results.sequences += 1
                results.slowest_s = max(results.slowest_s, round(took_s, 1))
                faults.update(sequence.begun)
            check_like_fresh_start(node)
    except AssertionError as error:
        results.wrong = f"{layout}: {error}"
    results.faults = dict(sorted(faults.items()))
    return results


def run_asked(sequence: Sequence, steps: int) -> float:
    """Run a sequence while clients ask; return how long all took to settle."""
    sequence.scene.ask()
    took_s = sequence.run(steps)
    try:
        sequence.scene.stop_asking()
    except AssertionError as error:
        raise AssertionError(f"seed {sequence.seed}: {sequence.steps}\n{error}") from error
    return took_s


def check_like_fresh_start(scene: Scene) -> None:
    """Fail unless agents that start on a node without anything lead to the same state; they are stopped afterwards."""
    survived: dict[str, Any] = scene.outputs()
    scene.stop()
    scene.wipe()
    scene.start()
    scene.settle(60)
    fresh: dict[str, Any] = scene.outputs()
    lines = _differences(survived.pop("files"), fresh.pop("files"))
    assert lines == [], "\n".join(lines)
    others = {key: value for key, value in fresh.items() if value != survived[key]}
    assert others == {}, (others, survived)
    scene.stop()


def _differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the lines of files that differ."""
    names = sorted({*before, *after})
    texts = ((name, before.get(name, ""), after.get(name, "")) for name in names)
    return [
        f"{name}: {line}"
        for name, old, new in texts
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), "survived", "fresh", n=0)
    ]
