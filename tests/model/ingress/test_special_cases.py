"""Special cases of ingress-nginx: paths that are rewritten to themselves, paths that no Ingress names, canaries."""

from __future__ import annotations

import re

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.ir import FixedResponse, Location, MatchKind, ToName, ToUpstream
from rulegen.model.ingress.reasons import Verdict
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    API,
    NAMED,
    WEB,
    backend,
    compiled,
    file_of,
    ingress,
    path,
    refusal,
    reported,
    rule,
    service,
    site,
    text_of,
    tls,
    verdicts,
)

GROUND = (*WEB, *API, *NAMED)


def locations(result, host="site.test") -> dict[str, Location]:
    """Return the locations of a host by the path of their Ingress; `/` is all others where no Ingress names it."""
    return {location.source or location.path: location for location in result.model.servers[host].locations}


# -- paths that are rewritten to themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "annotations", "is_regex", "rewritten"),
    [
        (("/",), {"rewrite-target": "/"}, False, ()),
        (("/app",), {"rewrite-target": "/app"}, False, ()),
        (("/",), {"rewrite-target": "/", "use-regex": "true"}, True, ()),
        (("/", "/api"), {"rewrite-target": "/"}, True, ("/api",)),
        (("/app", "/api"), {"rewrite-target": "/"}, True, ("/app", "/api")),
        (("/app/",), {"rewrite-target": "/app"}, True, ("/app/",)),
        (("/",), {"use-regex": "true"}, True, ()),
        (("/",), {}, False, ()),
    ],
)
@pytest.mark.parametrize("host", ["site.test", ""])
def test_a_path_is_not_rewritten_to_itself(paths, annotations, is_regex, rewritten, host):
    result = compiled(*GROUND, ingress("site", rule(host, *map(path, paths)), annotations=annotations))
    assert result.model.servers[host].is_regex is is_regex
    kinds = {location.kind for location in result.model.servers[host].locations if location.ingress and location.rule}
    assert (MatchKind.REGEX in kinds) is is_regex
    written = {source for source, location in locations(result, host).items() if location.policy.rewrite_target}
    assert written == set(rewritten)


def test_each_host_of_an_ingress_is_looked_at_by_itself():
    rules = rule("site.test", path("/")), rule("other.test", path("/api"))
    result = compiled(*GROUND, ingress("site", *rules, annotations={"rewrite-target": "/"}))
    assert [result.model.servers[host].is_regex for host in ("site.test", "other.test")] == [False, True]


def test_without_a_rewrite_there_is_no_forwarded_prefix():
    result = compiled(*GROUND, site(rewrite_target="/", x_forwarded_prefix="/app"))
    assert "forwarded_prefix" not in text_of(result)
    assert "rewrite" not in text_of(result)


@pytest.mark.parametrize("target", ["/a.b", "/a+b", "/a(b"])
def test_a_path_that_is_its_own_rewrite_is_no_expression(target):
    """An expression of this text would be refused, or match other paths."""
    result = compiled(*GROUND, ingress("site", rule("site.test", path(target)), annotations={"rewrite-target": target}))
    kinds = {location.kind for location in result.model.servers["site.test"].locations}
    assert MatchKind.REGEX not in kinds


def test_equally_long_expressions_are_tried_last_first():
    annotations = {"use-regex": "true"}
    paths = [path(f"/{letter}{rest}") for letter in "ab" for rest in ("[xy]", "[yz]")]
    result = compiled(*GROUND, ingress("site", rule("site.test", *paths), annotations=annotations))
    tried = [location.path for location in result.model.servers["site.test"].locations if location.rule]
    assert tried == ["^/b[yz]", "^/b[xy]", "^/a[yz]", "^/a[xy]"]


# -- paths that no Ingress names ---------------------------------------------------------------------------------------

