"""Features of Ingresses, one by one: real connections through the node's nginx to backends that tell what they saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress.scenarios import ALL

if TYPE_CHECKING:
    from integration.ingress.features import Scenario, Stage

_BY_WORLD: defaultdict[str, list[Scenario]] = defaultdict(list)
for _scenario in ALL:
    _BY_WORLD[_scenario.world.name].append(_scenario)


def _parameters() -> Iterator[Any]:
    """Yield all scenarios, those of a world one after the other, the worlds spread over two workers."""
    for number, scenarios in enumerate(_BY_WORLD.values()):
        group = pytest.mark.xdist_group(f"ingress-{number % 2}")
        for scenario in scenarios:
            marks = [group]
            if scenario.not_yet:
                marks.append(pytest.mark.xfail(reason=scenario.not_yet, strict=True))
            yield pytest.param(scenario, id=scenario.name, marks=marks)


@pytest.mark.parametrize("scenario", list(_parameters()))
def test_feature(stage: Stage, scenario: Scenario) -> None:
    stage.serve(scenario.world, _BY_WORLD[scenario.world.name])
    wrong = [entry for ask in scenario.asks for entry in stage.judge(ask)]
    if scenario.then is not None and (reported := scenario.then(stage)):
        wrong.append(str(reported))
    if wrong:
        hosts = {document["metadata"]["name"] for document in scenario.documents if document["kind"] == "Ingress"}
        rendered = stage.lab.node.rendered()
        shown = [f"--- {path}\n{text}" for path, text in rendered.items() if any(host in text for host in hosts)]
        reasons = [line for line in stage.output.splitlines() if any(host in line for host in hosts)]
        reasons += [line for line in stage.errors()[-50:] if any(host in line for host in hosts)]
        pytest.fail("\n  * ".join([scenario.name, *wrong]) + "\n" + "\n".join([*reasons, *shown]), pytrace=False)


def test_every_scenario_has_a_name_of_its_own() -> None:
    names = [scenario.name for scenario in ALL]
    assert sorted(set(names)) == sorted(names)
