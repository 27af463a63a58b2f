"""Where requests of Ingresses go: Services, names, answers of rulegen's own, and how backends are spoken with."""

from __future__ import annotations

import re

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.ir import FixedResponse
from rulegen.model.ingress.reasons import Verdict
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    API,
    NAMED,
    PREFIX,
    WEB,
    backend,
    compiled,
    endpoints,
    ingress,
    path,
    refusal,
    reported,
    rule,
    service,
    settings_map,
    site,
    text_of,
    tls,
    verdicts,
)

GROUND = (*WEB, *API, *NAMED)


@pytest.mark.parametrize(
    ("objects", "port", "expected"),
    [
        ((), 80, "503"),
        ((service("x"),), 80, "503"),
        ((service("x"), endpoints("x", ready=False)), 80, "503"),
        ((service("x"), endpoints("x", ready=True, terminating=True)), 80, "503"),
        ((service("x"), endpoints("x")), 81, "503"),
        ((service("x"), endpoints("x")), "nope", "503"),
        ((service("x"), endpoints("x", ("127.0.0.1",))), 80, "503"),
        ((service("x"), endpoints("x", ("169.254.169.254",))), 80, "503"),
        ((service("x"), endpoints("x")), "other", ["10.244.1.5:9090", "10.244.2.6:9090"]),
        ((service("x"), endpoints("x")), 8080, ["10.244.1.5:9090", "10.244.2.6:9090"]),
        (
            (service("x"), endpoints("x", ("10.244.1.5",)), endpoints("x", ("fd00::5",))),
            80,
            ["10.244.1.5:8080", "[fd00::5]:8080"],
        ),
        ((service("x", cluster_ip="None"), endpoints("x")), 80, ["10.244.1.5:8080", "10.244.2.6:8080"]),
    ],
)
def test_where_requests_go(objects, port, expected):
    result = compiled(*objects, *API, ingress("site", rule("site.test", path(to="x", port=port))))
    if isinstance(expected, str):
        assert f"return {expected};" in text_of(result)
        assert verdicts(result) == {Verdict.UNAVAILABLE}
        return
    (upstream,) = [each for each in result.model.upstreams.values() if each.service.name == "x"]
    assert list(upstream.servers) == expected
    own = next(each.spec.cluster_ip for each in objects if isinstance(each, k.Service))
    assert bool(upstream.backup) is (own != "None")


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0"])
@pytest.mark.parametrize("annotations", [{}, {"service-upstream": "true"}])
def test_a_service_address_of_the_node_itself_is_not_used(address, annotations):
    own = service("x", cluster_ip=address)
    result = compiled(own, endpoints("x"), ingress("site", rule("site.test", path(to="x")), annotations=annotations))
    (upstream,) = result.model.upstreams.values()
    assert (upstream.servers, upstream.backup) == (("10.244.1.5:8080", "10.244.2.6:8080"), "")
    assert any("spec.clusterIP" in reason.path for reason in reported(result, ""))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com", '"external" "example.com:80"'),
        ("web.default.svc.cluster.local", "default.web.80"),
        ("localhost", "503"),
        ("127.0.0.1", "503"),
    ],
)
def test_external_names(name, expected):
    external = service("x", type="ExternalName", cluster_ip="", external_name=name, ports=())
    result = compiled(*GROUND, external, ingress("site", rule("site.test", path(to="x"))))
    text = text_of(result)
    if expected == "503":
        assert "return 503;" in text
    elif name == "example.com":
        assert "set $external example.com:80;" in text
        assert "proxy_pass http://${external};" in text.replace('"', "") or "$external" in text
    else:
        assert expected in text


def test_no_external_name_is_served_if_they_are_disabled():
    external = service("x", type="ExternalName", cluster_ip="", external_name="example.com", ports=())
    result = compiled(*GROUND, external, ingress("site", rule("site.test", path(to="x"))), refuses_names=True)
    (location,) = result.model.servers["site.test"].locations
    assert location.target == FixedResponse(503)
    assert "example.com" not in text_of(result)
    assert reported(result)


