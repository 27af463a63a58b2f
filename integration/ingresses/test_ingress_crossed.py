"""Annotations on every way that a request can take, in pairs: real connections through the node's nginx."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress.crossed import everywhere
from integration.ingress.crossed.pairs import Row, covering, pairs_of
from integration.ingress.crossed.sites import FACTORS, asks, documents, is_possible, world
from integration.ingress.features import World

if TYPE_CHECKING:
    from integration.ingress.clients import Ask
    from integration.ingress.features import Stage

SEED = 20261129
ROWS = covering(FACTORS, is_possible, SEED)
CROSSED = World(
    name="crossed",
    config={"global-allowed-response-headers": "X-All"},
    documents=(*world(), *(document for number, row in enumerate(ROWS) for document in documents(number, row))),
)
pytestmark = pytest.mark.xdist_group("ingress-1")


def test_every_possible_pair_is_in_a_row() -> None:
    rows = (dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values()))
    possible = {pair for row in rows if is_possible(row) for pair in pairs_of(row)}
    assert {pair for row in ROWS for pair in pairs_of(row)} == possible
    assert len(ROWS) < 2 * len(FACTORS["feature"]) * len(FACTORS["path"])


WAYS = covering(everywhere.WAYS, everywhere.is_way, SEED)
SET = everywhere.settings_world(
    tuple(document for number, row in enumerate(WAYS) for document in documents(number, row))
)


def _parameters(rows: list[Row]) -> list[Any]:
    return [pytest.param(number, row, id="-".join(row.values())) for number, row in enumerate(rows)]


def _check(stage: Stage, number: int, row: Row, world: World, requests: Iterable[Ask]) -> None:
    stage.serve(world, ())
    wrong = [entry for ask in requests for entry in stage.judge(ask)]
    if wrong:
        hosts = [text for text in stage.lab.node.rendered().values() if f"r{number}.crossed.test" in text]
        reasons = [line for line in stage.output.splitlines() if f"crossed-r{number}" in line]
        pytest.fail("\n  * ".join([str(row), *wrong]) + "\n" + "\n".join([*reasons, *hosts]), pytrace=False)


@pytest.mark.parametrize(("number", "row"), _parameters(ROWS))
def test_an_annotation_is_answered_alike(stage: Stage, number: int, row: Row) -> None:
    _check(stage, number, row, CROSSED, asks(number, row))


@pytest.mark.parametrize(("number", "row"), _parameters(WAYS))
def test_a_setting_holds_everywhere(stage: Stage, number: int, row: Row) -> None:
    _check(stage, number, row, SET, everywhere.asks(number, row))
