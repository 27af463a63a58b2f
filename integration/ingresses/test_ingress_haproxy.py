"""Requests and who must answer them, with an HAProxy that `apply` starts on the node."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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

NOT_YET: dict[str, str] = {}
"""Cases that HAProxy does not serve as expected, each with the reason; each of them must fail."""


def _cases() -> list[Any]:
    path = SHARED / _FILE
    absent = [] if path.exists() else [pytest.param(None, None, id="absent")]
    return absent + [
        pytest.param(
            group,
            case,
            id=case["name"],
            marks=[
                pytest.mark.xdist_group("ingress-haproxy"),
                *([pytest.mark.xfail(reason=NOT_YET[case["name"]], strict=True)] if case["name"] in NOT_YET else []),
            ],
        )
        for group in grouped(files.cases(path) if path.exists() else [])
        for case in group.cases
    ]


class HaproxySite:
    """HAProxy on the node, which serves one group at a time."""

    def __init__(self, lab: IngressLab, node: Node) -> None:
        self._lab, self._node = lab, node
        self._group: CaseGroup | None = None
        self.planned: dict[str, Any] = {}

    def serve(self, group: CaseGroup) -> None:
        """Have HAProxy serve a group, unless it does."""
        if self._group is group:
            return
        self._group = None
        self._lab.listen(objects.ports(group.documents))
        self._node.apply(group.documents, group.flags)
        self.planned = self._node.planned()
        assert self._node.is_converged(), "the plan after apply is not empty"
        self._group = group


@pytest.fixture(scope="module")
def served(ingress_lab: IngressLab) -> Iterator[HaproxySite]:
    """Give HAProxy instead of the node's nginx."""
    if shutil.which("haproxy") is None:
        pytest.skip("not installed: haproxy")
    ingress_lab.vacate()
    with ingress_lab.served_apart("haproxy", engine="haproxy") as node:
        yield HaproxySite(ingress_lab, node)


@pytest.mark.parametrize(("group", "case"), _cases())
def test_case(ingress_lab: IngressLab, served: HaproxySite, group: CaseGroup | None, case: Case | None) -> None:
    if group is None or case is None:
        shared(_FILE)
        return
    files.check_case(case)
    served.serve(group)
    facts = ingress_lab.facts(group.documents)
    jars: Jars = {}
    wrong = [
        f"{ {key: value for key, value in request.items() if key != 'expect'} }\n      {entry}"
        for request in case.get("requests", ())
        for entry in ingress_lab.judge(request, facts, jars)
    ]
    wrong += [
        f"the plan does not report {event}"
        for event in case.get("expect_events", ())
        if not reports.about(served.planned, event["ingress"], event["contains"])
    ]
    if wrong:
        what = f"{case['name']} ({case.get('note', '')})\n  * " + "\n  * ".join(wrong)
        pytest.fail(f"{what}\n{reports.shown(served.planned)}", pytrace=False)
