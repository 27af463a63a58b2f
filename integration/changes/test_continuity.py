"""No packet is lost to a change: clients connect without pause while endpoints and Services come and go."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from integration.manifests import PORT, App, world
from tests.sizes import sized

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.lab import Lab

CHANGES = sized(quick=3, usual=10, full=50)
PAUSE_S = sized(quick=0.05, usual=0.05, full=0.02)
"""Between the questions of all clients but one: they need not fill the machine to meet every change many times."""
SHORT_S = sized(quick=0.004, usual=0.004, full=0.0)
"""Between the questions of that one: shorter than the time between two commits of a change."""
HOSTS: tuple[str, ...] = ("pod-a", "pod-b", "pod-x")
BYSTANDER = App(name="bystander", number=801, ready=("pod-b",), protocols=("TCP", "UDP"))


def changing(ready: tuple[str, ...], **more: Any) -> App:
    return App(
        name="changing",
        number=802,
        ready=ready,
        protocols=("TCP", "UDP"),
        type="LoadBalancer",
        external_ip=True,
        **more,
    )


def test_changes_of_endpoints_lose_no_connection(lab: Lab, rulegen: Rulegen) -> None:
    """An endpoint that leaves listens on, so whatever fails is ours. One that serves throughout is not needed."""
    random = Random(3)
    rulegen.serve((BYSTANDER, changing(HOSTS)))
    app = changing(HOSTS)
    asking = {
        "a pod by ClusterIP, most often": lab["pod-c"].repeat("TCP", app.cluster_ip(4), PORT, pause_s=SHORT_S),
        "a pod by ClusterIP, IPv6": lab["pod-c"].repeat("TCP", app.cluster_ip(6), PORT, pause_s=PAUSE_S),
        "outside by node port": lab.client.repeat("TCP", lab.node.addresses(4)[0], app.node_port, pause_s=PAUSE_S),
        "outside by balancer, IPv6": lab.client.repeat("TCP", app.lb_ip(6), PORT, pause_s=PAUSE_S),
        "the node by ClusterIP": lab.node.repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        "a pod by another Service": lab["pod-c"].repeat("TCP", BYSTANDER.cluster_ip(4), PORT, pause_s=PAUSE_S),
    }
    before = HOSTS
    for _ in range(CHANGES):
        after = before
        while after == before:
            after = tuple(sorted(random.sample(HOSTS, random.randint(1, 3))))
        rulegen.apply(world([BYSTANDER, changing(after)]))
        before = after
    reports = {who: asker.stop() for who, asker in asking.items()}
    assert {who: report.first_failures for who, report in reports.items() if report.failures} == {}
    for who, report in reports.items():
        assert sum(report.answered.values()) > CHANGES, who
    rulegen.check_converged()


def test_changes_of_policy_and_kind_lose_no_connection(lab: Lab, rulegen: Rulegen) -> None:
    """What is valid before and after a change of anything else stays so in between."""
    kinds: list[dict[str, Any]] = [
        {},
        {"external": "Local", "health_check_port": 32902},
        {"affinity_s": 10},
        {"internal": "Local"},
        {"ranges": ("192.168.50.0/24", "fd00:50::/64")},
        {"terminating": ("pod-b",)},
        {"ranges": ("10.0.0.0/8", "fd00::/16", "192.168.50.100/32"), "affinity_s": 10},
        {"external": "Local", "health_check_port": 32902, "affinity_s": 10},
    ]
    rulegen.serve((BYSTANDER, changing(("pod-a", "pod-x"))))
    app = changing(("pod-a", "pod-x"))
    asking = {
        "a pod by ClusterIP": lab["pod-c"].repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        "outside by balancer": lab.client.repeat("TCP", app.lb_ip(4), PORT, pause_s=PAUSE_S),
        "outside by external IP, IPv6": lab.client.repeat("TCP", app.outer_ip(6), PORT, pause_s=PAUSE_S),
        "outside by node port": lab.client.repeat("TCP", lab.node.addresses(4)[0], app.node_port, pause_s=PAUSE_S),
    }
    for more in [*kinds, {}]:
        rulegen.apply(world([BYSTANDER, changing(("pod-a", "pod-x"), **more)]))
    reports = {who: asker.stop() for who, asker in asking.items()}
    assert {who: report.first_failures for who, report in reports.items() if report.failures} == {}


def test_services_that_come_and_go_disturb_no_other(lab: Lab, rulegen: Rulegen) -> None:
    rulegen.serve((BYSTANDER,))
    asking = [
        lab["pod-c"].repeat("TCP", BYSTANDER.cluster_ip(4), PORT, pause_s=PAUSE_S),
        lab["pod-c"].repeat("UDP", BYSTANDER.cluster_ip(4), PORT, pause_s=PAUSE_S),
        lab.client.repeat("TCP", BYSTANDER.cluster_ip(6), PORT, pause_s=PAUSE_S),
    ]
    for round_ in range(8):
        others = [App(name=f"other-{n}", number=810 + n, ready=("pod-a",)) for n in range(round_ % 4)]
        rulegen.apply(world([BYSTANDER, *others]))
    reports = [asker.stop() for asker in asking]
    assert [report.first_failures for report in reports if report.failures] == []
    assert [set(report.answered) for report in reports] == [{"pod-b"}] * 3
