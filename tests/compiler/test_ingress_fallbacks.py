"""Who answers where no Ingress, no endpoint or an error does: default backends, and what holds for their answers."""

from __future__ import annotations

import re

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.ir import FixedResponse, ToUpstream
from rulegen.model.ingress.reasons import Verdict
from tests.strategies.ingresses import (
    API,
    WEB,
    backend,
    compiled,
    config_map,
    endpoints,
    ingress,
    path,
    reported,
    rule,
    service,
    settings_map,
    site,
    text_of,
    verdicts,
)

GROUND = (*WEB, *API)


@pytest.mark.parametrize("objects", [(), (service("gone"),)], ids=["missing", "no endpoints"])
def test_a_default_backend_of_all_that_cannot_answer_is_404(objects):
    result = compiled(*GROUND, *objects, site(), default_backend=ObjectName("default", "gone"))
    (rest,) = result.model.servers[""].locations
    assert rest.target == FixedResponse(404)


def test_a_rule_without_host_goes_before_a_default_backend():
    rest = ingress("rest", default=backend("api"))
    each = ingress("rule", rule("", path(to="web")), created="2026-02-01T00:00:00Z")
    result = compiled(*GROUND, rest, each)
    assert [location.target for location in result.model.servers[""].locations] == [ToUpstream("default.web.80")]


def test_a_default_backend_beside_a_rule_without_host_answers_other_paths():
    result = compiled(*GROUND, ingress("rule", rule("", path("/app")), default=backend("api")))
    targets = {location.source: location.target for location in result.model.servers[""].locations}
    assert targets == {"/app": ToUpstream("default.web.80"), "/": ToUpstream("default.api.80")}


@pytest.mark.parametrize("age", ["2025-01-01T00:00:00Z", "2026-02-01T00:00:00Z"])
def test_a_default_backend_without_rules_goes_before_one_beside_a_rule_without_host(age):
    rest = ingress("rest", default=backend("web"))
    each = ingress("rule", rule("", path("/app")), default=backend("api"), created=age)
    result = compiled(*GROUND, rest, each)
    targets = {location.source: location.target for location in result.model.servers[""].locations}
    assert targets == {"/app": ToUpstream("default.web.80"), "/": ToUpstream("default.web.80")}
    assert verdicts(result, "default/rest") == set()
    assert verdicts(result, "default/rule") == {Verdict.LOST}


def test_a_second_default_backend_of_a_host_is_reported():
    first = ingress("first", rule("site.test", path("/a")), default=backend("api"))
    second = ingress("second", rule("site.test", path("/b")), default=backend("web"), created="2026-02-01T00:00:00Z")
    result = compiled(*GROUND, first, second)
    targets = {location.source: location.target for location in result.model.servers["site.test"].locations}
    assert targets["/"] == ToUpstream("default.api.80")
    assert (verdicts(result, "default/first"), verdicts(result, "default/second")) == (set(), {Verdict.LOST})


@pytest.mark.parametrize("objects", [(), (service("none", ports=()), endpoints("none"))], ids=["missing", "no ports"])
def test_a_default_backend_that_cannot_answer_is_ignored(objects):
    """It is reported, and the Service without endpoints answers 503."""
    result = compiled(*objects, service("web"), site(default_backend="none"))
    (location,) = result.model.servers["site.test"].locations
    assert location.target == FixedResponse(503)
    assert verdicts(result) == {Verdict.IGNORED, Verdict.UNAVAILABLE}


def test_a_default_backend_has_its_ingresss_annotations():
    annotations = {"denylist-source-range": "10.0.0.0/8", "proxy-read-timeout": "7"}
    result = compiled(
        *GROUND, ingress("site", rule("site.test", path("/a")), default=backend("api"), annotations=annotations)
    )
    rest = text_of(result).partition("location / {")[2]
    assert "default.api.80" in rest
    assert "deny 10.0.0.0/8;" in rest
    assert "proxy_read_timeout 7s;" in rest


def test_an_answer_that_replaces_another_is_not_replaced():
    result = compiled(*GROUND, site(custom_http_errors="404", default_backend="api"))
    instead = text_of(result).partition("location @e404_")[2].partition("\n }")[0]
    assert "default.api.80" in instead
    assert "intercept_errors" not in instead
    assert "error_page" not in instead


