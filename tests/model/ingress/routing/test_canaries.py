"""Which requests a canary gets: what it joins, what its values mean, and what it does not do to others."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rulegen.kube.objects import structs as k
from rulegen.model.ingress.ir import FixedResponse, Location, ToName, ToUpstream
from rulegen.model.ingress.reasons import Verdict
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    API,
    NAMED,
    OPTIONS,
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
    site,
    text_of,
    verdicts,
)

FAR = service("far", type="ExternalName", cluster_ip="", external_name="far.test", ports=())
NEAR = service("near", type="ExternalName", cluster_ip="", external_name="near.test", ports=())
GROUND = (*WEB, *API, *NAMED, FAR, NEAR)
OLD, YOUNG = "2025-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def canary(
    *rules: k.IngressRule,
    default: k.IngressBackend | None = None,
    name: str = "canary",
    created: str = YOUNG,
    namespace: str = "default",
    **annotations: str,
) -> k.Ingress:
    texts = {"canary": "true", "canary-weight": "50", **{key.replace("_", "-"): v for key, v in annotations.items()}}
    return ingress(name, *rules, annotations=texts, default=default, created=created, namespace=namespace)


def shares(result, host="site.test") -> dict[str, list[str]]:
    """Return the targets of canaries by the path of their location, as written in its Ingress."""
    return {
        location.source or location.path: [
            share.target.upstream if isinstance(share.target, ToUpstream) else share.target.host
            for share in location.canaries
        ]
        for location in result.model.servers[host].locations
    }


def root(result, host="site.test") -> Location:
    return next(each for each in result.model.servers[host].locations if each.source == "/")


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("main", ["web", "far"])
@pytest.mark.parametrize("other", ["api", "near"])
@pytest.mark.parametrize("annotations", [{}, {"backend-protocol": "HTTPS"}, {"affinity": "cookie"}])
@needs_nginx
def test_a_canary_and_its_main_may_be_external_names(main, other, annotations, tmp_path):
    first = ingress("site", rule("site.test", path(to=main)), annotations=annotations)
    result = compiled(*GROUND, first, canary(rule("site.test", path(to=other))))
    (share,) = root(result).canaries
    assert isinstance(root(result).target, ToName if main == "far" else ToUpstream)
    assert isinstance(share.target, ToName if other == "near" else ToUpstream)
    assert share.share == 50
    text = text_of(result)
    assert [name in text for name in ("far.test:80", "near.test:80")] == [main == "far", other == "near"]
    assert refusal(result.configuration, tmp_path / "nginx") == ""


@pytest.mark.parametrize(("main", "other"), [("web", "near"), ("far", "api"), ("far", "near")])
def test_a_cookie_that_cannot_keep_clients_at_a_name_is_reported(main, other):
    first = ingress("site", rule("site.test", path(to=main)), annotations={"affinity": "cookie"})
    result = compiled(*GROUND, first, canary(rule("site.test", path(to=other))))
    (share,) = root(result).canaries
    assert share.share == 50
    assert verdicts(result, "default/canary") == {Verdict.UNSUPPORTED}


def test_without_external_names_a_canary_that_is_one_gets_nothing():
    result = compiled(*GROUND, site(), canary(rule("site.test", path(to="far"))), refuses_names=True)
    assert shares(result) == {"/": []}
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}


@pytest.mark.parametrize(("port", "strict"), [(80, True), (8080, False), (8443, False)])
def test_one_name_on_another_port_than_nginxs_gives_all_the_strict_resolver(port, strict):
    """At nginx's own ports a name may be this node, since loops are detected there."""
    host = replace(OPTIONS.host, names_port=5353)
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test", path(to="far", port=8080))),
        canary(rule("site.test", path(to="near", port=port))),
        host=host,
    )
    assert ("resolver 127.0.0.2:5353" in text_of(result)) is strict


def test_only_names_are_sent_as_server_names():
    main = site(backend_protocol="HTTPS")
    text = text_of(compiled(*GROUND, main, canary(rule("site.test", path(to="far")))))
    (name,) = {word for word in text.split() if word.startswith("$sni_") and word.endswith(";")}
    assert f"proxy_ssl_name {name}" in text
    entries = text[text.index(f" {name.rstrip(';')} {{") :].partition("}")[0].split("\n")[1:]
    assert [entry.strip() for entry in entries if entry.strip()] == ['default "";', "far.test:80 far.test;"]


# -- what a canary joins -----------------------------------------------------------------------------------------------


def test_a_default_backend_joins_all_paths_without_host():
    main = ingress("main", rule("", path("/app"), path("/exact", "Exact")), rule("site.test", path("/")))
    result = compiled(*GROUND, main, canary(default=backend("api")))
    assert shares(result, "") == {"/app": ["default.api.80"] * 1, "/exact": ["default.api.80"], "/": []}
    assert shares(result) == {"/": []}
    assert verdicts(result, "default/canary") == set()


def test_a_default_backend_joins_paths_without_host_and_the_default_backend():
    mains = ingress("main", rule("", path("/app"))), ingress("rest", default=backend("web"))
    result = compiled(*GROUND, *mains, canary(default=backend("api")))
    assert shares(result, "") == {"/app": ["default.api.80"], "/": ["default.api.80"]}


