"""Requests and who must answer them: real connections through the node's nginx to real backends, case by case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from integration.ingress import objects, reports
from tests.shared import SHARED, shared

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node

_FILE = "ingress/cases.yaml"
_KNOWN = {"name", "source", "compat", "note", "tags", "ingresses", "services", "endpoints", "requests"}
_KNOWN |= {"secrets", "config", "flags", "extra_objects", "expect_events", "expect_ingress_status"}


def _cases() -> list[Any]:
    """Return the cases, spread over two workers; a single one that skips where there is no such file."""
    path = SHARED / _FILE
    if not path.exists():
        return [pytest.param(None, id="absent")]
    with path.open(encoding="utf-8") as text:
        cases = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["cases"]
    return [
        pytest.param(case, id=case["name"], marks=pytest.mark.xdist_group(f"ingress-{number % 2}"))
        for number, case in enumerate(cases)
    ]


@pytest.mark.parametrize("case", _cases())
def test_case(ingress_lab: IngressLab, ingress_node: Node, case: dict[str, Any] | None) -> None:
    if case is None:
        shared(_FILE)
        return
    assert case.keys() <= _KNOWN
    documents = objects.of_case(case)
    ingress_lab.listen(objects.ports(documents))
    done = ingress_node.apply(documents, case.get("flags"))
    facts = ingress_lab.facts(documents)
    wrong = [
        f"{ {key: value for key, value in request.items() if key != 'expect'} }\n      {entry}"
        for request in case["requests"]
        for entry in ingress_lab.judge(request, facts)
    ]
    wrong += _events(ingress_node, case)
    # `expect_ingress_status` is about what an agent writes back to the cluster; a command that is given files does not.
    if wrong:
        hosts = "\n".join(f"--- {path}\n{text}" for path, text in ingress_node.rendered().items())
        pytest.fail(
            f"{case['name']} ({case.get('note', '')})\n  * " + "\n  * ".join(wrong) + f"\n{done.stdout}\n{hosts}",
            pytrace=False,
        )


def _events(node: Node, case: dict[str, Any]) -> list[str]:
    """Return the events that a case expects and of which a plan tells nothing."""
    if not case.get("expect_events"):
        return []
    planned = node.planned()
    return [
        f"plan does not tell {event}: {reports.shown(planned)}"
        for event in case["expect_events"]
        if not reports.about(planned, event["ingress"], event["contains"])
    ]
