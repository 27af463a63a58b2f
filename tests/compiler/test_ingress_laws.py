"""Laws of the whole compiler: what may change when something changes, and what never shows."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.backends.nginx import configuration as nginx
from rulegen.compiler.ingress.nginx import NginxSite
from rulegen.kube.objects import structs as k
from rulegen.languages.nginx.main_file import MAIN
from rulegen.languages.nginx.text import format_nodes
from rulegen.plan import show
from rulegen.plan.nginx import plan_site
from rulegen.plan.plan import Plan, with_site
from rulegen.plan.show import Report
from tests.sizes import examples
from tests.strategies.ingresses import (
    API,
    HTPASSWD,
    NAMED,
    backend,
    compiled,
    endpoints,
    file_of,
    ingress,
    key_pem,
    path,
    rule,
    secret,
    service,
    settings_map,
    site,
    text_of,
    tls,
    tls_secret,
    verdicts,
)

BARE = (service("web"), *API, *NAMED, service("empty"))
GROUND = (*BARE, endpoints("web"))
ANNOTATIONS = (
    {},
    {"auth-type": "basic", "auth-secret": "users"},
    {"auth-url": "http://api.default.svc/check", "auth-signin": "https://$host/in"},
    {"enable-cors": "true", "cors-allow-origin": "https://a.test, https://*.b.test"},
    {"affinity": "cookie"},
    {"upstream-hash-by": "$request_uri"},
    {"limit-rps": "3", "limit-allowlist": "10.0.0.0/8"},
    {"allowlist-source-range": "10.0.0.0/8", "denylist-source-range": "10.1.0.0/16"},
    {"permanent-redirect": "https://else.test/"},
    {"custom-http-errors": "404,503", "default-backend": "api"},
    {"canary": "true", "canary-weight": "10"},
    {"canary": "true", "canary-by-header": "X-Canary"},
    {"auth-tls-secret": "ca"},
    {"backend-protocol": "HTTPS", "proxy-ssl-secret": "upstream"},
    {"auth-secret": "nope", "auth-type": "basic"},
    {"app-root": "/app"},
    {"no-such-thing": "x"},
    {"permanent-redirect": "nonsense"},
)
POD_IPS = (("10.244.1.5", "10.244.2.6"), ("10.244.9.9",), ())
SETTINGS = (settings_map(), settings_map(proxy_read_timeout="9"), settings_map(hsts="false"))
hosts = st.sampled_from(("a.test", "b.test", "c.test", "*.a.test", ""))


@st.composite
def ingresses(draw: st.DrawFn) -> list[k.Ingress]:
    result = []
    for number in range(draw(st.integers(1, 6))):
        host = draw(hosts)
        paths = [
            path(draw(st.sampled_from(("/", "/a", "/a/b"))), draw(st.sampled_from(("Prefix", "Exact"))), to)
            for to in draw(st.lists(st.sampled_from(("web", "api", "empty", "gone")), min_size=1, max_size=3))
        ]
        result.append(
            ingress(
                f"i{number}",
                rule(host, *paths),
                annotations=draw(st.sampled_from(ANNOTATIONS)),
                created=draw(st.sampled_from((None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"))),
                tls=[tls(draw(st.sampled_from(("cert", "gone"))), host)] if host and draw(st.booleans()) else (),
                default=backend("api") if draw(st.booleans()) else None,
            )
        )
    return result


laws = settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])


DEFAULT = "secrets/00000000000000000000000000000000.pem"
CLOSED = " location / { return 503; }\n"
"""The only location of a host whose Ingresses are all left out."""


@laws
@given(ingresses(), st.randoms(use_true_random=False))
def test_the_order_of_objects_means_nothing(result, chance):
    first = compiled(*GROUND, *result, served=True)
    shuffled = [*GROUND, *result]
    chance.shuffle(shuffled)
    second = compiled(*shuffled, served=True)
    assert first.configuration == second.configuration
    assert first.model.reasons == second.model.reasons


@laws
@given(ingresses())
def test_what_is_served_already_compiles_to_itself(result):
    first = compiled(*GROUND, *result, served=True)
    second = compiled(*GROUND, *result, served=True, live=first.configuration.files)
    assert second.configuration == first.configuration
    assert not plan_site(first.configuration, second.configuration, second.names).reload


@pytest.mark.not_quick
@laws
@given(st.lists(st.tuples(ingresses(), st.sampled_from(POD_IPS), st.sampled_from(SETTINGS)), min_size=2, max_size=4))
def test_whatever_was_before_a_world_compiles_to_the_same(worlds):
    before = None
    for result, addresses, reported in worlds:
        objects = (*BARE, endpoints("web", addresses), *result, reported)
        after = compiled(*objects, served=True, before=before)
        alone = compiled(*objects, served=True)
        assert after == alone
        assert [each.decisions for each in after.fragments] == [each.decisions for each in alone.fragments]
        before = after


@laws
@given(ingresses(), st.data())
def test_an_ingress_that_goes_changes_its_own_hosts_alone(result, data):
    gone = data.draw(st.sampled_from(result))
    before = compiled(*GROUND, *result, served=True)
    after = compiled(*GROUND, *(each for each in result if each is not gone), served=True)
    own = {file_of(each.host) for each in gone.spec.rules} | {file_of("")}
    # Where a rule without host asks clients for certificates, all others name the default certificate themselves.
    names_default = any(not each.host for each in gone.spec.rules)

    def only_closes(site, name):
        """Say whether the host is there only because a rule without host would answer for it."""
        return names_default and CLOSED in site.configuration.files[name]

    def of(site, name):
        lines = site.configuration.files.get(name, "").splitlines()
        return [
            each for each in lines if not (names_default and each.startswith(" ssl_certificate") and DEFAULT in each)
        ]

    for name in before.configuration.files.keys() | after.configuration.files.keys():
        if of(before, name) != of(after, name):
            goes = name not in after.configuration.files and only_closes(before, name)
            assert goes or name == MAIN or name in own or name.startswith("upstreams/"), name


@laws
@given(ingresses())
def test_what_nobody_decides_by_changes_no_byte(result):
    noisy = [
        msgspec.structs.replace(
            each,
            metadata=msgspec.structs.replace(
                each.metadata,
                uid="8d7c",
                labels={"app": "x"},
                annotations={**each.metadata.annotations, "kubectl.kubernetes.io/x": "y"},
            ),
        )
        for each in result
    ]
    assert compiled(*GROUND, *result, served=True).configuration == compiled(*GROUND, *noisy, served=True).configuration


@laws
@given(ingresses())
def test_files_refer_to_what_is_there_and_secrets_show_nowhere(result):
    done = compiled(*GROUND, *result, served=True)
    texts = "".join(done.configuration.files.values())
    assert set(re.findall(r"secrets/[0-9a-f]+\.[a-z]+", texts)) <= set(done.configuration.secrets)
    passed = set(re.findall(r"(?:proxy|grpc|fastcgi)_pass (?:\w+://)?(default\.[^\s/;]+)", texts))
    assert passed <= set(re.findall(r"^upstream (\S+)", texts, re.MULTILINE))
    assert no_secret_in(everything_shown(done))


def everything_shown(done: NginxSite) -> str:
    """Return all text that leaves the program by plan, export and errors."""
    plan = with_site(Plan(), plan_site(None, done.configuration, done.names))
    report = Report(node="n", mode="iptables", observed="nothing", reasons=done.model.reasons, site="x")
    return "\n".join(
        [
            *done.configuration.files.values(),
            *show.text(plan, report, colour=False),
            msgspec.json.encode(show.json_document(plan, report)).decode(),
            repr(done),
            repr(done.configuration),
            repr(done.provenance),
        ]
    )


def no_secret_in(text: str) -> bool:
    hidden = [*key_pem().decode().splitlines()[1:-1], HTPASSWD.decode().strip(), "PRIVATE KEY"]
    return not any(part in text for part in hidden)


SECRET = "Pa55word-Canary"


@pytest.mark.parametrize(
    "broken",
    [
        secret("cert", tls_crt=SECRET.encode(), tls_key=SECRET.encode()),
        secret("cert", tls_crt=b"", tls_key=SECRET.encode()),
        secret("cert", tls_key=f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n".encode()),
        secret("users", auth=f"{SECRET}\n".encode()),
        secret("users", auth=f"a:{SECRET}\nx {SECRET}".encode()),
        secret("users", auth=f"{SECRET}é".encode()),
        secret("users", **{SECRET: b"x"}),
        secret("ca", ca_crt=SECRET.encode()),
        secret("upstream", tls_crt=SECRET.encode(), tls_key=SECRET.encode(), ca_crt=SECRET.encode()),
    ],
)
def test_an_invalid_secret_is_reported_without_its_content(broken):
    ground = [each for each in GROUND if each.metadata.name != broken.metadata.name or not isinstance(each, k.Secret)]
    reported = {"auth-type": "basic", "auth-secret": "users", "auth-tls-secret": "ca", "proxy-ssl-secret": "upstream"}
    done = compiled(
        *ground,
        broken,
        ingress("site", rule("site.test"), annotations=reported, tls=[tls("cert", "site.test")]),
        served=True,
    )
    assert verdicts(done)
    assert SECRET not in everything_shown(done)
    assert SECRET.encode() not in b"".join(file.content for file in done.configuration.secrets.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"proxy_read_timeout": "7"}),
        ({}, {"limit_rps": "7"}),
        ({}, {"enable_cors": "true"}),
        ({"proxy_body_size": "1m"}, {"proxy_body_size": "2m"}),
        ({}, {"auth_type": "basic", "auth_secret": "users"}),
        ({}, {"affinity": "cookie"}),
    ],
)
def test_one_host_changes_its_file_and_the_digest(before, after):
    others = [ingress(f"o{number}", rule(f"o{number}.test")) for number in range(20)]
    first = compiled(*GROUND, *others, site(**before), served=True).configuration
    second = compiled(*GROUND, *others, site(**after), served=True).configuration
    assert {name for name in first.files if first.files[name] != second.files.get(name)} == {file_of("site.test"), MAIN}
    lines = [
        pair
        for pair in zip(first.files[MAIN].splitlines(), second.files[MAIN].splitlines(), strict=True)
        if pair[0] != pair[1]
    ]
    assert len(lines) == 1
    assert first.digest in lines[0][0]
    assert second.digest in lines[0][1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param([site(proxy_read_timeout="7"), endpoints("web")], id="annotation"),
        pytest.param([site(affinity="cookie"), endpoints("web")], id="upstream of its own"),
        pytest.param([ingress("site", rule("site.test", path("/new"))), endpoints("web")], id="path"),
        pytest.param([site(), endpoints("web", ("10.244.9.9",))], id="endpoints"),
    ],
)
def test_of_one_change_one_file_is_compiled_and_rendered(change, monkeypatch):
    others = [ingress(f"o{number}", rule(f"o{number}.test"), annotations={"limit-rps": "3"}) for number in range(9)]
    before = compiled(*GROUND, *others, site(), served=True)
    rendered = []
    monkeypatch.setattr(nginx, "format_nodes", lambda nodes: rendered.append(nodes) or format_nodes(nodes))
    after = compiled(*BARE, *others, *change, served=True, before=before)
    known = {id(each) for each in before.fragments}
    (anew,) = (each for each in after.fragments if id(each) not in known)
    assert rendered == [anew.nodes]
    texts = before.configuration.files
    assert {name for name, text in after.configuration.files.items() if texts[name] != text} == {anew.path, MAIN}


def test_new_endpoints_change_the_file_of_their_service_alone():
    first = compiled(*GROUND, site(), served=True).configuration
    moved = [
        each for each in GROUND if not isinstance(each, k.EndpointSlice) or not each.metadata.name.startswith("web")
    ]
    second = compiled(*moved, endpoints("web", ("10.244.9.9",)), site(), served=True).configuration
    changed = {name for name in first.files if first.files[name] != second.files[name]}
    assert MAIN in changed
    assert {name.partition("/")[0] for name in changed - {MAIN}} == {"upstreams"}
    assert len(changed) == 2


def test_a_new_host_leaves_what_all_share_as_it_is():
    first = compiled(*GROUND, site(), served=True).configuration
    second = compiled(*GROUND, site(), site("new.test"), served=True).configuration
    assert text_of_main(first) == text_of_main(second)


def text_of_main(configuration: object) -> str:
    return re.sub(r"\b[0-9a-f]{32}\b", "", configuration.files[MAIN])


def test_another_certificate_changes_nothing_but_where_it_lies():
    each = ingress("site", rule("site.test"), tls=[tls("own", "site.test")])
    first = compiled(*GROUND, each, tls_secret("own", "site.test"))
    second = compiled(*GROUND, each, tls_secret("own", "site.test", "other.test"))
    before, after = (re.sub(r"secrets/[0-9a-f]{32}", "", text_of(result)) for result in (first, second))
    assert before == after
    assert set(first.configuration.secrets) != set(second.configuration.secrets)