def test_a_backend_that_is_no_service_is_404():
    resource = k.IngressBackend(resource=k.TypedReference(kind="Bucket", name="b"))
    each = k.HTTPIngressPath(path="/", path_type="Prefix", backend=resource)
    result = compiled(*GROUND, ingress("site", rule("site.test", each)))
    assert "return 404;" in text_of(result)
    assert verdicts(result) == {Verdict.UNAVAILABLE}


def test_a_resource_backend_affects_no_other_ingress():
    resource = k.IngressBackend(resource=k.TypedReference(kind="Bucket", name="b"))
    each = k.HTTPIngressPath(path="/", path_type="Prefix", backend=resource)
    text = {f"{PREFIX}/permanent-redirect": "https://x.test/a$location_path"}
    result = compiled(*GROUND, ingress("site", rule("site.test", each), annotations=text))
    assert verdicts(result) == {Verdict.UNAVAILABLE}


def test_a_text_too_long_with_its_variables_closes_its_paths():
    long = ingress(
        "long",
        rule("long.test", path("/" + "a" * 240)),
        annotations={f"{PREFIX}/permanent-redirect": "https://x.test/" + "$location_path" * 30},
    )
    result = compiled(*GROUND, long, site())
    targets = {location.path: location.target for location in result.model.servers["long.test"].locations}
    assert targets["/" + "a" * 240] == FixedResponse(503)
    assert verdicts(result, "default/long") == {Verdict.CLOSED}
    assert verdicts(result) == set()


@pytest.mark.parametrize("query", ["next=$escaped_request_uri", "next=$scheme://$host$request_uri"])
def test_the_sign_in_url_contains_the_request_url_once(query):
    names = {"auth_url": "https://sso.test/check", "auth_signin": f"https://sso.test/start?{query}"}
    text = text_of(compiled(*GROUND, site(**names)))
    assert "https://sso.test/start?next=" in text
    assert "rd=" not in text


def test_a_default_backend_of_rules_serves_their_hosts_alone():
    result = compiled(*GROUND, ingress("site", rule("site.test", path("/a")), default=backend("api")))
    assert "default.api.80" in text_of(result)
    assert "default.api.80" not in text_of(result, "")


@pytest.mark.parametrize(("many", "busy"), [("2", "8k"), ("3", "16k"), ("4", "16k")])
def test_busy_buffers_are_two_if_another_is_left(many, busy):
    text = text_of(compiled(*GROUND, site(proxy_buffer_size="8k", proxy_buffers_number=many)))
    assert f"proxy_busy_buffers_size {busy};" in text


@needs_nginx
def test_all_sizes_of_buffers_are_fitted_to_each_other(tmp_path):
    result = []
    for each in ("", "0", "1", "1k", "4k", "64k", "16m"):
        for many in ("", "2", "3", "1024"):
            for busy in ("", "0", "1k", "8k", "64m"):
                for temporary in ("", "0", "1", "1g"):
                    reported = {
                        "proxy-buffer-size": each,
                        "proxy-buffers-number": many,
                        "proxy-busy-buffers-size": busy,
                        "proxy-max-temp-file-size": temporary,
                    }
                    name = f"n{len(result)}"
                    reported = {key: text for key, text in reported.items() if text}
                    if len(result) % 3 == 0:
                        reported["backend-protocol"] = "FCGI"
                    result.append(ingress(name, rule(f"{name}.test"), annotations=reported))
    assert refusal(compiled(*WEB, *result).configuration, tmp_path / "nginx") == ""


@needs_nginx
@pytest.mark.parametrize("mode", ["balanced", "persistent"])
def test_clients_of_all_other_names_stay_with_their_server_too(mode, tmp_path):
    cookie = {"affinity": "cookie", "affinity-mode": mode, "session-cookie-name": "stay"}
    result = compiled(*GROUND, ingress("site", rule(""), annotations=cookie))
    assert "$http_cookie" in text_of(result, "")
    assert refusal(result.configuration, tmp_path / "nginx") == ""


