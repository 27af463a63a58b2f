"""A node with a real kernel for saved plans: objects, the plan of a change, and changes of others in between."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rulegen.cli.main import main
from tests.cli.test_left_out import HOST, NODE, service
from tests.sizes import SIZE, Size, sized

TRIES = sized(quick=2, usual=5, full=5)
"""Changes of one round."""
ROUNDS = 4
"""In full, how many rounds each change has."""
BEFORE = [service("web", 1, ends=(1, 2)), service("zoo", 3)]
AFTER = [service("web", 1, ends=(1, 2, 3)), service("zoo", 3)]
DNS = (
    service("dns", 7, ends=(7,))
    .replace("{name: http, port: 80}", "{name: dns, port: 53, protocol: UDP}")
    .replace("{name: http, port: 8080}", "{name: dns, port: 53, protocol: UDP}")
)
Change = Callable[[random.Random], str]
"""Makes a change with a shell command, and returns that which undoes it."""


def sh(command: str) -> str:
    ended = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout


class SavedNode:
    """Runs commands on this network namespace."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        self.folder, self.capsys = folder, capsys
        (folder / "host").write_text(HOST)
        files = ("-f", f"{folder}/all.yaml", "--host", f"{folder}/host", "--cluster-cidr", "10.244.0.0/16")
        self.options = (*files, "--nfacct", "off", *options)
        self.file = str(folder / "saved")

    def objects(self, *services: str) -> None:
        (self.folder / "all.yaml").write_text(NODE + "".join(services))

    def run(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*words])
        printed = self.capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    def apply(self, *services: str) -> None:
        self.objects(*services)
        code, _, err = self.run("apply", *self.options, "--yes")
        assert code == 0, err

    def save(self) -> str:
        code, out, err = self.run("plan", *self.options, "-v", "--out", self.file)
        assert code == 0, err
        return out

    def pend(self) -> str:
        """Have a saved plan that adds an endpoint; return what it shows."""
        self.apply(*BEFORE)
        self.objects(*AFTER)
        return self.save()

    def applied(self, shown: str) -> None:
        """Apply the saved plan; it is what was shown, byte for byte, and nothing is left to do."""
        code, out, err = self.run("apply", self.file, "--yes", "-v")
        assert code == 0, err
        assert re.fullmatch(re.escape(shown) + r"Applied: \d+ changes? in \d+ steps?\.\n", out), out
        assert self.run("plan", *self.options, "--detailed-exitcode")[0] == 0

    def refused(self, snapshot: str) -> None:
        """Check that the saved plan is refused, and that nothing is written.

        Args:
            snapshot: A command that prints the state of the kernel.
        """
        before = sh(snapshot)
        code, out, err = self.run("apply", self.file, "--yes")
        assert (code, out, sh(snapshot)) == (1, "", before), err
        assert "the state of this node has changed: " in err


class Round(NamedTuple):
    """Changes for one test, each with the seed of what it picks."""

    tries: list[tuple[Change, int]]

    def __str__(self) -> str:
        return f"{self.tries[0][0].__name__}-{self.tries[0][1]}"


def rounds(changes: list[Change]) -> list[Round]:
    """Return one round with all changes in turn; in full, rounds with 20 seeds for each change."""
    if SIZE is not Size.FULL:
        return [Round([(changes[seed % len(changes)], seed) for seed in range(TRIES)])]
    firsts = range(0, TRIES * ROUNDS, TRIES)
    return [Round([(change, first + seed) for seed in range(TRIES)]) for change in changes for first in firsts]


def seeded(node: SavedNode, snapshot: str, chosen: list[Round]) -> None:
    """Check for each seed that a change of our own objects is refused, and that its undoing makes the plan valid."""
    shown = node.pend()
    for change, seed in _tries(chosen):
        undo = change(random.Random(seed))
        node.refused(snapshot)
        sh(undo)
    node.applied(shown)


def foreign(node: SavedNode, chosen: list[Round]) -> None:
    """Check for each seed that a change of another program's objects changes nothing of the plan."""
    shown = node.pend()
    for change, seed in _tries(chosen):
        change(random.Random(seed))
        code, out, err = node.run("apply", node.file, "-v")
        assert (code, out) == (1, shown), err
        assert "confirmation is needed" in err
    node.applied(shown)


def _tries(chosen: list[Round]) -> Iterator[tuple[Change, int]]:
    return (each for part in chosen for each in part.tries)


def of_flows(node: SavedNode) -> None:
    """Check that a flow that became stale after the plan was saved is deleted by it, and one that is not, is not."""
    node.apply(*BEFORE, DNS)
    node.objects(*AFTER, DNS)
    node.save()
    for number, end in enumerate((9, 7)):
        reply = (
            f"--reply-src 10.244.1.{end} --reply-dst 192.168.50.99 --reply-port-src 53 --reply-port-dst {5000 + number}"
        )
        origin = f"--orig-src 192.168.50.99 --orig-dst 10.96.0.7 --orig-port-src {5000 + number} --orig-port-dst 53"
        sh(f"conntrack -I --timeout 60 -p udp {origin} {reply}")
    code, out, err = node.run("apply", node.file, "--yes", "-v")
    assert code == 0, err
    assert "10.244.1.9" in out
    left = sh("conntrack -L -p udp 2>/dev/null")
    assert "src=10.244.1.7" in left
    assert "src=10.244.1.9" not in left