GUARDS = (
    ({"whitelist-source-range": "192.0.2.0/24"}, "deny all;"),
    ({"denylist-source-range": "192.0.2.0/24"}, "deny 192.0.2.0/24;"),
    ({"auth-type": "basic", "auth-secret": "users"}, "auth_basic_user_file"),
    ({"auth-url": "http://auth.test/"}, "auth_request "),
    ({"limit-rps": "1"}, "limit_req "),
    ({"force-ssl-redirect": "true"}, "return 308"),
    ({"enable-cors": "true"}, "$cors_preflight"),
)


def rest_of(text: str) -> str:
    """Return the block of the location for all paths that nobody named."""
    (block,) = re.findall(r"^ location / \{(?:\n(.*?)^| (.*?)) \}$", text, re.MULTILINE | re.DOTALL)
    return "".join(block)


@pytest.mark.parametrize(("annotations", "written"), GUARDS)
@pytest.mark.parametrize("answer", ["404", "503", "api"])
@needs_nginx
def test_what_is_asked_first_is_asked_for_other_paths_too(annotations, written, answer, tmp_path):
    """The answer is that of the default backend, or of a Service without endpoints: who may have it is the same."""
    own = path("/app") if answer != "503" else path("/", to="nobody")
    changes = {"default_backend": ObjectName("default", "api")} if answer == "api" else {}
    result = compiled(*GROUND, ingress("site", rule("site.test", own), annotations=annotations), **changes)
    block = rest_of(text_of(result))
    assert written in block
    assert ("default.api" if answer == "api" else f"={answer};") in block
    assert f"return {answer}" not in block
    assert refusal(result.configuration, tmp_path / "nginx") == ""


def test_the_oldest_ingress_of_a_host_decides_about_other_paths():
    old = ingress("old", rule("site.test", path("/a")), annotations={"denylist-source-range": "192.0.2.1"})
    new = ingress("new", rule("site.test", path("/b")), created="2026-02-01T00:00:00Z", namespace="other")
    rest = locations(compiled(*GROUND, old, new))["/"]
    assert (rest.ingress, bool(rest.policy.deny)) == (ObjectName("default", "old"), True)


def test_a_redirect_of_a_path_says_nothing_about_others():
    annotations = {"permanent-redirect": "https://new.test/"}
    result = compiled(*GROUND, ingress("site", rule("site.test", path("/old")), annotations=annotations))
    assert "return 404" in rest_of(text_of(result))


def test_paths_of_all_other_hosts_are_nobodys():
    result = compiled(*GROUND, ingress("site", rule("", path("/app")), annotations={"force-ssl-redirect": "true"}))
    rest = locations(result, "")["/"]
    assert (rest.target, rest.ingress, rest.policy.force_ssl_redirect) == (FixedResponse(404), None, False)


def test_other_paths_of_a_closed_ingress_are_closed():
    annotations = {"auth-type": "basic", "auth-secret": "missing"}
    result = compiled(*GROUND, ingress("site", rule("site.test", path("/app")), annotations=annotations))
    assert locations(result)["/"].target == FixedResponse(503)


def test_backend_options_do_not_apply_to_unmatched_paths():
    annotations = {
        "rewrite-target": "/$1",
        "backend-protocol": "HTTPS",
        "affinity": "cookie",
        "x-forwarded-prefix": "/a",
    }
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test", path("/app/(.*)")), annotations=annotations),
        default_backend=ObjectName("default", "api"),
    )
    block = rest_of(text_of(result))
    assert "proxy_pass http://default.api.80;" in block
    assert "rewrite" not in block
    assert "sticky" not in block


def test_a_fixed_response_without_checks_uses_return():
    result = compiled(*GROUND, ingress("site", rule("site.test", path("/app"))))
    assert "try_files" not in text_of(result)
    assert "return 404" in rest_of(text_of(result))


