"""Endpoints that nobody has reported as dead, in userspace mode: what clients see of them."""

from __future__ import annotations

import json
import shlex
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from integration.agent import until
from integration.blackbox import Rulegen
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App, world
from integration.proxied import ProxyProcesses
from rulegen.host.userspace.exchange import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import LabMaker
    from integration.lab.lab import Lab

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

LIVE = App(name="partly", number=75, ready=("pod-a",), protocols=("TCP",), families=(4,))
DEAD = range(9001, 9010)
"""Ports of pod-b that nobody listens on."""
LONGEST_S = 2.5
"""The first connection may try nine dead endpoints for 250 ms each."""


def serving(app: App, ports: range) -> str:
    """Return a world in which pod-b has one more endpoint of a Service for each port."""
    whole = json.loads(world([app]))
    pattern = next(
        each for each in App(name=app.name, number=app.number, ready=("pod-b",), families=(4,)).documents()[1:]
    )
    for port in ports:
        item: dict[str, Any] = json.loads(json.dumps(pattern))
        item["metadata"]["name"] = f"dead-{port}"
        item["ports"] = [{"name": "tcp", "protocol": "TCP", "port": port}]
        whole["items"].append(item)
    return json.dumps(whole)


def in_pod_b(lab: Lab, rule: str) -> None:
    lab["pod-b"].run(["iptables-nft", *shlex.split(rule)]).check()


@pytest.fixture
def proxied(labs: LabMaker) -> Iterator[Rulegen]:
    rulegen = Rulegen(labs(Namespaces, "userspace"), "userspace")
    yield rulegen
    for table in ("filter", "nat"):
        in_pod_b(rulegen.lab, f"-t {table} -F")
    rulegen.cleanup()


def ejected(rulegen: Rulegen) -> int:
    """Return how many servers of the Service HAProxy has ejected."""
    rows = [line.split() for line in reported(rulegen, "show servers state") if " lab.partly." in line]
    return sum(row[5] == "0" for row in rows)


def failed_at_fallbacks(rulegen: Rulegen) -> int:
    """Return how many connections to fallback servers of the Service have failed."""
    rows = [line.split(",") for line in reported(rulegen, "show stat -1 4 -1") if line.startswith("lab.partly.")]
    return sum(int(row[13]) for row in rows if row[1].endswith("_fallback"))


def reported(rulegen: Rulegen, question: str) -> list[str]:
    return (ask(ProxyProcesses(rulegen.lab).folder, "haproxy.sock", f"{question}\n", 10) or "").splitlines()


@pytest.mark.parametrize("kind", ["refuse", "do not answer"])
def test_one_live_of_ten_endpoints_serves_everybody(proxied: Rulegen, kind: str) -> None:
    lab, address = proxied.lab, LIVE.cluster_ip(4)
    if kind == "do not answer":
        in_pod_b(lab, f"-A INPUT -p tcp --dport {DEAD[0]}:{DEAD[-1]} -j DROP")
    proxied.apply(serving(LIVE, DEAD))
    answers = [lab["pod-c"].request("TCP", address, PORT, timeout_s=LONGEST_S) for _ in range(30)]
    assert {answer.name for answer in answers} == {"pod-a"}
    assert ejected(proxied) == len(DEAD)
    proxied.check_converged()
    for table, rule in (
        ("filter", "-F"),
        ("nat", f"-A PREROUTING -p tcp --dport {DEAD[0]} -j REDIRECT --to-ports {LIVE.target}"),
    ):
        in_pod_b(lab, f"-t {table} {rule}")
    until(lambda: ejected(proxied) == len(DEAD) - 1, 10, "the endpoint that answers again is back")
    answers = [lab["pod-c"].request("TCP", address, PORT, timeout_s=LONGEST_S) for _ in range(6)]
    assert {answer.name for answer in answers} == {"pod-a", "pod-b"}


def test_if_all_endpoints_are_ejected_all_are_tried(proxied: Rulegen) -> None:
    lab, address = proxied.lab, LIVE.cluster_ip(4)
    nobody = App(name=LIVE.name, number=LIVE.number, protocols=("TCP",), families=(4,))
    proxied.apply(serving(nobody, DEAD[:2]))
    assert lab["pod-c"].request("TCP", address, PORT, timeout_s=20).name == ""
    assert ejected(proxied) == 2
    assert failed_at_fallbacks(proxied) > 0
    in_pod_b(lab, f"-t nat -A PREROUTING -p tcp --dport {DEAD[0]} -j REDIRECT --to-ports {LIVE.target}")
    assert lab["pod-c"].request("TCP", address, PORT, timeout_s=20).name == "pod-b"