def test_of_an_answer_of_nginx_only_its_own_code_is_replaced():
    errors = {"custom-http-errors": "404,503"}
    empty = ingress("site", rule("site.test", path(to="empty")), annotations=errors)
    result = compiled(*GROUND, service("empty"), empty, default_backend=ObjectName("default", "web"))
    assert "return 503;" in text_of(result)
    assert re.findall(r"error_page (\d+)", text_of(result)) == ["503"]


def test_the_rest_of_all_hosts_asks_nobody():
    keys = {"global_auth_url": "http://api.default.svc.cluster.local/"}
    result = compiled(*GROUND, site(), settings_map(**keys), default_backend=ObjectName("default", "web"))
    assert "auth_request" in text_of(result)
    assert "auth_request" not in text_of(result, "")


def test_an_ingress_without_rules_asks_the_auth_server_of_all():
    keys = {"global_auth_url": "http://api.default.svc.cluster.local/"}
    result = compiled(*GROUND, ingress("site", default=backend("web")), settings_map(**keys))
    assert "auth_request" in text_of(result, "")


def test_parameters_of_another_namespace_close():
    others = config_map("scripts", {"SCRIPT_FILENAME": "/app.php"}, "other")
    result = compiled(*GROUND, others, site(backend_protocol="FCGI", fastcgi_params_configmap="other/scripts"))
    assert "return 503;" in text_of(result)
    assert verdicts(result) == {Verdict.CLOSED}


def test_only_tcp_ports_get_requests():
    ports = (k.ServicePort(name="dns", port=53, protocol="UDP"),)
    result = compiled(
        service("names", ports=ports), endpoints("names"), ingress("site", rule("site.test", path(to="names", port=53)))
    )
    (location,) = result.model.servers["site.test"].locations
    assert location.target == FixedResponse(503)
    assert "not TCP" in reported(result)[0].message


def test_timeouts_hold_for_grpc():
    result = compiled(*GROUND, site(backend_protocol="GRPC", proxy_read_timeout="7", proxy_connect_timeout="3"))
    assert "grpc_read_timeout 7s;" in text_of(result)
    assert "grpc_connect_timeout 3s;" in text_of(result)


@pytest.mark.parametrize(("text", "codes"), [("301", (301,)), ("404,599", (404, 599)), ("299", ()), ("499", ())])
def test_which_codes_can_be_replaced(text, codes):
    result = compiled(*GROUND, site(custom_http_errors=text, default_backend="api"))
    (location,) = result.model.servers["site.test"].locations
    errors = location.policy.errors
    assert (errors.codes if errors is not None else ()) == codes


PASSES = {
    "HTTPS": "proxy_pass https://",
    "GRPC": "grpc_pass grpc://",
    "GRPCS": "grpc_pass grpcs://",
    "FCGI": "fastcgi_pass ",
    "AUTO_HTTP": "proxy_pass $scheme://",
}


@pytest.mark.parametrize("protocol", PASSES)
def test_the_default_backend_of_all_and_of_errors_is_asked_by_http(protocol):
    """It is not a backend of the Ingress, whose protocol is that of its own Services."""
    asked = {"backend-protocol": protocol, "custom-http-errors": "404"}
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test", path("/app")), annotations=asked),
        default_backend=ObjectName("default", "api"),
    )
    passes = re.findall(r"(\w+_pass [^;]*default\.api[^;]*);", text_of(result))
    assert len(passes) >= 2
    assert set(passes) == {"proxy_pass http://default.api.80"}


@pytest.mark.parametrize("protocol", PASSES)
def test_a_default_backend_of_an_ingress_is_asked_by_http_for_errors(protocol):
    result = compiled(*GROUND, site(backend_protocol=protocol, custom_http_errors="404", default_backend="api"))
    assert re.findall(r"(\w+_pass [^;]*default\.api[^;]*);", text_of(result)) == ["proxy_pass http://default.api.80"]


@pytest.mark.parametrize("protocol", PASSES)
@pytest.mark.parametrize("replaces", [False, True])
def test_a_default_backend_of_an_ingress_is_asked_as_its_services_are(protocol, replaces):
    asked = {"backend-protocol": protocol}
    if replaces:
        made = ingress("site", rule("site.test", path(to="dead")), annotations={**asked, "default-backend": "api"})
    else:
        made = ingress("site", rule("site.test", path("/app")), default=backend("api"), annotations=asked)
    passes = re.findall(r"(\w+_pass \S*?)default\.api", text_of(compiled(*GROUND, service("dead"), made)))
    assert passes == [PASSES[protocol]]
