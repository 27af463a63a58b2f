"""Features with HAProxy: those that protect, with the expectations as with nginx, and those of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress.scenarios import ALL
from integration.ingress.scenarios import haproxy as haproxy_scenarios
from integration.ingress.scenarios.protection import access, external_auth

if TYPE_CHECKING:
    from integration.ingress.features import Scenario, Stage

OTHERWISE: dict[str, str] = {
    "the-auth-server-is-asked-about-the-host-that-is-served": "a host in the URL that is not that of Host gets 400",
    "auth-is-no-error-to-replace": "answers are not replaced by those of a Service",
    "auth-beside-large-bodies-and-headers": "headers of up to 32 KB are read from every server",
    "mtls-is-not-resumed-from-elsewhere": "no session is resumed while a host requests certificates of clients",
    "mtls-depth": "the length of chains of certificates is not limited",
    "limit-rate": "HAProxy 2.6 does not limit how fast an answer is sent",
    "mirrors": "copies have bodies of at most 32 KB",
    "auth-connections-are-kept-as-told": "HAProxy decides which connections to auth servers are kept",
}
"""Scenarios that HAProxy serves in another way than nginx, each with the difference; each of them must fail."""
_OTHERS = {
    "backend-fastcgi",
    "fastcgi-clients-prove-who-they-are",
    "mirrors",
    "cookies-and-redirects-of-backends",
    "gzip",
    "redirects-name-no-port-of-ours",
    "default-backend-of-a-service-without-endpoints",
}
_PROTECTING = {scenario.name for scenario in (*external_auth.SCENARIOS, *access.SCENARIOS)}
_SCENARIOS: tuple[Scenario, ...] = (
    *(scenario for scenario in ALL if scenario.name in _PROTECTING | _OTHERS),
    *haproxy_scenarios.SCENARIOS,
)


@pytest.fixture(scope="module")
def haproxy(stage: Stage) -> Iterator[Stage]:
    """Give HAProxy instead of the node's nginx."""
    from integration.ingress.features import Stage as HaproxyStage  # noqa: PLC0415 - its certificates take a while

    if shutil.which("haproxy") is None:
        pytest.skip("not installed: haproxy")
    stage.lab.vacate()
    with stage.lab.served_apart("haproxy", engine="haproxy") as node:
        yield HaproxyStage(stage.lab, stage.client, own_node=node)


def _parameters() -> Iterator[Any]:
    for scenario in _SCENARIOS:
        marks: list[Any] = [pytest.mark.xdist_group("ingress-haproxy")]
        if scenario.name in OTHERWISE:
            marks.append(pytest.mark.xfail(reason=OTHERWISE[scenario.name], strict=True))
        yield pytest.param(scenario, id=scenario.name, marks=marks)


@pytest.mark.parametrize("scenario", list(_parameters()))
def test_feature(haproxy: Stage, scenario: Scenario) -> None:
    world = [each for each in _SCENARIOS if each.world.name == scenario.world.name]
    haproxy.serve(scenario.world, world)
    wrong = [entry for ask in scenario.asks for entry in haproxy.judge(ask)]
    if scenario.then is not None and (reported := scenario.then(haproxy)):
        wrong.append(str(reported))
    if wrong:
        hosts = {document["metadata"]["name"] for document in scenario.documents if document["kind"] == "Ingress"}
        reasons = [line for line in haproxy.output.splitlines() if any(host in line for host in hosts)]
        pytest.fail("\n  * ".join([scenario.name, *wrong]) + "\n" + "\n".join(reasons), pytrace=False)
