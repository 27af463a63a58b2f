"""Which port of a Service a backend means, and which endpoints its requests go to."""

from __future__ import annotations

import pytest

from rulegen.kube.objects import structs as k
from rulegen.model.ingress.ir import FixedResponse, ToUpstream
from rulegen.model.ingress.reasons import Verdict
from tests.strategies.ingresses import compiled, endpoints, ingress, path, reported, rule, service, verdicts


def port(number: int, target: int | str = 0, name: str = "", protocol: str = "TCP") -> k.ServicePort:
    return k.ServicePort(name=name, port=number, target_port=target, protocol=protocol)


def served(*ports: k.ServicePort, asked: int | str, slices=None, annotations=None):
    """Return the servers that requests go to, and the Site; no servers for 503."""
    names = {known.name: 9000 + number for number, known in enumerate(ports) if known.protocol == "TCP"}
    known = endpoints("x", ("10.244.1.5",), ports=slices or [*names.items()])
    site = ingress("site", rule("site.test", path(to="x", port=asked)), annotations=annotations)
    result = compiled(service("x", ports=ports), known, site)
    target = next(each.target for each in result.model.servers["site.test"].locations if each.ingress)
    if isinstance(target, FixedResponse):
        assert target.status == 503
        return [], result
    assert isinstance(target, ToUpstream)
    return [server.rpartition(":")[2] for server in result.model.upstreams[target.upstream].servers], result


A, B = port(80, "web", "http"), port(8080, 3000, "admin")


@pytest.mark.parametrize(
    ("asked", "ports", "verdict"),
    [
        (80, ["9000"], None),
        ("http", ["9000"], None),
        ("admin", ["9001"], None),
        ("web", ["9000"], Verdict.NOTE),
        (3000, ["9001"], Verdict.NOTE),
        (9000, [], Verdict.UNAVAILABLE),
        ("nope", [], Verdict.UNAVAILABLE),
    ],
)
def test_a_backend_may_name_the_target_of_a_port(asked, ports, verdict):
    servers, result = served(A, B, asked=asked)
    assert (servers, verdicts(result)) == (ports, {verdict} - {None})


@pytest.mark.parametrize(
    ("ports", "asked", "number"),
    [
        ((port(8080, 80, "a"), port(80, 8080, "b")), 80, "9000"),
        ((port(8080, 80, "a"), port(80, 8080, "b")), 8080, "9000"),
        ((port(80, 8080, "b"), port(8080, 80, "a")), 80, "9000"),
        ((port(1, "b", "a"), port(2, "a", "b")), "b", "9000"),
    ],
)
def test_the_first_port_that_fits_is_meant(ports, asked, number):
    """Also before a later one whose own number or name it is, which is reported as not served as specified."""
    servers, result = served(*ports, asked=asked)
    assert servers == [number]
    is_own = asked in {ports[0].port, ports[0].name}
    assert verdicts(result) == (set() if is_own else {Verdict.IGNORED})
    assert is_own or [reason.path for reason in reported(result)] == ["spec.rules[0].http.paths[0].backend"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_one_number_for_two_protocols_tcp_is_meant(order):
    ports = [port(53, 53, "dns", "UDP"), port(53, 53, "dns-tcp")][::order]
    servers, result = served(*ports, asked=53)
    assert (len(servers), verdicts(result)) == (1, set())


@pytest.mark.parametrize(("asked", "name"), [(80, "default.x.80"), (3000, "default.x.8080")])
def test_a_target_leads_to_the_upstream_of_its_port(asked, name):
    _, result = served(A, B, asked=asked)
    assert list(result.model.upstreams) == [name]


def test_the_cluster_ip_is_asked_at_the_port_of_the_service():
    """Not at the targetPort, at which it does not answer."""
    servers, _ = served(A, B, asked=3000, annotations={"service-upstream": "true"})
    assert servers == ["8080"]


@pytest.mark.parametrize(
    ("slices", "ports"),
    [
        ([("", 1), ("other", 2)], ["1"]),
        ([(None, 1)], ["1"]),
        ([("http", 1)], ["1"]),
        ([("http", 1), ("other", 2)], ["1", "2"]),
    ],
)
def test_a_port_without_name_has_the_ports_of_its_slices(slices, ports):
    """That without a name before all others."""
    assert served(port(80), asked=80, slices=slices)[0] == ports


def test_a_port_without_name_has_no_refused_endpoint():
    known = endpoints("x", ("10.96.0.1",), ports=[("http", 443)])
    other = service("y", cluster_ip="10.96.0.1", ports=(port(443, name="https"),))
    site = ingress("site", rule("site.test", path(to="x")))
    result = compiled(service("x", ports=(port(80),)), other, known, site)
    assert result.model.upstreams == {}
    assert verdicts(result) == {Verdict.REFUSED, Verdict.UNAVAILABLE}


@pytest.mark.parametrize("slices", [[("odd", 1)], [("odd", 3000)]])
def test_a_port_with_a_name_has_only_slices_of_this_name(slices):
    servers, result = served(B, asked=8080, slices=slices)
    assert (servers, verdicts(result)) == ([], {Verdict.UNAVAILABLE})


def test_a_slice_without_ports_has_no_endpoints():
    known = endpoints("x", ("10.244.1.5",), ports=())
    result = compiled(service("x", ports=(B,)), known, ingress("site", rule("site.test", path(to="x", port=8080))))
    assert verdicts(result) == {Verdict.UNAVAILABLE}


def test_a_cluster_ip_without_endpoints_is_not_asked():
    site = ingress("site", rule("site.test", path(to="x", port=8080)), annotations={"service-upstream": "true"})
    assert verdicts(compiled(service("x", ports=(B,)), site)) == {Verdict.UNAVAILABLE}


def test_a_name_is_not_asked_at_a_port_that_has_another_name():
    ports = (port(80, "https", "http"),)
    far = service("x", type="ExternalName", cluster_ip="", external_name="far.test", ports=ports)
    for asked in ("nope", "https"):
        result = compiled(far, ingress("site", rule("site.test", path(to="x", port=asked))))
        assert verdicts(result) == {Verdict.UNAVAILABLE}


@pytest.mark.parametrize("asked", [81, "nope"])
def test_a_cluster_ip_is_not_asked_at_a_port_that_it_lacks(asked):
    servers, result = served(A, B, asked=asked, annotations={"service-upstream": "true"})
    assert (servers, verdicts(result)) == ([], {Verdict.UNAVAILABLE})
