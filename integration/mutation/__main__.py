"""`python -m integration.mutation COPY...`: mutate copies of a tree and print which mutants the tests kill."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from integration.mutation.concern import concerned_tests, sample
from integration.mutation.mutants import Mutant

SELECTED = "not slow and not containers and not uml"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether tests noticed, and which or how."""

    killed: bool
    reason: str


@click.command()
@click.argument("copies", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--number", default=100, show_default=True, help="How many mutants.")
@click.option("--seed", default=1, show_default=True, help="Which ones.")
@click.option("--limit", default=300.0, show_default=True, help="Seconds for a mutant's tests; more counts as killed.")
@click.option("--list", "only_list", is_flag=True, help="Print the mutants and run nothing.")
def main(copies: tuple[Path, ...], number: int, seed: int, limit: float, *, only_list: bool) -> None:
    """Run each mutant's tests, one mutant at a time in each of these COPIES of one tree."""
    chosen = sample(copies[0], number, seed)
    if only_list:
        click.echo("\n".join(map(str, chosen)))
        return
    _require_passing(copies[0], {path for mutant in chosen for path in concerned_tests(copies[0], mutant)})
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in copies:
        free.put(path)

    def judge(mutant: Mutant) -> bool:
        root = free.get()
        try:
            begin = time.monotonic()
            verdict = _judged(root, mutant, limit)
        finally:
            free.put(root)
        word = "killed  " if verdict.killed else "SURVIVED"
        click.echo(f"{word} {mutant}  ({verdict.reason}, {time.monotonic() - begin:.0f} s)")
        return verdict.killed

    with ThreadPoolExecutor(len(copies)) as pool:
        killed = sum(pool.map(judge, chosen))
    click.echo(f"{len(chosen)} mutants, seed {seed}: {killed} killed, {len(chosen) - killed} survived")


def _require_passing(root: Path, paths: Iterable[str]) -> None:
    done = _run(root, sorted(paths), None)
    if done.returncode:
        sys.exit(f"without any mutant the tests fail:\n{done.stdout[-3000:]}")


def _judged(root: Path, mutant: Mutant, limit: float) -> Verdict:
    file = root / mutant.path
    source = file.read_bytes()
    file.write_bytes(mutant.applied(source))
    try:
        done = _run(root, concerned_tests(root, mutant), limit)
    except subprocess.TimeoutExpired:
        return Verdict(killed=True, reason="no end")
    finally:
        file.write_bytes(source)
    if done.returncode == 0:
        return Verdict(killed=False, reason="all pass")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return Verdict(killed=True, reason=lines[0].split(" - ")[0] if lines else f"pytest ends with {done.returncode}")


def _run(root: Path, paths: list[str], limit: float | None) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy until one fails; what an editable installation would import is not used."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0", "-m", SELECTED]
    return subprocess.run(
        [*command, *paths],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )


if __name__ == "__main__":
    main()