def test_an_ingress_without_rules_sends_nobody_away():
    annotations = {"permanent-redirect": "https://new.test/", "force-ssl-redirect": "true", "rewrite-target": "/x"}
    result = compiled(
        *GROUND,
        ingress("site", annotations={**annotations, "app-root": "/y"}, default=backend(), tls=[tls("cert")]),
    )
    text = result.configuration.files[file_of("")]
    assert "proxy_pass http://default.web.80;" in text
    assert not re.search("return 30|rewrite ", text)
    ignored = {reason.path for reason in reported(result) if reason.verdict is Verdict.IGNORED}
    assert len(ignored) == 4


# -- external names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "target_port", "asked", "expected"),
    [
        (80, 8443, 80, 8443),
        (80, 8443, "http", 8443),
        (80, 0, 80, 80),
        (80, "https", 80, 80),
        (80, 8443, 81, 81),
    ],
)
def test_an_external_name_is_asked_at_the_port_of_its_target(port, target_port, asked, expected):
    ports = (k.ServicePort(name="http", port=port, target_port=target_port),)
    far = service("far", type="ExternalName", cluster_ip="", external_name="far.test", ports=ports)
    target = locations(compiled(*GROUND, far, ingress("site", rule("site.test", path(to="far", port=asked)))))[
        "/"
    ].target
    assert isinstance(target, ToName)
    assert (target.host, target.port) == ("far.test", expected)


@pytest.mark.parametrize("annotation", ["affinity=cookie", "upstream-hash-by=$request_uri", "load-balance=ip_hash"])
def test_what_chooses_an_endpoint_of_a_name_is_reported(annotation):
    key, _, text = annotation.partition("=")
    far = service("far", type="ExternalName", cluster_ip="", external_name="far.test")
    rules = (rule("site.test", path(to="far"), path("/b", to="far")), rule("b.test", path(to="web")))
    result = compiled(*GROUND, far, ingress("site", *rules, annotations={key: text}))
    (reason,) = (reason for reason in result.model.reasons if "ExternalName" in reason.message)
    assert (reason.verdict, key in reason.path) == (Verdict.UNSUPPORTED, True)
    for objects in (
        (*GROUND, far, ingress("site", rules[1], annotations={key: text})),
        (*GROUND, far, ingress("site", *rules, annotations={"load-balance": "round_robin"})),
    ):
        assert not [reason for reason in compiled(*objects).model.reasons if "ExternalName" in reason.message]


@pytest.mark.parametrize("name", ["web", "web.", "web.default.svc.cluster.local"])
def test_a_one_label_external_name_is_a_service_here(name):
    near = service("near", type="ExternalName", cluster_ip="", external_name=name)
    target = locations(compiled(*GROUND, near, ingress("site", rule("site.test", path(to="near")))))["/"].target
    assert target == ToUpstream("default.web.80")


def test_a_one_label_external_name_stays_in_its_namespace():
    near = service("near", type="ExternalName", cluster_ip="", external_name="web", namespace="other")
    site_ = ingress("site", rule("site.test", path(to="near")), namespace="other")
    assert isinstance(locations(compiled(*GROUND, near, site_))["/"].target, ToName)


def test_an_external_name_that_is_itself_leads_nowhere():
    near = service("near", type="ExternalName", cluster_ip="", external_name="near")
    assert isinstance(
        locations(compiled(near, ingress("site", rule("site.test", path(to="near")))))["/"].target, ToName
    )


# -- canaries ----------------------------------------------------------------------------------------------------------


def canary(*rules: k.IngressRule, default: k.IngressBackend | None = None, **annotations: str) -> k.Ingress:
    texts = {"canary": "true", "canary-weight": "50", **{key.replace("_", "-"): v for key, v in annotations.items()}}
    return ingress("canary", *rules, annotations=texts, default=default, created="2026-02-01T00:00:00Z")


