"""Whatever stands in a field: the files say what was meant, or the field is named; nobody else is harmed."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.errors import ConfigError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.nginx.parser import parse
from rulegen.languages.nginx.tree import Directive, Node
from rulegen.model.ingress.ir import FixedResponse, Location
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.values import settings as declared
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.annotations.unsupported import UNSUPPORTED
from rulegen.model.ingress.values.setting import SettingGuard
from tests.languages.test_nginx_check import meaning, meaning_to_crossplane, without_parentheses
from tests.rights import needs_nginx
from tests.sizes import examples, sampled
from tests.strategies.ingresses import (
    API,
    FORBIDDEN,
    NAMED,
    NASTY,
    PREFIX,
    SETTINGS,
    TEMPLATES,
    WEB,
    compiled,
    config_map,
    file_of,
    ingress,
    options,
    path,
    refusal,
    reported,
    rule,
    site,
    text_of,
    tls,
    world,
)

CONTROL = ingress("control", rule("control.test", path(to="api")), created="2025-01-01T00:00:00Z")
GROUND = (*WEB, *API, *NAMED, CONTROL)
ALONE = compiled(*GROUND)
CONTROL_FILE = text_of(ALONE, "control.test")

COMPANY: Mapping[str, Mapping[str, str]] = {
    "alone": {},
    "protected": {
        "auth-type": "basic",
        "auth-secret": "users",
        "auth-url": "http://web.default.svc/",
        "auth-tls-secret": "ca",
        "custom-http-errors": "404",
        "default-backend": "api",
    },
    "rewritten": {
        "use-regex": "true",
        "rewrite-target": "/$1",
        "enable-cors": "true",
        "affinity": "cookie",
        "limit-rps": "1",
        "proxy-ssl-secret": "upstream",
        "backend-protocol": "HTTPS",
    },
    "fcgi": {"backend-protocol": "FCGI", "proxy-next-upstream": "error"},
    "canary": {"canary": "true", "canary-by-header": "X-A", "canary-by-cookie": "c", "canary-weight": "5"},
}
"""Annotations beside which others mean something."""


def names(nodes: tuple[Node, ...]) -> list[Any]:
    return [
        (node.name, None if node.block is None else names(node.block)) if isinstance(node, Directive) else "entry"
        for node in nodes
    ]


def names_read(statements: list[Any], *, entries: bool = False) -> list[Any]:
    blocks = {"map", "geo", "split_clients"}
    return [
        "entry" if entries else (name, None if block is None else names_read(block, entries=name in blocks))
        for name, _, block in statements
    ]


def directives(statements: list[Any]) -> Iterator[str]:
    for name, _, block in statements:
        yield name
        yield from directives(block or []) if name not in {"map", "geo", "split_clients"} else ()


def assert_means_what_was_meant(outcome: NginxSite, *paths: str) -> None:
    """An independent parser reads just the directives of the intended tree, and none that does harm."""
    for fragment in outcome.fragments:
        if paths and fragment.path not in paths:
            continue
        text = outcome.configuration.files[fragment.path]
        read = meaning_to_crossplane(text)
        assert names_read(read) == names(fragment.nodes)
        assert read == without_parentheses(meaning(parse(text)))
        assert not {name for name in directives(read) if name in FORBIDDEN or "lua" in name}


def values(name: str) -> list[str]:
    """Return nasty values of an annotation: all that it takes, and some that it does not, others for each name."""
    outcome = []
    for number, value in enumerate(text for text in NASTY if "\ud800" not in text):
        try:
            ANNOTATIONS[name].read(value.strip(" \t"))
        except (ValueError, KeyError):
            if (number + len(name)) % 10:
                continue
        outcome.append(value)
    return outcome


def crowd(name: str) -> list[k.Ingress]:
    """Return Ingresses with nasty values of an annotation, each for a host of its own, in changing company."""
    outcome = []
    companies = list(COMPANY)
    for number, value in enumerate(values(name)):
        company = COMPANY[companies[(number + len(name)) % len(companies)]]
        owner = f"{name}-{number}"
        if "canary" in company or name.startswith("canary"):
            outcome.append(ingress(f"{owner}-main", rule(f"{owner}.test"), created="2025-06-01T00:00:00Z"))
        outcome.append(ingress(owner, rule(f"{owner}.test"), annotations={**company, name: value}))
        outcome.append(ingress(f"{owner}-alone", rule(f"{owner}-alone.test"), annotations={name: value}))
    return outcome


@pytest.mark.parametrize("name", sorted({*ANNOTATIONS, *UNSUPPORTED}))
def test_no_annotation_harms_another_host_or_is_not_reported(name):
    crowded = crowd(name)
    outcome = compiled(*GROUND, *crowded)
    assert outcome.configuration.files[file_of("control.test")] == CONTROL_FILE
    reasons: dict[str, list[Reason]] = {}
    for reason in outcome.model.reasons:
        reasons.setdefault(str(reason.about.name) if reason.about else "", []).append(reason)
    for each in crowded:
        owner = f"default/{each.metadata.name}"
        reported = reasons.get(owner, [])
        if each.metadata.name.endswith("-alone"):
            value = each.metadata.annotations[f"{PREFIX}/{name}"]
            assert is_readable(name, value) or any(name in reason.path for reason in reported), value
        if any(reason.verdict is Verdict.CLOSED for reason in reported):
            served = [
                location for location in locations(outcome) if location.ingress == (ObjectName(*owner.split("/")))
            ]
            assert all(isinstance(location.target, FixedResponse) for location in served)


def is_readable(name: str, value: str) -> bool:
    if name in UNSUPPORTED:
        return value.strip() in UNSUPPORTED[name].fulfilled_by
    try:
        ANNOTATIONS[name].read(value.strip(" \t"))
    except (ValueError, KeyError):
        return False
    return True


def locations(outcome: NginxSite) -> Iterator[Location]:
    for server in outcome.model.servers.values():
        yield from server.locations


@pytest.mark.parametrize("name", sorted(ANNOTATIONS)[::8])
def test_an_independent_parser_reads_what_was_meant(name):
    assert_means_what_was_meant(compiled(*GROUND, *crowd(name)))


def test_an_unreadable_annotation_has_a_printable_reason():
    for name in sampled(sorted(ANNOTATIONS)):
        outcome = compiled(*GROUND, site(**{name: "\x00\u202e;} location"}))
        reasons = [reason for reason in reported(outcome) if name in reason.path]
        assert reasons, name
        assert all(str(reason).isprintable() and len(str(reason)) < 500 for reason in reasons)


# -- any text in any field ---------------------------------------------------------------------------------------------

OBJECTS: tuple[KubeObject, ...] = (
    *GROUND,
    ingress(
        "site",
        rule("site.test", path("/a"), path("/b", "Exact"), path("/c", "ImplementationSpecific", port="http")),
        annotations={"auth-type": "basic", "auth-secret": "users", "limit-rps": "5", "custom-headers": "headers"},
        tls=[tls("cert", "site.test")],
        uid="5f2c1e9a-0000-4000-8000-000000000001",
    ),
    k.IngressClass(metadata=k.ObjectMeta(name="rulegen"), spec=k.IngressClassSpec(controller="rulegen.io/ingress")),
    config_map(SETTINGS.name, {"proxy-body-size": "2m", "add-headers": "default/headers"}, SETTINGS.namespace),
)
API_VERSIONS = {
    k.Service: "v1",
    k.EndpointSlice: "discovery.k8s.io/v1",
    k.Ingress: "networking.k8s.io/v1",
    k.IngressClass: "networking.k8s.io/v1",
    k.Secret: "v1",
    k.ConfigMap: "v1",
}


def documents() -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": API_VERSIONS[type(each)],
            "kind": type(each).__name__,
            **_without_nothing(msgspec.to_builtins(each)),
        }
        for each in OBJECTS
    ]


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner not in (None, "", 0, [], {})}
    return [_without_nothing(inner) for inner in value] if isinstance(value, list | tuple) else value


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where texts stand; keys of labels, annotations and data too (`key` at the end)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if at and at[-1] in {"annotations", "data", "labels"}:
                yield (*at, key, "key")
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*at, index))
    elif isinstance(value, str):
        yield at


PLACES = [
    (index, place)
    for index, document in enumerate(documents())
    for place in places(document)
    if place not in {("kind",), ("apiVersion",)}
]


def changed(index: int, place: tuple[Any, ...], text: str) -> ClusterSnapshot:
    outcome = documents()
    inner: Any = outcome[index]
    *way, last = place[:-1] if place[-1] == "key" else place
    for step in way:
        inner = inner[step]
    if place[-1] == "key":
        inner[text] = inner.pop(last)
    else:
        inner[last] = text
    return read_world([Source("x", msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": outcome}))])


hostile = st.one_of(
    st.sampled_from([text for text in NASTY if "\ud800" not in text]),
    st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12),
    st.text(alphabet="/a.*\"'\\${}#;()[]? \n", max_size=10),
    st.binary(max_size=20).map(lambda raw: base64.b64encode(raw).decode()),
)


def assert_harmless(outcome: ClusterSnapshot) -> NginxSite | None:
    try:
        result = compile_ingress(outcome, options(config_map=SETTINGS), TEMPLATES, served=True)
    except ConfigError as error:
        message = str(error)
        assert message.isprintable()
        return None
    assert all(str(reason).isprintable() and len(str(reason)) < 700 for reason in result.model.reasons)
    assert_means_what_was_meant(result)
    return result


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PLACES), hostile)
def test_any_text_in_any_field_is_meant_or_refused(where, text):
    assert_harmless(changed(*where, text))


@cache
def harmless_files() -> frozenset[str]:
    """Return the names of all files without any injection."""
    compiled = compile_ingress(world(*OBJECTS), options(config_map=SETTINGS), TEMPLATES, served=True)
    return frozenset(compiled.configuration.files)


@pytest.mark.parametrize(("index", "place"), sampled(PLACES))
def test_injections_in_each_field(index, place):
    for text in (
        'x";} location /pwn { return 418; } #',
        "x\nreturn 418;\n#",
        "/x; alias /etc/; #",
        "../../x",
        "\u202ex",
    ):
        result = assert_harmless(changed(index, place, text))
        if result is None:  # without a ConfigMap that is named, or that the settings name, nothing is decided
            assert isinstance(OBJECTS[index], k.ConfigMap)
            continue
        for name, written in result.configuration.files.items():
            assert "418" not in set(directives(without_parentheses(meaning(parse(written)))))
            assert not {"pwn", "alias"} & set(directives(without_parentheses(meaning(parse(written))))), name
        assert len(set(result.configuration.files) - harmless_files()) <= 2
        assert all(
            name == "nginx.conf" or name.split("/")[1].partition(".")[0].isalnum()
            for name in result.configuration.files
        )


# -- settings ----------------------------------------------------------------------------------------------------------


def settings_of(data: Mapping[str, str]) -> NginxSite:
    return compiled(*GROUND, config_map(SETTINGS.name, data, SETTINGS.namespace))


def is_setting(key: str, value: str) -> bool:
    try:
        declared.SETTINGS[key].read(value.strip())
    except ValueError:
        return False
    return True


TEXTS = [key for key, known in declared.SETTINGS.items() if known.read is str.strip]
"""Keys that are read where they are used."""
REFERENCES = [key for key, known in declared.SETTINGS.items() if known.read_header is not None]
CLOSING = {key for key, known in declared.SETTINGS.items() if known.guards is not SettingGuard.NOTHING}
TYPED = {*declared.SETTINGS}.difference(TEXTS, REFERENCES)
WRITABLE = [text for text in NASTY if "\ud800" not in text]


@pytest.mark.parametrize("value", WRITABLE, ids=map(str, range(len(WRITABLE))))
def test_any_setting_is_applied_or_reported(value, tmp_path):
    data = dict.fromkeys(sorted({*TYPED, "no-such-key"} - CLOSING), value)
    outcome = settings_of(data)
    for key in data:
        if key not in TYPED or not is_setting(key, value):
            assert any(key in reason.message for reason in outcome.model.reasons), key
    assert all(str(reason).isprintable() for reason in outcome.model.reasons)
    assert file_of("control.test") in outcome.configuration.files


@pytest.mark.not_quick
@pytest.mark.parametrize("key", REFERENCES)
def test_a_setting_naming_an_object_is_reported_or_stops_all(key):
    """A ConfigMap of headers that is not there may hold what keeps somebody out."""
    for value in WRITABLE:
        try:
            outcome = settings_of({key: value})
            words = [reason.message for reason in outcome.model.reasons]
        except ConfigError as error:
            words = [str(error)]
        assert not value.strip() or any(key in text for text in words), value
        assert all(text.isprintable() for text in words)


@pytest.mark.not_quick
@pytest.mark.parametrize("key", [key for key in TEXTS if key != "global-auth-url"])
def test_a_setting_of_an_auth_server_is_read_or_closes(key):
    for value in WRITABLE:
        outcome = settings_of({"global-auth-url": "http://web.default.svc/", key: value})
        faults = [str(reason) for reason in outcome.model.reasons if reason.about is None]
        assert all(fault.isprintable() for fault in faults)
        locations = [each for each in outcome.model.servers["control.test"].locations if each.ingress]
        for location in locations:
            assert location.policy.external_auth is not None or location.target == FixedResponse(503)


@needs_nginx
@pytest.mark.slow
def test_nginx_takes_every_setting_that_is_taken(tmp_path):
    # Of each key another value each time; most keys have few.
    taken = {key: [value for value in WRITABLE if is_setting(key, value)] for key in sorted(TYPED - CLOSING)}
    for number in range(0, max(map(len, taken.values())), 4):
        data = {key: outcome[number % len(outcome)] for key, outcome in taken.items() if outcome}
        assert refusal(settings_of(data).configuration, tmp_path / str(number)) == ""


@example("0.0.0.0/0;")
@example("0.0.0.0/0")
@given(hostile)
@settings(max_examples=examples(40), deadline=None)
@pytest.mark.slow
def test_a_setting_that_keeps_out_is_read_or_closes(text):
    for key in sorted(CLOSING):
        outcome = compiled(*GROUND, config_map(SETTINGS.name, {key: text}, SETTINGS.namespace))
        locations = [each for each in outcome.model.servers["control.test"].locations if each.ingress]
        if all(location.target == FixedResponse(503) for location in locations):
            assert any(key in reason.message for reason in outcome.model.reasons)
            continue
        default = getattr(ALONE.model.defaults.settings, key.replace("-", "_"))
        written = {entry for entry in re.split(r"[\s,]+", text) if entry}
        # A text that names exactly the networks of the default, or none, may leave the default.
        assert getattr(outcome.model.defaults.settings, key.replace("-", "_")) != default or written <= {
            str(network) for network in default
        }


@needs_nginx
@pytest.mark.slow
def test_nginx_takes_every_value_that_is_taken(tmp_path):
    outcome = [
        each
        for name in sorted(ANNOTATIONS)
        for each in crowd(name)
        if (
            not each.metadata.name.endswith("-alone")
            and is_readable(name, each.metadata.annotations.get(f"{PREFIX}/{name}", ""))
        )
        or each.metadata.name.endswith("-main")
    ]
    said = refusal(compiled(*GROUND, *outcome).configuration, tmp_path / "nginx")
    assert [line for line in said.splitlines() if "duplicate network" not in line] == []
