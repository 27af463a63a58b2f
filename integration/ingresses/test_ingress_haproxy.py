"""Requests and who must answer them, with HAProxy on the node, started with what `export --haproxy` writes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress import objects
from integration.ingress.forms import files
from integration.ingress.forms.groups import Case, CaseGroup, grouped
from tests.shared import SHARED, shared

if TYPE_CHECKING:
    from integration.ingress.forms.requests import Jars
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node
    from integration.lab.hosts import Running

_FILE = "ingress/cases.yaml"
_START_S = 20

NOT_YET: dict[str, str] = {"external-name": "names of ExternalName Services are not resolved: such paths answer 503"}
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


class ExportedSite:
    """HAProxy on the node, with the exported configuration of one group at a time."""

    def __init__(self, lab: IngressLab, node: Node) -> None:
        self._lab, self._node = lab, node
        self._group: CaseGroup | None = None
        self._process: Running | None = None
        self.folder = Path(lab.folder / "haproxy")
        self.output = ""

    def serve(self, group: CaseGroup) -> None:
        """Have HAProxy serve a group, unless it does."""
        if self._group is group:
            return
        self.end()
        self._lab.listen(objects.ports(group.documents))
        self._node.write(group.documents, group.flags)
        export = self._node.run("export", "--no-services", "--haproxy", str(self.folder), "--with-secrets")
        self.output = export.check().stdout + export.stderr
        argv = ["haproxy", "-db", "-C", str(self.folder), "-f", "haproxy.cfg", "-f", "secrets/users.cfg"]
        self._process = self._node.host.popen(argv)
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self._lab.client.connect(80).close()
            except OSError:
                assert time.monotonic() < deadline, self.end()
                time.sleep(0.05)
            else:
                break
        self._group = group

    def end(self) -> str:
        """End HAProxy; return what it has written."""
        output = ""
        if self._process is not None:
            self._process.kill(group=True)
            done = self._process.wait()
            output = done.stdout + done.stderr
        self._group, self._process = None, None
        shutil.rmtree(self.folder, ignore_errors=True)
        return output

    @property
    def reasons(self) -> list[str]:
        """What the export says of Ingresses that are not served as written."""
        reasons: list[str] = json.loads((self.folder / "provenance.json").read_text())["reasons"]
        return reasons


@pytest.fixture(scope="module")
def exported(ingress_lab: IngressLab) -> Iterator[ExportedSite]:
    """Give HAProxy instead of the node's nginx."""
    if shutil.which("haproxy") is None:
        pytest.skip("not installed: haproxy")
    ingress_lab.vacate()
    site = ExportedSite(ingress_lab, ingress_lab.node)
    yield site
    site.end()


@pytest.mark.parametrize(("group", "case"), _cases())
def test_case(ingress_lab: IngressLab, exported: ExportedSite, group: CaseGroup | None, case: Case | None) -> None:
    if group is None or case is None:
        shared(_FILE)
        return
    files.check_case(case)
    exported.serve(group)
    facts = ingress_lab.facts(group.documents)
    jars: Jars = {}
    wrong = [
        f"{ {key: value for key, value in request.items() if key != 'expect'} }\n      {entry}"
        for request in case["requests"]
        for entry in ingress_lab.judge(request, facts, jars)
    ]
    wrong += [
        f"the export does not report {event}"
        for event in case.get("expect_events", ())
        if not any(event["ingress"] in reason and event["contains"] in reason for reason in exported.reasons)
    ]
    if wrong:
        pytest.fail(
            f"{case['name']} ({case.get('note', '')})\n  * " + "\n  * ".join(wrong) + f"\n{exported.output}",
            pytrace=False,
        )
