"""Requests and who must answer them: real connections through the node's nginx to real backends, case by case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress import objects, reports
from integration.ingress.forms import files
from integration.ingress.forms.groups import Case, CaseGroup, grouped
from tests.shared import SHARED, shared

if TYPE_CHECKING:
    from integration.ingress.forms.requests import Jars
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node

_FILE = "ingress/cases.yaml"


def _cases() -> list[Any]:
    """Return the cases, spread over two workers; a single one that skips where there is no such file."""
    path = SHARED / _FILE
    cases = files.cases(files.OWN / "cases.yaml") + (files.cases(path) if path.exists() else [])
    absent = [] if path.exists() else [pytest.param(None, None, id="absent")]
    return absent + [
        pytest.param(group, case, id=case["name"], marks=pytest.mark.xdist_group(f"ingress-{group.number % 2}"))
        for group in grouped(cases)
        for case in group.cases
    ]


class Applied:
    """The node, which serves one group at a time.

    Attributes:
        output: What `apply` printed.
    """

    def __init__(self) -> None:
        self._group: CaseGroup | None = None
        self.output = ""

    def apply(self, lab: IngressLab, node: Node, group: CaseGroup) -> None:
        """Have the node serve a group, unless it does."""
        if self._group is not group:
            self.forget()
            lab.listen(objects.ports(group.documents))
            self.output = node.apply(group.documents, group.flags).stdout
            self._group = group

    def forget(self) -> None:
        """Have the next case apply its group again."""
        self._group = None


@pytest.fixture(scope="module")
def applied() -> Applied:
    return Applied()


@pytest.mark.parametrize(("group", "case"), _cases())
def test_case(
    ingress_lab: IngressLab, ingress_node: Node, applied: Applied, group: CaseGroup | None, case: Case | None
) -> None:
    if group is None or case is None:
        shared(_FILE)
        return
    files.check_case(case)
    applied.apply(ingress_lab, ingress_node, group)
    facts = ingress_lab.facts(group.documents)
    jars: Jars = {}
    wrong = [
        f"{ {key: value for key, value in request.items() if key != 'expect'} }\n      {entry}"
        for request in case.get("requests", ())
        for entry in ingress_lab.judge(request, facts, jars)
    ]
    wrong += _events(ingress_node, case) + _status(ingress_node, case)
    if wrong:
        applied.forget()
        hosts = "\n".join(f"--- {path}\n{text}" for path, text in ingress_node.rendered().items())
        pytest.fail(
            f"{case['name']} ({case.get('note', '')})\n  * " + "\n  * ".join(wrong) + f"\n{applied.output}\n{hosts}",
            pytrace=False,
        )


def _status(node: Node, case: dict[str, Any]) -> list[str]:
    """Return the Ingresses that an agent would not give an address, or give one, other than a case expects.

    An agent gives its address to each Ingress that it serves; a plan skips the others.
    """
    if "expect_ingress_status" not in case:
        return []
    planned = node.planned()
    is_expected = case["expect_ingress_status"] == "has-address"
    metadata = [entry["metadata"] for entry in case.get("ingresses", ())]
    names = [f"{each.get('namespace', 'default')}/{each['name']}" for each in metadata]
    return [
        f"{name}: {case['expect_ingress_status']}: {reports.shown(planned)}"
        for name in names
        if bool(reports.about(planned, name, "skipped")) == is_expected
    ]


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
