"""Routes of no kind: what an Ingress asks for as routes, and routes that no Ingress has, served alike."""

from __future__ import annotations

import pytest

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import ServiceBackendPort
from rulegen.model.ingress.ir import Location, LocationPolicy, MatchKind, ToUpstream
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.ingresses import ResolvedIngress
from rulegen.model.ingress.routing.paths import BARE
from rulegen.model.ingress.routing.route import PathKind, PathMatch, Route, RouteMatch, ValueMatch, WeightedBackend
from rulegen.model.ingress.routing.routes import Routing
from rulegen.model.ingress.upstreams.services import NOT_FOUND, Targets
from rulegen.model.ingress.values.annotations.reading import read_annotations
from rulegen.model.ingress.values.settings import Settings
from rulegen.net import Family
from tests.strategies.ingresses import PREFIX, endpoints, ingress, path, rule, service, world

NOBODY = Location(kind=MatchKind.PREFIX, path="/", target=NOT_FOUND, policy=BARE)
SOURCE = ObjectKey("TestRoute", ObjectName("default", "split"))
NAMES = ("a", "b", "c")
SERVICES = [service(name) for name in NAMES] + [endpoints(name, ("10.244.0.1",)) for name in NAMES]
ANY = RouteMatch()


class Asker(ResolvedIngress):
    """An object of another kind than Ingress, with the routes that a test gives it."""

    asked: tuple[Route, ...] = ()

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.asked


def backend(name: str, weight: int = 1) -> WeightedBackend:
    port = ServiceBackendPort(name="", number=80)
    return WeightedBackend(ObjectName("default", name), port, f"spec.backends[{name}]", weight)


def route(*backends: WeightedBackend, hosts: tuple[str, ...] = ("h.test",), match: RouteMatch = ANY) -> Route:
    return Route(
        hosts=hosts, matches=(match,), filters=LocationPolicy(), backends=backends, source=SOURCE, field="spec.rules[0]"
    )


def routed(*routes: Route) -> Routing:
    """Return the routing of some routes of one object."""
    snapshot = world(*SERVICES)
    routing = Routing(Targets(services=snapshot.services, settings=Settings(), families=(Family.IPV4,)), Settings())
    annotations = read_annotations(SOURCE, {}, PREFIX)
    routing.add(Asker(SOURCE.name, ingress("split"), annotations, LocationPolicy(), False, asked=routes))
    return routing


def shares(routing: Routing, host: str = "h.test") -> dict[str, float]:
    """Return the part of all requests for `/` that each upstream has."""
    (location,) = routing.host(host).locations(NOBODY)
    assert isinstance(location.target, ToUpstream)
    parts, left = {}, 1.0
    for canary in location.canaries:
        assert isinstance(canary.target, ToUpstream)
        parts[canary.target.upstream] = left * canary.share / 100
        left -= parts[canary.target.upstream]
    return {**parts, location.target.upstream: left}


@pytest.mark.parametrize("weights", [(1,), (9, 1), (1, 1, 2), (0, 1, 3), (5, 0, 5)])
def test_backends_have_requests_in_proportion_to_their_weights(weights):
    routing = routed(route(*(backend(name, weight) for name, weight in zip(NAMES, weights, strict=False))))
    parts = shares(routing)
    wanted = {f"default.{name}.80": weight / sum(weights) for name, weight in zip(NAMES, weights, strict=False)}
    assert {name: parts.get(name, 0.0) for name in wanted} == pytest.approx(wanted)
    assert routing.reasons == []


def test_a_route_of_several_hosts_is_served_on_each():
    routing = routed(route(backend("a"), hosts=("x.test", "y.test")))
    assert shares(routing, "x.test") == shares(routing, "y.test") == {"default.a.80": 1.0}


@pytest.mark.parametrize(
    "match",
    [
        RouteMatch(method="GET"),
        RouteMatch(headers=(ValueMatch("Version", "2"),)),
        RouteMatch(query=(ValueMatch("q", "x", is_expression=True),)),
    ],
)
def test_a_match_that_is_not_supported_is_reported_not_widened(match):
    """A route that asks for a header must not get the requests without it."""
    routing = routed(route(backend("a"), match=match))
    (reason,) = routing.reasons
    assert (reason.about, reason.verdict, reason.path) == (SOURCE, Verdict.UNSUPPORTED, "spec.rules[0]")
    assert str(reason).startswith("TestRoute default/split (unsupported): ")
    (location,) = routing.host("h.test").locations(NOBODY)
    assert not isinstance(location.target, ToUpstream)


def test_a_share_for_nobody_goes_to_the_other_backends():
    routing = routed(route(backend("a"), backend("none")))
    assert shares(routing) == {"default.a.80": 1.0}
    (reason,) = routing.reasons
    assert (reason.verdict, reason.path) == (Verdict.UNAVAILABLE, "spec.backends[none]")


@pytest.mark.parametrize(
    ("path_type", "use_regex", "kind"),
    [
        ("Exact", False, PathKind.EXACT),
        ("Prefix", False, PathKind.PREFIX),
        ("ImplementationSpecific", False, PathKind.PREFIX),
        ("Exact", True, PathKind.EXACT_EXPRESSION),
        ("Prefix", True, PathKind.EXPRESSION),
    ],
)
def test_a_rule_of_an_ingress_is_a_route(path_type, use_regex, kind):
    asked = ingress("web", rule("h.test", path("/x", path_type, "a")))
    annotations = read_annotations(ObjectKey("Ingress", ObjectName("default", "web")), {}, PREFIX)
    policy = LocationPolicy(use_regex=use_regex)
    first, rest = ResolvedIngress(ObjectName("default", "web"), asked, annotations, policy, False).routes
    assert (first.hosts, first.matches) == (("h.test",), (RouteMatch(PathMatch(kind, "/x")),))
    assert [(each.service, each.weight) for each in first.backends] == [(ObjectName("default", "a"), 1)]
    assert (first.source, first.field) == (annotations.about, "spec.rules[0].http.paths[0]")
    assert (rest.hosts, rest.matches, rest.backends) == (("h.test",), (), ())
