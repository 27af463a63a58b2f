"""What rulegen does otherwise than ingress-nginx: rows of docs/ingress-nginx.md that need no nginx to be shown."""

from __future__ import annotations

import re

import pytest

from rulegen.kube.objects import structs as k
from rulegen.model.ingress.reasons import Verdict
from tests.strategies.ingresses import (
    API,
    NAMED,
    WEB,
    backend,
    compiled,
    config_map,
    endpoints,
    ingress,
    path,
    rule,
    service,
    settings_map,
    site,
    text_of,
    verdicts,
)

GROUND = (*WEB, *API, *NAMED)
LATER, LAST = "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"


def test_the_aliases_of_all_ingresses_of_a_host_hold():
    first = ingress("first", rule("site.test", path("/a")), annotations={"server-alias": "a.test"})
    second = ingress("second", rule("site.test", path("/b")), annotations={"server-alias": "b.test"}, created=LATER)
    assert "server_name site.test a.test b.test;" in text_of(compiled(*GROUND, first, second))


def test_a_rule_without_http_can_require_client_certificates():
    alone = ingress(
        "site", k.IngressRule(host="site.test"), default=backend(), annotations={"auth-tls-secret": "default/ca"}
    )
    assert "ssl_verify_client on;" in text_of(compiled(*GROUND, alone))


@pytest.mark.parametrize("name", ["ca", "default/ca"])
def test_a_secret_without_namespace_is_one_of_the_ingress(name):
    assert "ssl_verify_client on;" in text_of(compiled(*GROUND, site(auth_tls_secret=name)))


def test_a_canary_without_a_main_ingress_requires_no_client_certificates():
    alone = ingress("canary", rule("site.test"), annotations={"canary": "true", "auth-tls-secret": "gone"})
    result = compiled(*GROUND, site("other.test"), alone)
    assert set(result.model.servers) == {"", "other.test"}
    assert "ssl_verify_client" not in text_of(result, "other.test")


def test_grpc_backends_are_verified_as_told():
    asked = {"backend_protocol": "GRPCS", "proxy_ssl_secret": "upstream", "proxy_ssl_verify": "on"}
    assert "grpc_ssl_verify on;" in text_of(compiled(*GROUND, site(**asked)))


def test_a_literal_path_beside_expressions_matches_itself_alone():
    expression = ingress("first", rule("site.test", path("/x.*")), annotations={"use-regex": "true"})
    literal = ingress("second", rule("site.test", path("/a.b", "Exact")), created=LATER)
    locations = re.findall(r'location ~\* "?(\S+?)"? \{', text_of(compiled(*GROUND, expression, literal)))
    assert locations == [r"^/a\\.b", "^/x.*"]


def test_of_two_exact_paths_beside_a_prefix_the_older_stands():
    made = [
        ingress("prefix", rule("site.test", path("/p"))),
        ingress("older", rule("site.test", path("/p", "Exact", to="api")), created=LATER),
        ingress("younger", rule("site.test", path("/p", "Exact", to="web")), created=LAST),
    ]
    result = compiled(*GROUND, *made)
    (exact,) = re.findall(r"location = /p \{[^}]*?proxy_pass ([^;]*);", text_of(result))
    assert "default.api.80" in exact
    assert verdicts(result, "default/younger") == {Verdict.LOST}


def test_a_rewrite_is_not_for_the_default_backend():
    asked = {"rewrite-target": "/new"}
    both = ingress("site", rule("site.test", path("/app")), default=backend("api"), annotations=asked)
    before, _, rest = text_of(compiled(*GROUND, both)).partition("location / {")
    assert "rewrite " in before
    assert "default.api.80" in rest
    assert "rewrite " not in rest


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_rewrite_to_a_url_rejects(scheme):
    assert verdicts(compiled(*GROUND, site(rewrite_target=f"{scheme}://new.test/"))) == {Verdict.REJECTED}


def test_the_realm_of_a_password_has_a_name():
    asked = site(auth_type="basic", auth_secret="users")
    assert 'auth_basic "Authentication Required";' in text_of(compiled(*GROUND, asked))


def test_a_header_for_backends_is_sent_once():
    named = config_map("more", {"X-Real-IP": "own"})
    files = compiled(*GROUND, site(), named, settings_map(proxy_set_headers="default/more")).configuration.files
    sent = re.findall(r"proxy_set_header X-Real-IP ([^;]*);", "".join(files.values()))
    assert sent == ["own"]


def test_an_external_name_over_tls_gets_its_name():
    outside = service("out", type="ExternalName", cluster_ip="", external_name="out.test")
    asked = ingress("site", rule("site.test", path(to="out")), annotations={"backend-protocol": "HTTPS"})
    text = text_of(compiled(*GROUND, outside, asked, resolvers=("10.0.0.53",)))
    assert "proxy_ssl_server_name on;" in text


def test_a_parameter_that_cannot_be_written_closes():
    named = config_map("unwritable", {"A B": "x"})
    asked = site(backend_protocol="FCGI", fastcgi_params_configmap="unwritable")
    assert verdicts(compiled(*GROUND, named, asked)) == {Verdict.CLOSED}


def test_timeouts_hold_for_fastcgi_and_limit_all_attempts():
    text = text_of(compiled(*GROUND, site(backend_protocol="FCGI", proxy_read_timeout="7")))
    assert "fastcgi_read_timeout 7s;" in text
    assert "fastcgi_next_upstream_timeout 7s;" in text


def test_the_rule_of_nginx_for_redirects_of_backends_is_off():
    files = compiled(*GROUND, site(proxy_redirect_from="default")).configuration.files
    assert set(re.findall(r"proxy_redirect ([^;]*);", "".join(files.values()))) == {"off"}


def test_endpoints_of_both_families_get_requests():
    both = endpoints("web", ("fd00:10:244::5",))
    files = compiled(*GROUND, both, site()).configuration.files
    (text,) = [text for name, text in files.items() if name.startswith("upstreams/")]
    servers = re.findall(r"server (\S+?)(?: backup.*)?;", text)
    assert servers[:3] == ["10.244.1.5:8080", "10.244.2.6:8080", "[fd00:10:244::5]:8080"]
