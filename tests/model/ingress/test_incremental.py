"""Decisions that are kept: after any changes they are those of a fresh look at the whole cluster.

And a change of which it is said that nothing depends on it leads to no other decision.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.backends.haproxy.hosts import joined
from rulegen.compiler.ingress.haproxy import HaproxySite, compile_haproxy
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.errors import ConfigError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, scoped
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectKey, ObjectName
from rulegen.kube.objects.packed import pack
from rulegen.kube.selector import parse_selector
from rulegen.kube.snapshot.build import build_world
from rulegen.kube.snapshot.cluster import Cluster, Touched
from rulegen.languages.haproxy.runtime import structure_of
from rulegen.model.ingress.ir import IngressModel
from rulegen.model.ingress.options import IngressOptions
from rulegen.model.ingress.resolve import IngressDecisions, decide_ingress, resolve_ingress
from rulegen.model.ingress.unread import UNANSWERED
from rulegen.model.ingress.values.classes import Selection
from tests.sizes import examples
from tests.strategies.ingresses import (
    HTPASSWD,
    SETTINGS,
    TEMPLATES,
    backend,
    certificate,
    endpoints,
    ingress,
    key_pem,
    options,
    path,
    rule,
    secret,
    service,
    settings_map,
    site,
    tls,
    tls_secret,
)

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
LATER = dt.datetime(2027, 6, 1, tzinfo=dt.UTC)
HOSTS = ("a.test", "b.test", "www.a.test", "*.a.test", "")
ADDRESSES = ("10.244.1.5", "10.244.2.6", "10.96.9.9", "203.0.113.9", "192.0.2.1", "169.254.1.1", "127.0.0.1")
"""Of endpoints; some are addresses of Services, of the node or of API servers at times."""
ANNOTATIONS: tuple[Mapping[str, str], ...] = (
    {},
    {"server-alias": "c.test,b.test"},
    {"from-to-www-redirect": "true"},
    {"canary": "true", "canary-weight": "10"},
    {"auth-type": "basic", "auth-secret": "users"},
    {"auth-url": "http://api.default.svc.cluster.local/check"},
    {"auth-url": "http://auth.test/check"},
    {"default-backend": "api", "custom-http-errors": "502"},
    {"affinity": "cookie"},
    {"use-regex": "true"},
    {"auth-tls-secret": "default/users"},
    {"custom-headers": "headers"},
    {"proxy-ssl-secret": "default/cert"},
    {"app-root": "/app", "ssl-ciphers": "HIGH"},
    {"nonsense": "x", "proxy-read-timeout": "soon"},
)

STATUS = k.IngressStatus(load_balancer=k.LoadBalancerStatus(ingress=(k.LoadBalancerIngress(ip="192.0.2.7"),)))


def node(name: str, address: str) -> k.Node:
    status = k.NodeStatus(addresses=(k.NodeAddress(type="InternalIP", address=address),))
    return k.Node(metadata=k.ObjectMeta(name=name), status=status)


services = st.builds(
    service,
    st.sampled_from(["web", "api", "outside", "kubernetes"]),
    namespace=st.sampled_from(["default", "other"]),
    cluster_ip=st.sampled_from(["10.96.9.9", "10.244.1.5", "10.96.1.1", "None"]),
    external_ips=st.sampled_from([(), ("203.0.113.9",), ("10.244.2.6",)]),
    ports=st.sampled_from(
        [(k.ServicePort(name="http", port=80),), (k.ServicePort(port=8080),), (k.ServicePort(name="http", port=8080),)]
    ),
) | st.builds(
    service,
    st.sampled_from(["web", "outside"]),
    type=st.just("ExternalName"),
    cluster_ip=st.just(""),
    external_name=st.sampled_from(["api.default.svc.cluster.local", "web.other.svc", "far.test", "192.0.2.1"]),
)
slices = st.builds(
    endpoints,
    st.sampled_from(["web", "api", "kubernetes"]),
    st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3, unique=True),
    namespace=st.sampled_from(["default", "other"]),
    ready=st.booleans(),
)
paths = st.builds(
    path,
    st.sampled_from(["/", "/x", "/x/"]),
    st.sampled_from(["Prefix", "Exact"]),
    st.sampled_from(["web", "api", "outside"]),
    st.sampled_from([80, "http"]),
)
rules = st.builds(rule, st.sampled_from(HOSTS), paths)
ingresses = st.builds(
    lambda name, hosts, **fields: ingress(name, *hosts, **fields),
    st.sampled_from(["a", "b", "c", "d"]),
    st.lists(rules, max_size=2),
    annotations=st.sampled_from(ANNOTATIONS),
    namespace=st.sampled_from(["default", "other"]),
    created=st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    tls=st.sampled_from([(), (tls("cert", "a.test"),), (tls("cert"),)]),
    default=st.sampled_from([None, backend("web")]),
    class_name=st.sampled_from(["rulegen", "rulegen", "rulegen", "mine", None]),
)
secrets = st.sampled_from(
    [
        tls_secret("cert", "a.test"),
        tls_secret("cert", "*.a.test", "b.test"),
        secret("cert", tls_crt=certificate("a.test", days=200), tls_key=key_pem()),
        secret("cert", tls_crt=b"none"),
        secret("users", auth=HTPASSWD),
        secret("users", ca_crt=certificate("ca.test", is_ca=True)),
        tls_secret("cert", "a.test", namespace="other"),
    ]
)
others = st.sampled_from(
    [
        k.ConfigMap(metadata=k.ObjectMeta(name="headers", namespace="default"), data={"X-Own": "yes"}),
        settings_map(),
        settings_map(proxy_read_timeout="7"),
        settings_map(global_auth_url="http://api.default.svc.cluster.local/"),
        settings_map(ssl_reject_handshake="true"),
        k.IngressClass(metadata=k.ObjectMeta(name="mine"), spec=k.IngressClassSpec(controller="rulegen.io/ingress")),
        k.IngressClass(metadata=k.ObjectMeta(name="mine"), spec=k.IngressClassSpec(controller="others.io/ingress")),
        k.Namespace(metadata=k.ObjectMeta(name="default", labels={"is": "ours"})),
        k.Namespace(metadata=k.ObjectMeta(name="default")),
        node("node1", "192.0.2.1"),
        node("node1", "10.244.1.5"),
        node("node2", "10.244.2.6"),
    ]
)
objects = st.one_of(services, slices, slices, ingresses, ingresses, secrets, others)
changes = st.tuples(objects, st.sampled_from(["put", "put", "put", "delete", "status"]))
steps = st.lists(
    st.one_of(changes, st.sampled_from(["later", "quarantine", "unread", "families", "default"])),
    min_size=1,
    max_size=25,
)
starts = st.builds(
    options,
    node=st.just("node1"),
    now=st.sampled_from([NOW, None]),
    config_map=st.sampled_from([None, None, SETTINGS]),
    default_backend=st.sampled_from([None, ObjectName("default", "api")]),
    default_certificate=st.sampled_from([None, None, ObjectName("default", "cert")]),
    most_hosts=st.sampled_from([5000, 2]),
    selection=st.sampled_from([Selection(), Selection(namespace_selector=parse_selector("is=ours"))]),
)
FIRST = (service("web"), endpoints("web"), service("api"), ingress("a", rule("a.test", path())), settings_map())


class Stage:
    """A cluster that changes, and what is decided of it from one time to the next."""

    def __init__(self, wanted: IngressOptions, *, packs: bool = False) -> None:
        self.cluster, self.options = Cluster(), wanted
        self.packs = packs
        self.cluster.for_ingresses()  # changes are followed from now on
        self.unread: dict[ObjectKey, str] = {}
        self.before: IngressDecisions | None = None
        for known in FIRST:
            self.change(known, "put")

    def change(self, known: KubeObject, how: str) -> Touched:
        kind, name = type(known), scoped(type(known), known.metadata.namespace, known.metadata.name)
        if how == "status" and isinstance(known, k.Ingress):
            known = k.Ingress(known.metadata, known.spec, STATUS)
        state = Decoded(known, "test")
        return self.cluster.apply_event(
            Gone(kind, name) if how == "delete" else Changed(kind, pack(state) if self.packs else state, name)
        )

    def step(self, step: Any) -> Touched:
        """Do one thing; return what of the cluster it touches, and all for what is no change of it."""
        match step:
            case (known, how):
                return self.change(known, how)
            case "later":
                self.options = replace(self.options, now=self.options.now and LATER)
            case "quarantine":
                left_out = {} if self.options.without else {ObjectName("default", "a"): "nginx refuses it"}
                self.options = replace(self.options, without=MappingProxyType(left_out))
            case "unread":
                self.unread = {} if self.unread else {ObjectKey("Secret", ObjectName("other", "cert")): UNANSWERED}
            case "families":
                self.options = replace(self.options, families=self.options.families[::-1][:1])
            case "default":
                self.options = replace(self.options, default_backend=ObjectName("default", "web"))
        return Touched(site=True)

    def fresh(self) -> IngressModel | str:
        """Return what a look at the whole cluster comes to, or why it comes to nothing."""
        world = replace(build_world(self.cluster.snapshot()), unread=self._unread())
        try:
            return resolve_ingress(world, self.options)
        except ConfigError as error:
            return error.message

    def decide(self) -> IngressModel | str:
        """Return what is decided with what was decided before."""
        world = replace(self.cluster.for_ingresses(), unread=self._unread())
        try:
            self.before = decide_ingress(world, self.options, self.before)
        except ConfigError as error:
            return error.message
        return self.before.model

    def _unread(self) -> dict[ObjectKey, str]:
        there = self.cluster.of_kind(k.Secret)
        return {key: why for key, why in self.unread.items() if key.name not in there}


@settings(max_examples=examples(150), deadline=None)
@given(starts, steps, st.booleans())
def test_after_any_changes_decisions_are_those_of_a_fresh_look(wanted, steps, packs):
    stage = Stage(wanted, packs=packs)
    decided = stage.decide()
    for step in steps:
        touched = stage.step(step)
        reads = stage.before.reads if stage.before is not None else None
        fresh = stage.fresh()
        is_of_services = not touched.site and not touched.nodes and not isinstance(decided, str)
        if is_of_services and reads is not None and not reads.is_touched(touched.services, touched.addresses):
            assert fresh == decided  # nobody had to be woken for it
        decided = stage.decide()
        assert decided == fresh


PLAIN = [
    *(ingress(name, rule(f"{host}.test")) for name in "abc" for host in ("x", "y", "z", "*")),
    *(ingress(name, rule("x.test"), rule("y.test", path("/new", to="api"))) for name in "ad"),
    ingress("b", rule("y.test"), annotations={"server-alias": "z.test"}),
    ingress("c", rule("x.test"), annotations={"canary": "true", "canary-by-header": "x"}),
]


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLAIN), st.sampled_from(["put", "put", "delete"])), max_size=12))
def test_few_changed_ingresses_are_admitted_and_grouped_as_all(steps):
    stage = two_hosts()
    for step in steps:
        stage.step(step)
        assert stage.decide() == stage.fresh()


@pytest.mark.not_quick
@settings(max_examples=examples(25), deadline=None)
@given(starts, steps, st.booleans())
def test_after_any_changes_files_are_those_of_a_fresh_look(wanted, steps, packs):
    stage = Stage(replace(wanted, config_map=None, default_certificate=None), packs=packs)
    made: NginxSite | None = None
    for step in [*steps, (FIRST[0], "put")]:
        stage.step(step)
        made = compile_ingress(stage.cluster.for_ingresses(), stage.options, TEMPLATES, served=True, before=made)
    world = build_world(stage.cluster.snapshot())
    assert made.configuration == compile_ingress(world, stage.options, TEMPLATES, served=True).configuration


@pytest.mark.not_quick
@settings(max_examples=examples(25), deadline=None)
@given(starts, steps, st.sampled_from([1, 2, 64]))
def test_for_haproxy_kept_hosts_are_those_of_a_fresh_look(wanted, steps, hosts):
    stage = Stage(replace(wanted, config_map=None, default_certificate=None))
    made: HaproxySite | None = None
    for step in [*steps, (FIRST[0], "put")]:
        stage.step(step)
        live = made.configuration if made is not None else None
        again = replace(live) if live is not None else None  # other files of the same content
        fresh = compile_haproxy(build_world(stage.cluster.snapshot()), stage.options, served=True, live=again)
        with patch.object(joined, "BLOCK", hosts):
            made = compile_haproxy(stage.cluster.for_ingresses(), stage.options, served=True, live=live, before=made)
        assert made.configuration == fresh.configuration
        assert made.structure == structure_of(made.configuration)
        assert made.model.reasons == fresh.model.reasons


TWO = (service("web"), endpoints("web"), service("api"), endpoints("api", ("10.244.3.7",)))


def two_hosts(*, packs: bool = False) -> Stage:
    stage = Stage(options(now=NOW), packs=packs)
    for known in (*TWO, ingress("b", rule("b.test", path(to="api")))):
        stage.change(known, "put")
    stage.decide()
    return stage


@pytest.mark.parametrize(
    "known",
    [
        endpoints("api", ("10.244.3.8",)),
        service("api", cluster_ip="10.96.77.7"),
        service("other", cluster_ip="10.244.3.7"),
    ],
    ids=["its endpoints", "its address", "another Service that has the address of its endpoint"],
)
@pytest.mark.parametrize("packs", [False, True])
def test_only_the_host_that_a_change_touches_is_decided_anew(known, packs):
    stage = two_hosts(packs=packs)
    before = stage.before.model
    touched = stage.change(known, "put")
    assert stage.before.reads.is_touched(touched.services, touched.addresses)
    after = stage.decide()
    assert after == stage.fresh()
    assert after != before
    assert after.servers["a.test"] is before.servers["a.test"]
    assert after.servers["b.test"] is not before.servers["b.test"]


ENDING = secret("cert", tls_crt=certificate("a.test", days=200), tls_key=key_pem())
HEADERS = k.ConfigMap(metadata=k.ObjectMeta(name="headers", namespace="default"), data={"X-Own": "yes"})
OPEN = ingress("a", rule("a.test", path()), tls=[tls("cert", "a.test")])
LARGE = secret("cert", tls_crt=b"x" * 40_000)


@pytest.mark.parametrize(
    ("before", "step"),
    [
        ((OPEN,), (ENDING, "put")),
        ((OPEN, ENDING), (tls_secret("cert", "b.test"), "put")),
        ((OPEN, ENDING), (ENDING, "delete")),
        ((OPEN, ENDING), "later"),
        ((OPEN, ENDING), (LARGE, "put")),
        ((site("a.test", custom_headers="headers"),), (HEADERS, "put")),
        ((site("a.test", custom_headers="headers"), HEADERS), (HEADERS, "delete")),
        ((site("a.test", auth_type="basic", auth_secret="users"),), (secret("users", auth=HTPASSWD), "put")),
        ((), (site("a.test", from_to_www_redirect="true"), "put")),
        ((site("a.test", from_to_www_redirect="true"),), (ingress("w", rule("www.a.test")), "put")),
        ((), (settings_map(proxy_read_timeout="7"), "put")),
        ((), (node("node1", "10.244.1.5"), "put")),
        ((service("kubernetes"),), (endpoints("kubernetes", ("10.244.1.5",), ports=[("http", 8080)]), "put")),
        ((), "quarantine"),
        ((), "default"),
    ],
)
def test_whatever_changes_what_follows_from_it_is_decided_anew(before, step):
    stage = Stage(options(node="node1", now=NOW, config_map=SETTINGS, most_hosts=2))
    for known in before:
        stage.change(known, "put")
    stage.decide()
    earlier = stage.before.model
    stage.step(step)
    assert stage.decide() == stage.fresh()
    assert stage.before.model != earlier


def test_a_service_that_nobody_refers_to_touches_nothing():
    stage = two_hosts()
    for known in (service("lonely", cluster_ip="10.96.77.8"), endpoints("lonely", ("10.244.9.9",))):
        touched = stage.change(known, "put")
        assert touched
        assert not stage.before.reads.is_touched(touched.services, touched.addresses)


def test_a_service_that_was_missing_is_referred_to():
    stage = Stage(options())
    stage.change(ingress("b", rule("b.test", path(to="missing"))), "put")
    stage.decide()
    touched = stage.change(service("missing"), "put")
    assert stage.before.reads.is_touched(touched.services, touched.addresses)


def test_an_ingress_whose_status_changes_is_decided_as_before():
    stage = two_hosts()
    before, known = stage.before.model, ingress("a", rule("a.test", path()))
    stage.change(known, "status")
    stage.change(endpoints("api", ("10.244.3.8",)), "put")
    after = stage.decide()
    assert after == stage.fresh()
    assert after.servers["a.test"] is before.servers["a.test"]