@pytest.mark.parametrize("main", [ingress("main", rule("", path("/"))), ingress("main", default=backend("web"))])
def test_a_default_backend_beside_rules_joins_too(main):
    beside = canary(rule("site.test", path("/", to="api")), default=backend("api"))
    result = compiled(*GROUND, site(), main, beside)
    assert (shares(result), shares(result, "")) == ({"/": ["default.api.80"]}, {"/": ["default.api.80"]})
    assert verdicts(result, "default/canary") == set()


def test_a_default_backend_joins_no_path_of_another_namespace():
    other = (service("web", namespace="other"), endpoints("web", ("10.244.9.9",), namespace="other"))
    main = ingress("main", rule("", path("/app")), namespace="other")
    result = compiled(*GROUND, *other, main, canary(default=backend("api")))
    assert shares(result, "") == {"/app": [], "/": []}
    (reason,) = reported(result, "default/canary")
    assert (reason.verdict, reason.path) == (Verdict.IGNORED, "spec.defaultBackend")
    assert "another namespace" in reason.message


def test_a_default_backend_joins_none_of_a_host():
    main = ingress("main", rule("site.test", path("/app")), default=backend("web"))
    result = compiled(*GROUND, main, canary(default=backend("api")))
    assert (shares(result), shares(result, "")) == ({"/app": [], "/": []}, {"/": []})
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}


def test_a_rule_without_host_for_the_root_joins_the_default_backend():
    result = compiled(
        *GROUND, ingress("main", default=backend("web")), canary(rule("", path("/", to="api"), path("/x", to="api")))
    )
    assert shares(result, "") == {"/": ["default.api.80"]}


@pytest.mark.parametrize("host", ["", "site.test"])
def test_what_no_ingress_serves_is_joined_by_none(host):
    """The general default backend answers there."""
    main = ingress("main", rule(host, path("/app")))
    result = compiled(*GROUND, main, canary(rule(host, path("/", to="api"))))
    assert shares(result, host)["/"] == []
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}


def test_a_main_without_endpoints_answers_503_whatever_its_canary_has():
    main = ingress("site", rule("site.test", path(to="nobody")))
    result = compiled(*GROUND, service("nobody"), main, canary(rule("site.test", path(to="api"))))
    assert root(result).target == FixedResponse(503)
    assert shares(result) == {"/": []}
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}


def test_a_canary_shares_what_a_default_backend_gets_in_place_of_its_main():
    main = ingress("site", rule("site.test", path(to="nobody")), annotations={"default-backend": "web"})
    result = compiled(*GROUND, service("nobody"), main, canary(rule("site.test", path(to="api"))))
    assert root(result).target == ToUpstream("default.web.80")
    assert shares(result) == {"/": ["default.api.80"]}


def test_an_empty_path_joins_the_root():
    result = compiled(*GROUND, site(), canary(rule("site.test", path("", "ImplementationSpecific", to="api"))))
    assert shares(result) == {"/": ["default.api.80"]}


def test_a_path_that_no_main_has_takes_nothing_from_the_others():
    rules = rule("site.test", path("/", to="api"), path("/new", to="api")), rule("new.test", path("/", to="api"))
    result = compiled(*GROUND, site(), canary(*rules))
    assert shares(result) == {"/": ["default.api.80"]}
    assert "new.test" not in result.model.servers
    assert [reason.path for reason in reported(result, "default/canary")] == [
        "spec.rules[0].http.paths[1]",
        "spec.rules[1].http.paths[0]",
    ]


def test_a_rule_without_http_joins_nothing():
    result = compiled(*GROUND, site(), canary(k.IngressRule(host="site.test")))
    assert shares(result) == {"/": []}


@pytest.mark.parametrize("created", [OLD, YOUNG])
def test_a_service_that_a_canary_names_serves_paths_of_other_ingresses(created):
    others = ingress("other", rule("other.test", path("/", to="api")))
    result = compiled(*GROUND, site(), others, canary(rule("site.test", path("/", to="api")), created=created))
    assert root(result, "other.test").target == ToUpstream("default.api.80")
    assert shares(result) == {"/": ["default.api.80"]}


@pytest.mark.parametrize("created", [OLD, YOUNG])
def test_a_canary_may_be_older_than_its_main(created):
    result = compiled(*GROUND, site(), canary(rule("site.test", path("/", to="api")), created=created))
    assert shares(result) == {"/": ["default.api.80"]}
    assert root(result).target == ToUpstream("default.web.80")


def test_two_canaries_of_one_service_have_their_own_shares():
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test", path("/a"), path("/b"))),
        canary(rule("site.test", path("/a", to="api")), name="first", created=OLD, canary_weight="10"),
        canary(rule("site.test", path("/b", to="api")), name="second", canary_weight="90"),
    )
    given = {each.source: each.canaries for each in result.model.servers["site.test"].locations if each.canaries}
    assert {source: canaries[0].share for source, canaries in given.items()} == pytest.approx({"/a": 10, "/b": 90})


