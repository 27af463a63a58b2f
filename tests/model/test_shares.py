"""Weights and schedulers by annotation: the shares of endpoints, and warnings about invalid values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.rules import at_odds
from rulegen.languages.ipvs.state import RealServer, VirtualServer
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.annotations.annotation import PREFIX
from rulegen.model.services.annotations.scheduler import SCHEDULER as SCHEDULER_ANNOTATION
from rulegen.model.services.annotations.table import ANNOTATIONS
from rulegen.model.services.annotations.weights import WEIGHTS as WEIGHTS_ANNOTATION
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family

NAME = ObjectName("demo", "web")
SCHEDULER, WEIGHTS = SCHEDULER_ANNOTATION.name, WEIGHTS_ANNOTATION.name
ENDPOINTS = (("pod-a", "node1", "zone-a"), ("pod-b", "node2", "zone-b"), ("pod-c", "node3", "zone-b"))


def world(**annotations: str) -> ClusterSnapshot:
    service = k.Service(
        metadata=k.ObjectMeta(name="web", namespace="demo", annotations=annotations),
        spec=k.ServiceSpec(
            type="ClusterIP",
            cluster_ip="10.96.0.9",
            ports=(k.ServicePort(name="http", port=80),),
        ),
    )
    endpoints = tuple(
        k.SliceEndpoint(
            addresses=(f"10.244.1.{10 + number}",),
            node_name=node,
            zone=zone,
            target_ref=k.TargetReference(kind="Pod", name=pod),
        )
        for number, (pod, node, zone) in enumerate(ENDPOINTS)
    )
    endpoint_slice = k.EndpointSlice(
        metadata=k.ObjectMeta(name="web-1", namespace="demo", labels={"kubernetes.io/service-name": "web"}),
        address_type="IPv4",
        endpoints=endpoints,
        ports=(k.SlicePort(name="http", port=8080),),
    )
    return ClusterSnapshot(
        services={NAME: ServiceInput(service=service, slices=(endpoint_slice,))},
        nodes={"node1": k.Node(metadata=k.ObjectMeta(name="node1"))},
    )


def compiled(mode: str, facts: HostFacts | None = None, **annotations: str) -> Compiled:
    model = resolve(world(**annotations), Options(mode=mode, node_name="node1"), facts or HostFacts(), [Family.IPV4])
    return compile_model(model, mode, counts=False)


def weights(**annotations: str) -> list[int]:
    servers = compiled("ipvs", **annotations).objects("ipvs")
    return [value.weight for _, value in sorted(servers.items(), key=str) if isinstance(value, RealServer)]


def odds(**annotations: str) -> list[str]:
    """Return the matches of the rules that distribute connections, without their targets."""
    (fragment,) = [f for f in compiled("iptables", **annotations).rules(Family.IPV4) if f.owner]
    (rules,) = [rules for name, rules in fragment.exact.items() if name.chain.startswith("KUBE-SVC-")]
    return [rule.spec.partition(" -j ")[0] for rule in rules]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, [1, 1, 1]),
        ({"pod-a": 3}, [3, 1, 1]),
        ({"node:topology.kubernetes.io/zone=zone-b": 2}, [1, 2, 2]),
        ({"node:kubernetes.io/hostname=node3": 5, "node:topology.kubernetes.io/zone=zone-b": 2}, [1, 2, 5]),
        ({"node:topology.kubernetes.io/zone=zone-b": 2, "pod-b": 7}, [1, 7, 2]),
    ],
)
def test_endpoints_get_their_weights_and_the_others_one(entries, expected):
    assert weights(**{WEIGHTS: json.dumps(entries)}) == expected


def test_rules_give_each_endpoint_its_share_of_what_is_left():
    assert odds(**{WEIGHTS: '{"pod-a": 3, "pod-b": 2}'}) == [*[at_odds(6, 3), at_odds(3, 2), "-j"][:2], odds()[-1]]
    assert at_odds(6, 3) == at_odds(2)


def test_equal_weights_change_nothing():
    assert odds(**{WEIGHTS: '{"pod-a": 4, "pod-b": 4, "pod-c": 4}'}) == odds()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"pod-a": 0}', '["pod-a"]: the number 0 is not a weight (1–65535)'),
        ('{"pod-a": 70000}', "is not a weight"),
        ('{"pod-a": true}', "is not a weight"),
        ('{"pod-a": "3"}', "is not a weight"),
        ('{"Pod A": 3}', "expected the name of a Pod"),
        ('{"node:disk=ssd": 3}', "expected node:topology.kubernetes.io/zone=VALUE"),
        ('{"node:kubernetes.io/hostname=": 3}', "expected the value of a label"),
        ('{"x\\u001b[31m": 3}', "x\\\\x1b[31m"),
    ],
)
def test_an_annotation_with_a_fault_has_no_effect_but_warnings(text, problem):
    model = resolve(world(**{WEIGHTS: text}), Options(node_name="node1"), HostFacts(), [Family.IPV4])
    (warning,) = [w for w in model.warnings if WEIGHTS in w]
    assert warning.startswith(f'Service demo/web: metadata.annotations["{WEIGHTS}"]')
    assert problem in warning or problem.replace("\\\\", "\\") in warning
    assert warning.isprintable()
    assert weights(**{WEIGHTS: text}) == [1, 1, 1]


@given(st.text(max_size=60))
def test_any_annotation_gives_valid_weights(text):
    assert all(1 <= weight <= 65535 for weight in weights(**{WEIGHTS: text}))


def schedulers(facts: HostFacts | None = None, **annotations: str) -> list[tuple[str, int]]:
    servers = compiled("ipvs", facts, **annotations).objects("ipvs").values()
    return [(value.scheduler, value.flags) for value in servers if isinstance(value, VirtualServer)]


def test_a_service_may_choose_its_scheduler():
    assert schedulers() == [("rr", 0)]
    assert schedulers(**{SCHEDULER: "lc"}) == [("lc", 0)]
    assert schedulers(**{SCHEDULER: "mh"}) == [("mh", 0x10)]


@pytest.mark.parametrize(
    ("facts", "name"), [(HostFacts(), "bogus"), (HostFacts(), ""), (HostFacts(schedulers=frozenset({"rr"})), "lc")]
)
def test_the_default_replaces_an_unknown_scheduler(facts, name):
    assert schedulers(facts, **{SCHEDULER: name}) == [("rr", 0)]
    model = resolve(world(**{SCHEDULER: name}), Options(mode="ipvs", node_name="node1"), facts, [Family.IPV4])
    assert any(SCHEDULER in warning and name in warning for warning in model.warnings)


@pytest.mark.parametrize(
    ("mode", "annotations", "is_warned_of"),
    [
        ("ipvs", {WEIGHTS: '{"pod-a": 3}'}, True),
        ("ipvs", {WEIGHTS: '{"pod-a": 3}', SCHEDULER: "lc"}, True),
        ("ipvs", {WEIGHTS: '{"pod-a": 3}', SCHEDULER: "wrr"}, False),
        ("ipvs", {}, False),
        ("iptables", {WEIGHTS: '{"pod-a": 3}'}, False),
    ],
)
def test_weights_that_the_scheduler_ignores_give_a_warning(mode, annotations, is_warned_of):
    warnings = compiled(mode, **annotations).model.warnings
    assert any("ignores weights" in warning for warning in warnings) is is_warned_of


UNKNOWN = [
    ("rulegen.io/wieghts", WEIGHTS),
    ("rulegen.io/weight", WEIGHTS),
    ("rulegen.io/Weights", WEIGHTS),
    ("Rulegen.io/weights", WEIGHTS),
    ("rulegen.io/ipvs_scheduler", SCHEDULER),
    ("rulegen.io/ipvs-sheduler", SCHEDULER),
    ("rulegen.io/x", ""),
    ("rulegen.io/", ""),
    ("rulegen.io/\x1b[2J", ""),
]


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(("key", "near"), UNKNOWN)
def test_an_unknown_annotation_is_named_with_the_nearest_one(mode, key, near):
    without, beside = compiled(mode), compiled(mode, **{key: '{"pod-a": 3}'})
    assert beside.rules(Family.IPV4) == without.rules(Family.IPV4)
    (warning,) = [text for text in beside.model.warnings if "unknown annotation" in text]
    assert warning.startswith("Service demo/web: metadata.annotations[")
    assert warning.isprintable()
    assert (f'did you mean "{near}"?' if near else f"expected one of {SCHEDULER}, {WEIGHTS}") in warning


@pytest.mark.parametrize("key", [WEIGHTS, "example.com/rulegen.io", "rulegen.io.example.com/weights", "weights"])
def test_known_and_foreign_annotations_give_no_warning(key):
    assert not [text for text in compiled("iptables", **{key: "{}"}).model.warnings if "unknown annotation" in text]


@given(st.text(min_size=1, max_size=60))
def test_no_foreign_annotation_gives_a_warning(key):
    """Annotations of other tools on a Service never cause warnings."""
    warnings = compiled("iptables", **{key: "x"}).model.warnings
    assert key.lower().startswith(PREFIX) or not [text for text in warnings if "annotation" in text]


@pytest.mark.parametrize("name", sorted(ANNOTATIONS))
def test_an_annotation_is_ours_and_documented(name):
    annotation = ANNOTATIONS[name]
    assert name.startswith(PREFIX)
    assert annotation.documentation
    assert annotation.otherwise
    assert annotation.name in annotation.path


def test_many_unknown_annotations_are_counted():
    warnings = compiled("iptables", **{f"rulegen.io/x{number}": "" for number in range(500)}).model.warnings
    assert len([text for text in warnings if "annotations" in text]) < 20
    assert any("490 more" in text for text in warnings)


def test_a_headless_service_has_its_annotations_checked_too():
    metadata = k.ObjectMeta(name="web", namespace="demo", annotations={"rulegen.io/wieghts": "{}"})
    headless = k.Service(metadata=metadata, spec=k.ServiceSpec(cluster_ip="None", ports=(k.ServicePort(port=80),)))
    only = ClusterSnapshot(services={NAME: ServiceInput(service=headless)})
    warnings = resolve(only, Options(node_name="node1"), HostFacts()).warnings
    assert any("rulegen.io/wieghts" in text for text in warnings)
