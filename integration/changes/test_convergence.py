"""Apply, then plan: empty. From whatever was there before: nothing, half of it, a hand-edited or another world's."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from integration import rulesets, saves
from integration.blackbox import CHANGES
from integration.conftest import IPTABLES, NFTABLES
from integration.lab.hosts import FAMILIES, TRANSPORTS
from integration.manifests import PORT, App, world
from tests.sizes import examples

if TYPE_CHECKING:
    from integration.blackbox import Rulegen, Variant
    from integration.lab.lab import Lab

HOSTS = st.frozensets(st.sampled_from(["pod-a", "pod-b", "pod-c", "pod-x", "node1"]), max_size=3).map(sorted).map(tuple)


@st.composite
def apps(draw: st.DrawFn, number: int) -> App:
    """Draw any App that the API would take."""
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    balanced = kind == "LoadBalancer"
    external = draw(st.sampled_from(["Cluster", "Local"]))
    ready, terminating = draw(HOSTS), draw(HOSTS)
    return App(
        name=f"app-{number}",
        number=600 + number,
        type=kind,
        ready=ready,
        terminating=tuple(host for host in terminating if host not in ready),
        protocols=draw(st.sampled_from([TRANSPORTS, ("TCP",), ("UDP", "TCP")])),
        families=draw(st.sampled_from([FAMILIES, (4,), (6,)])),
        external=external,
        internal=draw(st.sampled_from(["Cluster", "Cluster", "Local"])),
        external_ip=draw(st.booleans()),
        affinity_s=draw(st.sampled_from([0, 0, 10])),
        health_check_port=31000 + number if balanced and external == "Local" else 0,
        ranges=draw(st.sampled_from([(), ("192.168.50.0/24", "fd00:50::/64"), ("10.0.0.0/8",)])) if balanced else (),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[App, ...]:
    """Draw a few Apps out of five, so that two worlds have some in common, alike or not."""
    numbers = draw(st.frozensets(st.integers(1, 5), min_size=1, max_size=4))
    return tuple(draw(apps(number)) for number in sorted(numbers))


@pytest.mark.layouts
@pytest.mark.parametrize("start", ["half", "edited", "other"])
@settings(
    max_examples=examples(2),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(wanted=worlds(), other=worlds(), seed=st.integers(0, 2**32))
def test_apply_then_plan_is_empty(
    lab: Lab,
    rulegen: Rulegen,
    variant: Variant,
    start: str,
    *,
    wanted: tuple[App, ...],
    other: tuple[App, ...],
    seed: int,
) -> None:
    """And what then is in the kernel is what an apply to an empty one leaves."""
    rulesets.wipe(lab.node, variant)
    rulegen.apply(world(wanted))
    fresh = rulesets.observe(lab.node, variant)
    if start == "other":
        rulegen.check_converged()
        rulesets.wipe(lab.node, variant)
        rulegen.apply(world(other))
    else:
        rulesets.spoil(lab.node, variant, Random(seed), start)
        if start == "edited" and variant in NFTABLES:  # a rule of a stranger is among the edits
            assert rulegen.plan().code == CHANGES
    rulegen.apply(world(wanted))
    rulegen.check_converged()
    mended = rulesets.observe(lab.node, variant)
    for family in FAMILIES:
        assert sorted(mended[family] - fresh[family]) == []
        assert sorted(fresh[family] - mended[family]) == []


ONE = App(
    name="one", number=651, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True, ranges=("10.0.0.0/8",)
)
TWO = App(name="two", number=652, type="NodePort")
THREE = App(name="three", number=653, ready=("pod-a",), external="Local", type="NodePort", affinity_s=10)
WORLD = world([ONE, TWO, THREE])


@pytest.mark.variants(*NFTABLES)
def test_a_second_apply_makes_no_object_anew(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    rulegen.apply(WORLD)
    before = rulesets.stamps(lab.node, variant)
    assert len(before) > 50
    rulegen.apply(WORLD)
    assert rulesets.stamps(lab.node, variant) == before


@pytest.mark.variants(*IPTABLES)
def test_a_second_apply_writes_nothing(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    """Even the counters of our own rules stay."""
    rulegen.apply(WORLD)
    lab["pod-b"].requests(5, "TCP", ONE.cluster_ip(4), PORT)
    before = [lab.node.run([f"{saves.tool(variant, family)}-save", "-c"]).check().stdout for family in FAMILIES]
    rulegen.apply(WORLD)
    after = [lab.node.run([f"{saves.tool(variant, family)}-save", "-c"]).check().stdout for family in FAMILIES]
    counted = [_counted(text) for text in before]
    assert any(packets for family in counted for _, packets in family)
    for then, now in zip(counted, [_counted(text) for text in after], strict=True):
        assert [rule for rule, _ in now] == [rule for rule, _ in then]
        # The last FIN of a connection may pass between the two; a rule that was written again counts from 0.
        fallen = [(rule, was, is_) for (rule, was), (_, is_) in zip(then, now, strict=True) if is_ < was]
        assert fallen == []


def _counted(text: str) -> list[tuple[str, int]]:
    """Return each rule of a save with the packets that it counted; table and COMMIT lines count none."""
    counted = []
    for line in text.splitlines():
        if line.startswith(("#", ":")):
            continue
        counters, _, rule = line.partition("] ")
        counted.append((rule, int(counters[1:].split(":")[0])) if rule else (line, 0))
    return counted


@pytest.mark.variants(*IPTABLES)
@pytest.mark.same_rules(3)
@pytest.mark.parametrize(
    "harm",
    [
        ["-t", "nat", "-F"],
        ["-t", "nat", "-D", "PREROUTING", "-j", "KUBE-SERVICES"],
        ["-t", "filter", "-F", "KUBE-FORWARD"],
        ["-t", "mangle", "-X", "KUBE-PROXY-CANARY"],
        ["-t", "nat", "-I", "KUBE-SERVICES", "1", "-j", "RETURN"],
        # The first two are one node port's: the rule that counts it on loopback, where the kernel can, and its own.
        ["-t", "nat", "-D", "KUBE-NODEPORTS", "1"],
        ["-t", "nat", "-D", "KUBE-NODEPORTS", "2"],
        ["-t", "nat", "-A", "KUBE-MARK-MASQ", "-j", "MARK", "--set-xmark", "0x1/0x1"],
    ],
    ids=" ".join,
)
def test_drift_is_seen_and_mended(lab: Lab, rulegen: Rulegen, variant: Variant, harm: list[str]) -> None:
    """Rules that somebody else took, emptied or added to our chains."""
    rulegen.apply(WORLD)
    for family in FAMILIES:
        done = lab.node.run([saves.tool(variant, family), *harm])
        if harm[2] == "-D" and done.code != 0:
            _delete_by_number(lab, variant, saves.tool(variant, family))
        else:
            done.check()
    assert rulegen.plan().code == CHANGES
    rulegen.apply(WORLD)
    rulegen.check_converged()
    assert lab["pod-b"].request("TCP", ONE.cluster_ip(4), PORT).outcome == "answered"


def _delete_by_number(lab: Lab, variant: Variant, tool: str) -> None:
    """Delete the jump from PREROUTING, which bears a comment and so is not found by its text."""
    text = lab.node.run([tool, "-t", "nat", "-S", "PREROUTING"]).check().stdout
    rules = [line for line in text.splitlines() if line.startswith("-A ")]
    number = next(n for n, line in enumerate(rules, 1) if line.endswith("-j KUBE-SERVICES"))
    lab.node.run([tool, "-t", "nat", "-D", "PREROUTING", str(number)]).check()