def test_a_path_of_a_canary_is_never_an_ordinary_path():
    """Not even if an older Ingress has the canary's Service."""
    others = ingress("other", rule("other.test", path("/", to="api")), created=OLD)
    result = compiled(*GROUND, site(), others, canary(rule("site.test", path("/new", to="api"))))
    assert shares(result) == {"/": []}


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "total", "share", "noted"),
    [
        ("20", "0", 20, True),
        ("20", "-5", 20, True),
        ("20", "99", 20, True),
        ("20", "+100", 20, False),
        ("20", "200", 10, False),
        ("500", "100", 100, False),
        ("-1", "100", 0, True),
        ("-1", "-1", 0, True),
        ("007", "100", 7, False),
        ("2000000000", "2000000000", 100, False),
        ("1000000000", "2000000000", 50, False),
    ],
)
def test_any_whole_number_is_a_weight(weight, total, share, noted):
    result = compiled(
        *GROUND, site(), canary(rule("site.test", path(to="api")), canary_weight=weight, canary_weight_total=total)
    )
    assert [each.share for each in root(result).canaries] == [pytest.approx(share)]
    assert verdicts(result, "default/canary") == ({Verdict.NOTE} if noted else set())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("canary", "yes"),
        ("canary_weight", "x"),
        ("canary_weight", ""),
        ("canary_weight", "99999999999"),
        ("canary_weight_total", "x"),
        ("canary_by_header", "X Try"),
        ("canary_by_header", "X-Try\n"),
        ("canary_by_header_value", "é"),
        ("canary_by_header_value", "a\nb"),
        ("canary_by_cookie", "a b"),
        ("canary_by_cookie", "a;b"),
        ("canary_by_cookie", "a=b"),
    ],
)
def test_an_invalid_value_of_a_canary_rejects_it_alone(name, text):
    annotations = {"canary_by_header": "X-Try", name: text}
    result = compiled(*GROUND, site(), canary(rule("site.test", path(to="api"), path("/new", to="api")), **annotations))
    assert not any(shares(result).values())
    assert root(result).target == ToUpstream("default.web.80")
    assert Verdict.REJECTED in verdicts(result, "default/canary")
    assert verdicts(result) == set()


@pytest.mark.parametrize("name", ["canary_by_header_value", "canary_by_header_pattern"])
def test_what_a_header_must_say_means_nothing_without_its_name(name):
    result = compiled(*GROUND, site(), canary(rule("site.test", path(to="api")), **{name: "x"}))
    assert [share.header for share in root(result).canaries] == [""]
    assert "$http_" not in text_of(result)
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}


@pytest.mark.parametrize(("pattern", "unread"), [("^a, b#%$", False), ("(", True), ("(?<=a)b", True), ("(a+)+", True)])
def test_an_invalid_pattern_gives_requests_with_the_header_to_the_main(pattern, unread):
    other = canary(rule("site.test", path(to="api")), canary_by_header="X-Try", canary_by_header_pattern=pattern)
    (share,) = root(compiled(*GROUND, site(), other)).canaries
    assert (share.is_header_unreadable, share.header_pattern) == (unread, "" if unread else pattern)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("app_root", "nowhere"),
        ("permanent_redirect", "ftp://x"),
        ("temporal_redirect", "ftp://x"),
        ("rewrite_target", "http://x"),
        ("proxy_body_size", "much"),
    ],
)
def test_an_invalid_annotation_that_means_nothing_to_a_canary_is_only_reported(name, text):
    result = compiled(*GROUND, site(), canary(rule("site.test", path(to="api")), **{name: text}))
    assert shares(result) == {"/": ["default.api.80"]}
    (reason,) = reported(result, "default/canary")
    assert (reason.verdict, name.replace("_", "-") in reason.path) == (Verdict.IGNORED, True)


@pytest.mark.parametrize("canaries", ["false", "0", "yes"])
def test_but_it_rejects_an_ordinary_ingress(canaries):
    result = compiled(*GROUND, site(canary=canaries, app_root="nowhere"))
    assert "site.test" not in result.model.servers
    assert Verdict.REJECTED in verdicts(result)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("whitelist_source_range", "nowhere"),
        ("denylist_source_range", "nowhere"),
        ("auth_url", "ftp://x"),
        ("auth_type", "none"),
        ("limit_rps", "x"),
        ("custom_headers", "missing"),
    ],
)
def test_an_invalid_annotation_that_protects_closes_a_canary(name, text):
    result = compiled(*GROUND, site(), canary(rule("site.test", path(to="api")), **{name: text}))
    assert shares(result) == {"/": []}
    assert root(result).target == ToUpstream("default.web.80")
    assert Verdict.CLOSED in verdicts(result, "default/canary")


def test_tls_to_backends_is_decided_by_the_main():
    main = site(backend_protocol="HTTPS")
    result = compiled(*GROUND, main, canary(rule("site.test", path(to="api")), proxy_ssl_secret="upstream"))
    assert shares(result)["/"] != []
    assert root(result).policy.proxy_ssl is None
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}
