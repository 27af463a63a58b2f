"""Rows that hold every possible pair of values of two factors at least once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence

Row = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]

_TRIES = 40


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """Return the pairs of a row."""
    return set(itertools.combinations(sorted(row.items()), 2))


def covering(factors: Mapping[str, Sequence[str]], possible: Callable[[Row], bool], seed: int) -> list[Row]:
    """Return rows, always the same ones for a seed, in which each pair stands that any possible row has.

    Each row is begun with a pair that no row has yet, and is the best of some that chance fills up.
    """
    rows = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    rows = [row for row in rows if possible(row)]
    by_pair: dict[Pair, list[Row]] = {}
    for row in rows:
        for pair in pairs_of(row):
            by_pair.setdefault(pair, []).append(row)
    chance = random.Random(seed)
    missing = sorted(by_pair)
    chance.shuffle(missing)
    open_pairs = set(missing)
    chosen: list[Row] = []
    for pair in missing:
        if pair in open_pairs:
            having = by_pair[pair]
            tried = chance.sample(having, min(_TRIES, len(having)))
            best = max(tried, key=lambda row: len(pairs_of(row) & open_pairs))
            chosen.append(best)
            open_pairs -= pairs_of(best)
    return chosen