@needs_nginx
@pytest.mark.parametrize("secret_name", ["", "cert"])
def test_names_that_only_redirect_have_a_certificate(secret_name, tmp_path):
    each = ingress(
        "site",
        rule("site.test"),
        annotations={"from-to-www-redirect": "true"},
        tls=[tls(secret_name, "site.test")] if secret_name else (),
    )
    result = compiled(*GROUND, each, settings_map(ssl_reject_handshake="true"))
    assert refusal(result.configuration, tmp_path / "nginx") == ""


def test_of_two_hosts_that_ask_for_an_alias_the_older_has_it():
    older = ingress("older", rule("z.test"), annotations={"server-alias": "both.test"})
    younger = ingress(
        "younger", rule("a.test"), annotations={"server-alias": "both.test"}, created="2026-01-02T00:00:00Z"
    )
    result = compiled(*GROUND, older, younger)
    assert {host: server.aliases for host, server in result.model.servers.items() if host} == {
        "a.test": (),
        "z.test": ("both.test",),
    }
    assert verdicts(result, "default/younger") == {Verdict.LOST}


@pytest.mark.parametrize(
    ("host", "annotation"),
    [("", "server-alias"), ("", "from-to-www-redirect"), ("*.site.test", "from-to-www-redirect")],
)
def test_impossible_aliases_are_reported(host, annotation):
    value = "true" if annotation == "from-to-www-redirect" else "alias.test"
    result = compiled(*GROUND, ingress("site", rule(host), annotations={annotation: value}))
    assert [(each.verdict, annotation in each.path) for each in result.model.reasons] == [(Verdict.IGNORED, True)]
    assert list(result.model.servers) == list(dict.fromkeys(("", host)))


REJECTING = settings_map(ssl_reject_handshake="true")
TELLING = {"auth-url": "http://api.default.svc/check", "auth-response-headers": "X-User"}


@pytest.mark.parametrize("host", ["a.test", "www.a.test"])
def test_from_to_www(host):
    other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
    result = compiled(*GROUND, ingress("site", rule(host), annotations={"from-to-www-redirect": "true"}))
    assert result.model.servers[host].redirects_from == other
    taken = compiled(
        *GROUND, ingress("site", rule(host), annotations={"from-to-www-redirect": "true"}), ingress("own", rule(other))
    )
    assert taken.model.servers[host].redirects_from == ""
    assert Verdict.IGNORED in verdicts(taken)


@needs_nginx
@pytest.mark.parametrize(
    "objects",
    [
        [ingress("site", rule(""), annotations={"affinity": "cookie"})],
        [ingress("site", default=backend(), annotations={"affinity": "cookie", "affinity-mode": "persistent"})],
        [ingress("site", rule("a.test"), annotations={"from-to-www-redirect": "true"}), REJECTING],
        [ingress("site", rule("a.test", path("/.well-known/acme-challenge/x")), annotations=TELLING)],
        [
            ingress("site", rule(""), tls=[tls("cert")], annotations={"auth-tls-secret": "ca"}),
            ingress("www", rule("www.a.test"), annotations={"from-to-www-redirect": "true"}),
        ],
    ],
    ids=["cookie-without-host", "cookie-of-a-default-backend", "www-and-no-handshake", "nobody-asked", "tls-of-others"],
)
def test_nginx_takes_what_comes_together(objects, tmp_path):
    assert refusal(compiled(*GROUND, *NAMED, *objects, served=True).configuration, tmp_path / "nginx") == ""


def test_an_auth_server_over_tls_has_connections_of_its_own():
    result = compiled(
        *GROUND,
        site(auth_url="https://api.default.svc.cluster.local:80/check"),
        ingress("api", rule("api.test", path(to="api")), annotations={"backend-protocol": "HTTPS"}),
    )
    assert "proxy_ssl_name api.default.svc.cluster.local;" in text_of(result)
    assert len([name for name in result.model.upstreams if name.startswith("default.api.80.")]) == 2


