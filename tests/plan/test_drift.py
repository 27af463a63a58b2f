"""A plan tells what somebody did to the node from what a change of objects asks for, and whose it is."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from rulegen.compiler.services.compile import compile_model
from rulegen.compiler.services.plan import plan_cleanup, plan_node
from rulegen.diff.items import Action, Drift
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.ruleset import read
from rulegen.languages.iptables.script import Comments, script
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family
from tests.kernels.kernel import Kernel
from tests.kernels.observed import observing

BLOG = ObjectName("demo", "blog")


def world(*endpoints: str, name: ObjectName = BLOG, node_port: int = 30080) -> ClusterSnapshot:
    spec = k.ServiceSpec(
        type="NodePort", cluster_ip="10.96.0.10", ports=(k.ServicePort(name="http", port=80, node_port=node_port),)
    )
    service = k.Service(metadata=k.ObjectMeta(name=name.name, namespace=name.namespace), spec=spec)
    slice_ = k.EndpointSlice(
        metadata=k.ObjectMeta(name="s", namespace=name.namespace, labels={"kubernetes.io/service-name": name.name}),
        address_type="IPv4",
        endpoints=tuple(k.SliceEndpoint(addresses=(address,)) for address in endpoints),
        ports=(k.SlicePort(name="http", port=8080),),
    )
    return ClusterSnapshot(services={name: ServiceInput(service=service, slices=(slice_,))})


def wants(snapshot: ClusterSnapshot):
    model = resolve(snapshot, Options(node_name="node1"), HostFacts(), (Family.IPV4,))
    return compile_model(model, "iptables", counts=True)


def plan(snapshot: ClusterSnapshot, kernel: Kernel):
    observed = observing(rulesets={Family.IPV4: read(kernel.save(), "kernel", Family.IPV4)})
    return plan_node(wants(snapshot), observed, HostFacts())


TWO = world("10.244.1.1", "10.244.1.2")


@pytest.fixture
def kernel() -> Kernel:
    made = Kernel()
    part = plan(TWO, made).of("iptables")[Family.IPV4]
    for restore in script(part.changes, part.desired):
        made.restore(restore.text)
    return made


def chain(kernel: Kernel, prefix: str) -> str:
    return next(name for name in kernel.tables["nat"] if name.startswith(prefix))


def signs(items) -> set[tuple[str, str, str | None]]:
    """Return sign, owner and drift of each item."""
    return {(item.action.value, item.owner, item.drift and item.drift.value) for item in items}


def test_changes_of_objects_are_no_drift(kernel):
    more = plan(world("10.244.1.1", "10.244.1.2", "10.244.1.3"), kernel)
    assert signs(more.items) == {("+", "demo/blog", None), ("~", "demo/blog", None)}
    less = plan(world("10.244.1.2"), kernel)
    assert signs(less.items) == {("-", "demo/blog", None), ("~", "demo/blog", None)}
    none = plan(world(), kernel)
    assert {item.drift for item in none.items} == {None}
    assert {item.owner for item in none.items} == {"demo/blog"}


def test_a_service_that_is_gone_is_a_leftover_under_its_name(kernel):
    items = plan(ClusterSnapshot(), kernel).items
    assert {(item.action, item.owner, item.is_leftover) for item in items} == {(Action.DELETE, "demo/blog", True)}


def test_a_renamed_service_adds_one_and_leaves_one(kernel):
    items = plan(world("10.244.1.1", name=ObjectName("demo", "diary")), kernel).items
    assert {(item.action.value, item.owner, item.is_leftover) for item in items} == {
        ("+", "demo/diary", False),
        ("-", "demo/blog", True),
    }


DAMAGE = [
    ("a jump", lambda t: t["filter"]["INPUT"].pop(0), ("+", "", "missing")),
    ("a rule of a fixed chain", lambda t: t["filter"]["KUBE-FORWARD"].pop(1), ("~", "", "missing")),
    ("a dispatch rule", lambda t: t["nat"]["KUBE-SERVICES"].pop(0), ("+", "demo/blog", "missing")),
    ("half of a pair", lambda t: t["nat"]["KUBE-NODEPORTS"].pop(0), ("+", "demo/blog", "missing")),
    ("a canary", lambda t: t["mangle"].pop("KUBE-PROXY-CANARY"), ("+", "", "missing")),
    (
        "a rule added to a dispatch chain",
        lambda t: t["nat"]["KUBE-SERVICES"].insert(0, "-j ACCEPT"),
        ("-", "", "foreign"),
    ),
    (
        "one more mark",
        lambda t: t["nat"]["KUBE-MARK-MASQ"].append("-j MARK --set-xmark 0x1/0x1"),
        ("~", "", "foreign"),
    ),
    ("one more jump", lambda t: t["nat"]["OUTPUT"].append("-j KUBE-SERVICES"), ("~", "", "foreign")),
    ("a chain's rules reversed", lambda t: t["filter"]["KUBE-FORWARD"].reverse(), ("~", "", "foreign")),
    (
        "the node ports not last",
        lambda t: t["nat"]["KUBE-SERVICES"].insert(0, t["nat"]["KUBE-SERVICES"].pop()),
        ("~", "", "foreign"),
    ),
]


@pytest.mark.parametrize(("damage", "expected"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_foreign_changes_are_shown_as_drift(kernel, damage, expected):
    damage(kernel.tables)
    items = plan(TWO, kernel).items
    assert expected in signs(items)
    assert all(item.drift for item in items if item.action is not Action.DELETE)


@pytest.mark.parametrize(
    ("prefix", "rule", "drift"),
    [("KUBE-SVC-", None, Drift.MISSING), ("KUBE-SEP-", None, Drift.MISSING), ("KUBE-SVC-", "-j ACCEPT", Drift.FOREIGN)],
)
def test_damage_in_a_services_own_chain(kernel, prefix, rule, drift):
    rules = kernel.tables["nat"][chain(kernel, prefix)]
    rules.insert(0, rule) if rule else rules.pop(0)
    (item,) = plan(TWO, kernel).items
    assert (item.action, item.owner, item.drift) == (Action.CHANGE, "demo/blog", drift)
    assert [line.sign for line in item.lines if line.sign != " "] == ["-" if rule else "+"]


def test_kubelet_rules_in_a_shared_chain_are_no_drift(kernel):
    kernel.tables["filter"]["KUBE-FIREWALL"].append("-m mark --mark 0x8000/0x8000 -j DROP")
    assert plan(TWO, kernel).is_empty


def test_a_chain_that_others_refer_to_is_emptied_and_kept(kernel):
    name = chain(kernel, "KUBE-SVC-")
    kernel.tables["nat"]["MINE"] = [f"-d 192.0.2.1/32 -j {name}"]
    part = plan(ClusterSnapshot(), kernel).of("iptables")[Family.IPV4]
    for restore in script(part.changes, part.desired):
        kernel.restore(restore.text)
    assert kernel.tables["nat"][name] == []
    assert plan(ClusterSnapshot(), kernel).is_empty


@pytest.mark.parametrize("has_kubelet", [True, False])
def test_cleanup_keeps_the_shared_chain_if_a_kubelet_runs(kernel, has_kubelet):
    if has_kubelet:
        kernel.tables["mangle"]["KUBE-KUBELET-CANARY"] = []
    observed = observing(rulesets={Family.IPV4: read(kernel.save(), "kernel", Family.IPV4)})
    cleanup = plan_cleanup("iptables", observed)
    assert {item.drift for item in cleanup.items} == {None}
    part = cleanup.of("iptables")[Family.IPV4]
    for restore in script(part.changes, part.desired):
        kernel.restore(restore.text)
    assert ("KUBE-FIREWALL" in kernel.tables["filter"]) is has_kubelet
    assert kernel.tables["filter"]["INPUT"] == (
        ['-m comment --comment "kubernetes firewall" -j KUBE-FIREWALL'] if has_kubelet else []
    )


def test_an_age_alone_changes_nothing(kernel):
    older = msgspec.structs.replace(TWO.services[BLOG].service.metadata, creation_timestamp="2020-01-01T00:00:00Z")
    service = msgspec.structs.replace(TWO.services[BLOG].service, metadata=older)
    assert plan(ClusterSnapshot(services={BLOG: replace(TWO.services[BLOG], service=service)}), kernel).is_empty


def test_the_dispatch_shows_the_owner_of_leftovers():
    bare = Kernel()
    part = plan(TWO, bare).of("iptables")[Family.IPV4]
    for restore in script(part.changes, part.desired, comments=Comments.DISPATCH):
        bare.restore(restore.text)
    assert plan(TWO, bare).is_empty
    assert {item.owner for item in plan(ClusterSnapshot(), bare).items if item.is_leftover} == {"demo/blog"}