def test_a_canary_without_rules_joins_the_default_backend():
    main = ingress("main", default=backend("web"))
    rest = locations(compiled(*GROUND, main, canary(default=backend("api"))), "")["/"]
    assert [share.target for share in rest.canaries] == [ToUpstream("default.api.80")]


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ((), "no main Ingress"),
        ((ingress("main", default=backend("web"), namespace="other"),), "another namespace"),
        ((ingress("main", default=backend("none")),), "cannot share"),
    ],
)
def test_a_default_backend_that_a_canary_cannot_join_is_reported(objects, why):
    other = (service("web", namespace="other"),)
    result = compiled(*GROUND, *other, *objects, canary(default=backend("api")))
    assert any(why in reason.message for reason in reported(result, "default/canary"))


def test_a_canary_with_rules_does_not_join_a_default_backend():
    main = ingress("main", rule("site.test", path("/")))
    result = compiled(*GROUND, main, canary(rule("site.test", path("/", to="api")), default=backend("api")))
    (share,) = locations(result)["/"].canaries
    assert share.target == ToUpstream("default.api.80")
    assert verdicts(result, "default/canary") == {Verdict.IGNORED}


def test_a_canary_of_the_root_joins_the_default_backend():
    main = ingress("main", rule("site.test", path("/app")), default=backend("web"))
    result = compiled(*GROUND, main, canary(rule("site.test", path("/", to="api"))))
    assert [len(locations(result)[source].canaries) for source in ("/", "/app")] == [1, 0]


@pytest.mark.parametrize(
    ("annotations", "target"),
    [
        ({}, "default.api.80"),
        ({"load_balance": "least_conn"}, "default.api.80.least"),
        ({"service_upstream": "true"}, "default.api.80.vip"),
    ],
)
def test_a_canary_picks_its_servers_in_its_own_way(annotations, target):
    main = site(load_balance="ip_hash")
    result = compiled(*GROUND, main, canary(rule("site.test", path(to="api")), **annotations))
    assert [share.target for share in locations(result)["/"].canaries] == [ToUpstream(target)]


@pytest.mark.parametrize(("behavior", "keeps"), [("sticky", True), ("legacy", False), ("", True)])
@pytest.mark.parametrize("mode", ["balanced", "persistent"])
@needs_nginx
def test_a_cookie_keeps_clients_at_a_canary(behavior, keeps, mode, tmp_path):
    main = site(affinity="cookie", affinity_mode=mode)
    own = {"affinity_canary_behavior": behavior} if behavior else {}
    result = compiled(*GROUND, main, canary(rule("site.test", path(to="api")), **own))
    (share,) = locations(result)["/"].canaries
    assert isinstance(share.target, ToUpstream)
    assert (result.model.upstreams[share.target.upstream].sticky is not None) is keeps
    assert refusal(result.configuration, tmp_path / "nginx") == ""


def test_affinity_canary_behavior_does_not_affect_the_main():
    result = compiled(*GROUND, site(affinity="cookie", affinity_canary_behavior="legacy"))
    assert verdicts(result) == {Verdict.IGNORED}


@pytest.mark.parametrize("number", [0, 1])
def test_a_canary_without_condition_or_main_gets_nothing(number):
    mains = [ingress("main", rule("site.test", path("/")))][:number]
    alone = ingress("canary", rule("site.test", path("/", to="api")), annotations={"canary": "true"})
    result = compiled(*GROUND, *mains, alone)
    assert ("site.test" in result.model.servers) is bool(number)
    assert [share.share for server in result.model.servers.values() for share in canaries_of(server)] == [0.0] * number


def canaries_of(server):
    return [share for location in server.locations for share in location.canaries]


@pytest.mark.parametrize(
    ("kind", "text", "joins"),
    [("Prefix", "/", True), ("Exact", "/", False), ("Prefix", "/x", False), ("ImplementationSpecific", "/", True)],
)
def test_a_canary_joins_the_path_of_its_text_and_type(kind, text, joins):
    main = ingress("main", rule("site.test", path("/")))
    result = compiled(*GROUND, main, canary(rule("site.test", path(text, kind, to="api"))))
    assert bool(canaries_of(result.model.servers["site.test"])) is joins
    assert (verdicts(result, "default/canary") == {Verdict.IGNORED}) is not joins


