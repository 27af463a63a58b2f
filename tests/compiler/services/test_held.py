"""A Service that is left out keeps what the node had of it, whole; all others become what they should be."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.compiler.services.attribution import Belongings, ServiceParts
from rulegen.compiler.services.compile import Compiled, compile_model, with_held
from rulegen.compiler.services.pinned import held
from rulegen.compiler.services.plan import plan_node
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.resolve import resolve
from rulegen.net import Family
from rulegen.plan.fragments import OwnedObjects
from tests.kernels.nodekernel import NodeKernel
from tests.sizes import examples
from tests.strategies.services import worlds
from tests.test_laws import OPTIONS

MODES = st.sampled_from(("iptables", "ipvs"))
quick = settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def compiled(world: ClusterSnapshot, mode: str) -> Compiled:
    return compile_model(resolve(world, msgspec.structs.replace(OPTIONS, mode=mode), HostFacts()), mode, counts=False)


def without(world: ClusterSnapshot, owners: set[str]) -> ClusterSnapshot:
    return msgspec.structs.replace(
        world, services={name: entry for name, entry in world.services.items() if str(name) not in owners}
    )


def state_of(kernel: NodeKernel) -> dict[object, object]:
    """Return rules by chain, in no order, and all objects."""
    rules: dict[object, object] = {
        (family, table, chain): sorted(rules)
        for family, state in kernel.kernels.items()
        for table, chains in state.tables.items()
        for chain, rules in chains.items()
    }
    return rules | {"servers": dict(kernel.servers), "addresses": dict(kernel.addresses)}


def jumps_in(state: dict[object, object], family: Family, table: str, chain: str) -> list[str]:
    """Return the rules that lead to a chain."""
    return sorted(
        rule
        for key, rules in state.items()
        if isinstance(key, tuple) and key[:2] == (family, table)
        for rule in rules
        if rule.endswith(f"-j {chain}")
    )


def jumps_to(kernel: NodeKernel, family: Family, table: str, chain: str) -> list[str]:
    return jumps_in(state_of(kernel), family, table, chain)


def chains_in(fragment: OwnedObjects) -> set[ChainName]:
    rules = fragment.objects.get("iptables")
    return set(rules.exact) if rules is not None else set()


@quick
@given(worlds(), worlds(), MODES, st.data())
def test_a_service_is_served_as_before_while_rejected(before, after, mode, data):
    kernel = NodeKernel()
    kernel.write(plan_node(compiled(before, mode), kernel.observed(), HostFacts()))
    names = sorted({str(name) for name in (*before.services, *after.services)})
    left = set(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else set()
    wants, observed = compiled(after, mode), kernel.observed()
    left &= {str(name) for name in after.services}
    others = compiled(without(after, left), mode)
    there = held(wants, observed, left, others)
    was = compiled(before, mode)
    old = Belongings((f for part in was.fragments.values() for f in part), was.tables.languages)
    had = state_of(kernel)
    kept = with_held(others, there)
    kernel.write(plan_node(kept, kernel.observed(), HostFacts()))
    assert plan_node(kept, kernel.observed(), HostFacts()).is_empty
    for fragment in there:
        assert fragment.owner in left
        for name, rules in fragment.objects["iptables"].exact.items() if "iptables" in fragment.objects else ():
            key = (fragment.family, name.table, name.chain)
            assert state_of(kernel)[key] == had[key]
            assert jumps_to(kernel, *key) == jumps_in(had, *key)
            assert old.of_line(fragment.family, name.table, f":{name.chain} -") in {fragment.owner, ""}
            assert rules
    again = held(wants, kernel.observed(), left, others)
    assert [(f.owner, f.family, chains_in(f)) for f in again] == [(f.owner, f.family, chains_in(f)) for f in there]


@quick
@given(worlds(), MODES, st.data())
def test_a_left_out_service_leaves_nothing_on_a_fresh_node(after, mode, data):
    names = sorted(map(str, after.services))
    left = set(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else set()
    kernel, other = NodeKernel(), NodeKernel()
    wants = compiled(after, mode)
    assert held(wants, kernel.observed(), left) == []
    kernel.write(plan_node(compiled(without(after, left), mode), kernel.observed(), HostFacts()))
    parts = ServiceParts(plan_node(compiled(without(after, left), mode), other.observed(), HostFacts()))
    other.write(parts.of((), with_node=True))
    for owner in parts.owners:
        other.write(parts.of({owner}, with_node=False))
    rest = plan_node(compiled(without(after, left), mode), other.observed(), HostFacts())
    other.write(rest)
    assert state_of(other) == state_of(kernel)


@quick
@given(worlds(), worlds(), st.data())
@pytest.mark.slow
def test_a_plan_written_in_parts_has_the_same_result(before, after, data):
    kernel = NodeKernel()
    kernel.write(plan_node(compiled(before, "iptables"), kernel.observed(), HostFacts()))
    wants = compiled(after, "iptables")
    parts = ServiceParts(plan_node(wants, kernel.observed(), HostFacts()))
    owners = data.draw(st.permutations(parts.owners))
    cut = data.draw(st.integers(0, len(owners)))
    kernel.write(parts.of(owners[:cut], with_node=True))
    kernel.write(parts.of(owners[cut:], with_node=False))
    assert plan_node(wants, kernel.observed(), HostFacts()).is_empty


def service(name: str, *external: str, created: str, cluster_ip: str, endpoint: str) -> ClusterSnapshot:
    metadata = k.ObjectMeta(name=name, namespace="shop", creation_timestamp=created)
    spec = k.ServiceSpec(
        cluster_ip=cluster_ip, ports=(k.ServicePort(name="http", port=80),), external_ips=external, type="ClusterIP"
    )
    slices = k.EndpointSlice(
        metadata=k.ObjectMeta(name=f"{name}-1", namespace="shop", labels={"kubernetes.io/service-name": name}),
        address_type="IPv4",
        endpoints=(k.SliceEndpoint(addresses=(endpoint,), conditions=k.EndpointConditions(ready=True)),),
        ports=(k.SlicePort(name="http", port=8080),),
    )
    entry = ServiceInput(service=k.Service(metadata=metadata, spec=spec), slices=(slices,), endpoints_from="x")
    return ClusterSnapshot(services={ObjectName("shop", name): entry})


def written(*worlds: ClusterSnapshot, mode: str) -> NodeKernel:
    kernel = NodeKernel()
    for world in worlds:
        kernel.write(plan_node(compiled(world, mode), kernel.observed(), HostFacts()))
    return kernel


def test_the_node_part_of_a_plan_has_what_no_service_owns():
    facts = {"created": "2026-01-01T00:00:00Z", "cluster_ip": "10.96.0.1", "endpoint": "10.244.1.1"}
    kernel = NodeKernel()
    host = HostFacts(sysctls={"net.ipv4.ip_forward": "0"})
    whole = plan_node(compiled(service("web", **facts), "ipvs"), kernel.observed(), host)
    parts = ServiceParts(whole)
    node, owned = parts.of((), with_node=True), parts.of(parts.owners, with_node=False)
    of_host = {key: part.all_changes for key, part in whole.parts.items() if key.family is None}
    assert any(of_host.values())
    assert {key: part.all_changes for key, part in node.parts.items() if key.family is None} == of_host
    assert (node.sysctls, owned.sysctls) == (whole.sysctls, ())
    assert whole.sysctls
    assert {key.family for key in owned.parts} == set(Family)


def test_a_removed_frontend_stays_while_the_change_is_rejected():
    facts = {"created": "2026-01-01T00:00:00Z", "cluster_ip": "10.96.0.1", "endpoint": "10.244.1.1"}
    kernel = written(service("web", "198.51.100.7", **facts), mode="iptables")
    before, nothing = kernel.observed(), compiled(ClusterSnapshot(), "iptables")
    there = held(compiled(service("web", **facts), "iptables"), before, {"shop/web"}, nothing)
    kernel.write(plan_node(with_held(nothing, there), before, HostFacts()))
    tables = kernel.kernels[Family.IPV4].tables.values()
    served = [rule for chains in tables for rules in chains.values() for rule in rules]
    assert any("-d 198.51.100.7/32" in rule and "-j KUBE-EXT-" in rule for rule in served)


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_a_rejected_service_does_not_keep_an_older_ones_frontend(mode):
    old = service("old", "198.51.100.7", created="2026-01-01T00:00:00Z", cluster_ip="10.96.0.1", endpoint="10.244.1.1")
    new = service("new", "198.51.100.7", created="2026-01-02T00:00:00Z", cluster_ip="10.96.0.2", endpoint="10.244.1.2")
    both = msgspec.structs.replace(old, services={**old.services, **new.services})
    for world, left, other in ((both, "shop/old", new), (both, "shop/new", old)):
        kernel = written(other, mode=mode)
        assert held(compiled(world, mode), kernel.observed(), {left}, compiled(other, mode)) == []
