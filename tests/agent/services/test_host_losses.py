"""What the host or the Node object no longer says restricts as before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.errors import Fault, Rejected
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, Listed
from rulegen.model.services.node.context import ROUTE_LOCALNET
from tests.agent.hosts import (
    MODES,
    NAME,
    OPTIONS,
    POOL,
    PRIMARY,
    THERE,
    becomes,
    differences,
    host,
    listening_ports,
    node,
    services,
    staged,
)
from tests.agent.stage import NODE, Stage, WholeWriter, changed
from tests.sizes import examples


def state(stage: Stage, listening: set[tuple[str, int]]) -> tuple[object, ...]:
    """Return all of the node that a packet or a client could notice."""
    compiled = stage.desired.compiled()
    kernels = (
        stage.writer.node.dump()
        if isinstance(stage.writer, WholeWriter)
        else [kernel.save() for kernel in stage.writer.kernels.values()]
    )
    return kernels, dict(compiled.model.sysctls), set(listening)


LOSSES = {
    "node-deleted": (Gone(k.Node, NAME),),
    "node-not-listed": (Listed(k.Node, ()),),
    "node-refused": (Changed(k.Node, Rejected(f"Node {NODE}", "test", (Fault("spec", "is odd"),)), NAME),),
    "node-without-addresses": (changed(node()),),
    "node-without-ipv4": (changed(node("fd00:50::10")),),
    "node-without-ipv6": (changed(node("192.168.50.10")),),
    "node-without-pod-cidrs": (changed(node("192.168.50.10", "fd00:50::10", cidrs=())),),
    "node-with-one-pod-cidr": (changed(node("192.168.50.10", "fd00:50::10", cidrs=("10.244.1.0/24",))),),
    "node-made-anew-and-bare": (Gone(k.Node, NAME), changed(node(cidrs=(), uid="u2"))),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", ["primary", "node-cidr", "node-cidr-primary"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_what_a_node_restricts_stays_so_while_it_is_gone(mode, options, loss, listening):
    """What a node restricts stays restricted while it is gone and the log says so once."""
    stage = staged(mode, OPTIONS[options])
    stage.at(0, changed(THERE), *services())
    states: list[object] = []
    stage.at(5, lambda: states.append(state(stage, listening)))
    stage.at(6, *LOSSES[loss])
    stage.at(90, lambda: states.append(state(stage, listening)))
    stage.at(91, changed(node("192.168.50.10", "fd00:50::10", uid="u2")))
    stage.at(95, lambda: states.append(state(stage, listening)))
    stage.run(100)
    assert states == [states[0]] * 3
    kept = [line for line in stage.log if "in use" in line]
    assert len(kept) == len(set(kept)) > 0
    assert len([line for line in stage.log if "the Node object is complete again" in line]) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bare", [False, True])
def test_a_node_that_comes_back_with_other_values_is_followed(mode, bare, listening):
    stage = staged(mode, OPTIONS["node-cidr-primary"], host(*POOL))
    other = node("192.168.50.77", "fd00:50::77", cidrs=("10.244.9.0/24", "fd00:10:244:9::/64"), zone="zone-b", uid="u2")
    stage.at(0, changed(THERE), *services())
    stage.at(5, Gone(k.Node, NAME))
    if bare:
        stage.at(6, changed(node(cidrs=(), uid="u2")))
    stage.at(7, changed(other))
    differing: list[object] = []
    stage.at(9, lambda: differing.extend(differences(stage, listening)))
    stage.run(9.1)
    assert differing == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("events", [(), (changed(node()),)], ids=["no-node", "node-without-addresses"])
def test_primary_opens_nothing_before_the_first_node_object(mode, events, listening):
    """Before the first node tells an address primary opens nothing."""
    stage = staged(mode, PRIMARY)
    stage.at(0, *events, *services())
    seen: list[object] = []
    stage.at(5, lambda: seen.append((set(listening), stage.desired.compiled().model.sysctls.get(ROUTE_LOCALNET))))
    stage.at(5, lambda: seen.append(_serves_node_ports(stage)))
    stage.at(6, changed(THERE))
    stage.at(8, lambda: seen.extend(differences(stage, listening)))
    stage.run(9)
    assert seen == [(set(), None), False]
    assert len([line for line in stage.log if "node ports accept no connections" in line]) == 1


def _serves_node_ports(stage: Stage) -> bool:
    if isinstance(stage.writer, WholeWriter):
        return any(
            getattr(key, "frontend", None) and key.frontend.port in {30080, 30081} for key in stage.writer.node.servers
        )
    return any(
        rule.endswith("-j KUBE-NODEPORTS")
        for kernel in stage.writer.kernels.values()
        for rule in kernel.tables["nat"].get("KUBE-SERVICES", ())
    )


@settings(deadline=None, max_examples=examples(30))
@given(
    mode=st.sampled_from(MODES),
    options=st.sampled_from(sorted(set(OPTIONS) - {"all", "loopback"})),
    losses=st.lists(
        st.sampled_from(sorted(LOSSES)).map(LOSSES.__getitem__)
        | st.lists(st.sampled_from(POOL), unique=True).map(tuple),
        min_size=1,
        max_size=4,
    ),
)
def test_whatever_is_taken_away_opens_nothing(mode, options, losses):
    """Of the Node or of the host: node ports and health ports answer where they did, or in fewer places."""
    with pytest.MonkeyPatch.context() as patch:
        listening = listening_ports(patch)
        stage = staged(mode, OPTIONS[options])
        stage.at(0, changed(THERE), *services())
        before: list[tuple[frozenset[object], object]] = []
        stage.at(2, lambda: before.append(_openness(stage, listening)))
        for number, loss in enumerate(losses):
            if all(isinstance(part, str) for part in loss):
                left = [address for address in ("192.168.50.10", "10.77.0.10", "fd00:50::10") if address not in loss]
                stage.at(3 + number, lambda left=left: becomes(stage, host(*left)))
            else:
                stage.at(3 + number, *loss)
        after: list[tuple[frozenset[object], object]] = []
        stage.at(10, lambda: after.append(_openness(stage, listening)))
        stage.run(11)
    assert after[0][0] <= before[0][0]
    assert after[0][1] == before[0][1]


def _openness(stage: Stage, listening: set[tuple[str, int]]) -> tuple[frozenset[object], object]:
    """Return where the node answers more than its ClusterIPs, and what keeps strangers from passing for its pods."""
    model = stage.desired.compiled().model
    open_: set[object] = set(listening)
    for family, here in model.nodes.items():
        open_ |= (
            {(family, None)} if here.node_port_addresses is None else {(family, a) for a in here.node_port_addresses}
        )
        open_ |= {"loopback"} if here.localhost_node_ports else set()
    open_ |= set(model.sysctls.items())
    return frozenset(open_), {family: (here.pods, here.masquerade_cluster_ip) for family, here in model.nodes.items()}