def test_other_annotations_of_canaries_make_no_canary():
    result = compiled(*GROUND, site(canary_weight="50", canary_by_header="X-Try"))
    assert not canaries_of(result.model.servers["site.test"])
    assert "proxy_pass http://default.web.80;" in text_of(result)


def test_a_canary_gives_its_host_no_certificate():
    main = ingress("main", rule("site.test", path("/")))
    other = ingress(
        "canary", rule("site.test", path("/", to="api")), annotations={"canary": "true"}, tls=[tls("cert", "site.test")]
    )
    server = compiled(*GROUND, main, other).model.servers["site.test"]
    assert (server.certificate, server.has_tls) == ("", False)


@pytest.mark.parametrize(
    ("annotations", "written"),
    [
        ({"affinity": "cookie", "upstream-hash-by": "$request_uri", "load-balance": "ip_hash"}, "hash $key_"),
        ({"upstream-hash-by": "$request_uri", "load-balance": "ip_hash"}, "hash $request_uri"),
        ({"load-balance": "ip_hash"}, "ip_hash;"),
    ],
)
def test_cookie_has_priority_over_hash_and_balancing(annotations, written):
    result = compiled(*GROUND, ingress("site", rule("site.test"), annotations=annotations))
    (target,) = {location.target for location in result.model.servers["site.test"].locations if location.rule}
    assert isinstance(target, ToUpstream)
    blocks = re.findall(
        rf"upstream {re.escape(target.upstream)} \{{(.*?)\n\}}",
        "\n".join(result.configuration.files.values()),
        re.DOTALL,
    )
    assert [written in block for block in blocks] == [True]


def test_expressions_without_a_path_of_the_cookie_are_reported():
    result = compiled(*GROUND, site(affinity="cookie", use_regex="true"))
    assert any("session-cookie-path" in reason.message for reason in reported(result))


# -- what nothing comes of ---------------------------------------------------------------------------------------------


def test_an_exact_path_is_the_beginning_of_paths_where_paths_are_expressions():
    owner = ingress("site", rule("site.test", path("/app", "Exact")), annotations={"use-regex": "true"})
    location = locations(compiled(*GROUND, owner))["/app"]
    assert location.kind is MatchKind.REGEX
    assert re.match(location.path, "/app/below")


def test_a_canary_of_the_same_service_sends_requests_nowhere_else():
    main = ingress("main", rule("site.test", path("/")))
    result = compiled(*GROUND, main, canary(rule("site.test", path("/"))))
    own = locations(result)["/"]
    assert isinstance(own.target, ToUpstream)
    targets = [share.target.upstream for share in own.canaries if isinstance(share.target, ToUpstream)]
    assert {result.model.upstreams[target].servers for target in targets} == {
        result.model.upstreams[own.target.upstream].servers
    }


def test_an_invalid_affinity_mode_is_balanced_and_reported():
    result = compiled(*GROUND, site(affinity="cookie", affinity_mode="forever"))
    assert verdicts(result) == {Verdict.IGNORED}
    target = locations(result)["/"].target
    assert isinstance(target, ToUpstream)
    assert (sticky := result.model.upstreams[target.upstream].sticky) is not None
    assert not sticky.is_persistent


@pytest.mark.parametrize("change", [{"load-balance": "ewma"}, {"affinity": "cookie"}, {"upstream-hash-by": "$host"}])
def test_another_way_to_pick_servers_of_one_service_leaves_the_others_as_they_are(change):
    other = ingress("other", rule("other.test", path("/", to="api")))
    before, after = (
        compiled(*GROUND, other, ingress("site", rule("site.test"), annotations=annotations)).model.upstreams
        for annotations in ({}, change)
    )
    target = locations(compiled(*GROUND, other), "other.test")["/"].target
    assert isinstance(target, ToUpstream)
    assert before[target.upstream] == after[target.upstream]
    assert before != after