def test_retries_of_all_hosts_hold_where_other_failures_count():
    result = compiled(*GROUND, site(proxy_next_upstream="error http_502"), settings_map(retry_non_idempotent="true"))
    assert "proxy_next_upstream error http_502 non_idempotent;" in text_of(result)


def test_hosts_that_say_the_same_share_the_variables_it_takes():
    reported = {
        "affinity": "cookie",
        "limit-rps": "5",
        "limit-whitelist": "10.0.0.0/8",
        "enable-cors": "true",
        "cors-allow-origin": "https://app.test",
    }
    hosts = [f"h{number}.test" for number in range(2)]
    result = compiled(*GROUND, *(ingress(host[:2], rule(host), annotations=reported) for host in hosts))
    each, other = (set(re.findall(r'(?m)^(?:map|geo) (?:\S+|".+") (\$\w+)', text_of(result, host))) for host in hosts)
    assert len(each) == 6
    assert each == other


@pytest.mark.parametrize(("text", "is_logged"), [("", False), ("false", False), ("true", True)])
@pytest.mark.parametrize("default_backend", [None, ObjectName("default", "api")])
def test_requests_of_nobody_are_logged_only_if_asked_for(text, is_logged, default_backend):
    keys = {"enable_access_log_for_default_backend": text} if text else {}
    result = compiled(*GROUND, site(), settings_map(**keys), default_backend=default_backend)
    others = text_of(result, "").partition("location / {")[2]
    assert ("access_log off;" not in others) is is_logged
    assert "access_log off;" not in text_of(result)


@pytest.mark.parametrize(
    ("annotations", "target"),
    [
        ({}, "default.web.80"),
        # As in ingress-nginx: the codes of the ConfigMap are for the default backend of all.
        ({"default_backend": "api"}, "default.web.80"),
        ({"default_backend": "api", "custom_http_errors": "404"}, "default.api.80"),
        ({"custom_http_errors": "404"}, "default.web.80"),
        ({"auth_url": "http://api.default.svc.cluster.local/"}, "default.web.80"),
        ({"auth_url": "http://api.default.svc.cluster.local/", "auth_signin": "https://login.test/"}, ""),
    ],
)
def test_whose_errors_are_replaced_by_whom(annotations, target):
    common = ObjectName("default", "web")
    result = compiled(*GROUND, site(**annotations), settings_map(custom_http_errors="404"), default_backend=common)
    (location,) = result.model.servers["site.test"].locations
    errors = location.policy.errors
    assert (errors.target.upstream if errors is not None else "") == target


def test_errors_of_all_without_a_backend_are_reported_once():
    """Not for each Ingress, where nobody can do anything about it."""
    result = compiled(*GROUND, site(), site("other.test"), settings_map(custom_http_errors="404"))
    assert [reason for reason in result.model.reasons if reason.about is not None] == []
    (reason,) = [reason for reason in result.model.reasons if "custom-http-errors" in reason.message]
    assert "--default-backend-service" in reason.message


@pytest.mark.parametrize(
    ("of_all", "own", "are_replaced"),
    [("", "", True), ("true", "", False), ("false", "true", False), ("true", "false", True)],
)
def test_whether_answers_of_backends_are_replaced(of_all, own, are_replaced):
    """Errors of nginx itself are replaced in any case."""
    keys = {"disable_proxy_intercept_errors": of_all} if of_all else {}
    annotations = {"disable_proxy_intercept_errors": own} if own else {}
    common = ObjectName("default", "web")
    result = compiled(
        *GROUND, site(**annotations), settings_map(custom_http_errors="404", **keys), default_backend=common
    )
    assert ("proxy_intercept_errors on;" in text_of(result)) is are_replaced
    assert "error_page 404 =" in text_of(result)


def test_the_settings_leave_answers_that_an_ingress_lists_too():
    result = compiled(
        *GROUND,
        site(custom_http_errors="404"),
        settings_map(disable_proxy_intercept_errors="true"),
        default_backend=ObjectName("default", "web"),
    )
    assert "proxy_intercept_errors on;" not in text_of(result)
    assert "error_page 404 =" in text_of(result)
