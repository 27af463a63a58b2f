"""What happens when an Ingress is left out.

No request reaches another backend, or the same one with fewer checks. Older Ingresses keep the names that they would
have without this Ingress.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress import resolve
from rulegen.model.ingress.ir import MatchKind, ToUpstream
from rulegen.model.ingress.limits import NamespaceLimits
from rulegen.model.ingress.reasons import Verdict
from tests.sizes import examples
from tests.strategies.ingresses import NAMED, PREFIX, WEB, endpoints, ingress, options, path, rule, service, tls, world

BASE = (*WEB, service("web", namespace="other"), endpoints("web", namespace="other"), *NAMED)
HOSTS = ("h.test", "x.test", "*.test", "")
PATHS = st.tuples(st.sampled_from(("/", "/a", "/a/b")), st.sampled_from(("Prefix", "Exact")))
REQUESTS = tuple(
    itertools.product(
        ("h.test", "x.test", "y.test", "other.name"), ("/", "/a", "/A", "/ab", "/a/b", "/a/b/c"), ("http", "https")
    )
)
LEFT_OUT = {Verdict.QUARANTINED, Verdict.OVER_LIMIT, Verdict.REJECTED}
GUARDS = (
    {},
    {"auth-type": "basic", "auth-secret": "users"},
    {"whitelist-source-range": "10.0.0.0/8"},
    {"auth-tls-secret": "default/ca"},
)
CHECKS = {"auth-type": "password", "whitelist-source-range": "networks", "auth-tls-secret": "certificate"}


class Answer(NamedTuple):
    """The Ingress that answers a request, whether its backend does, and the checks before that."""

    owner: ObjectName | None
    is_served: bool
    checks: frozenset[str]


@st.composite
def written(draw, index):
    host, texts = draw(st.sampled_from(HOSTS)), dict(draw(st.sampled_from(GUARDS)))
    if draw(st.integers(0, 3)) == 0:
        texts["server-alias"] = draw(st.sampled_from(("x.test", "h.test", "*.test")))
    if draw(st.integers(0, 4)) == 0:
        texts["use-regex"] = "true"
    if draw(st.integers(0, 5)) == 0:
        texts |= {"canary": "true", "canary-weight": "50"}
    paths = draw(st.lists(PATHS, min_size=1, max_size=2))
    return ingress(
        f"i{index}",
        rule(host, *(path(text, kind) for text, kind in paths)),
        annotations=texts,
        namespace=draw(st.sampled_from(("default", "default", "other"))),
        created=f"2026-01-{index + 1:02}T00:00:00Z",
        tls=(tls("cert", *((host,) if host else ())),) if draw(st.booleans()) else (),
    )


def _server(model, name):
    above = f"*.{name.partition('.')[2]}"
    by_name = {known: server for server in model.servers.values() for known in (server.host, *server.aliases)}
    return by_name.get(name) or by_name.get(above) or by_name[""]


def _kept(older, without):
    """Return the additional names of older Ingresses in the model without a younger one, each with its host."""
    kept = {}
    for known in older:
        alias = known.metadata.annotations.get(f"{PREFIX}/server-alias")
        for rule_ in known.spec.rules:
            server = without.servers.get(rule_.host)
            name = ObjectName(known.metadata.namespace, known.metadata.name)
            if server is not None and alias in server.aliases and name in server.ingresses:
                kept[alias] = rule_.host
    return kept


def _location(server, text):
    """Return the location that nginx chooses: an equal path, the first expression, or the longest prefix."""
    for known in server.locations:
        if known.kind is MatchKind.EXACT and known.path == text:
            return known
    for known in server.locations:
        if known.kind in {MatchKind.REGEX, MatchKind.REGEX_CASED}:
            flags = re.IGNORECASE if known.kind is MatchKind.REGEX else 0
            if re.search(known.path.replace(r"\z", r"\Z"), text, flags):
                return known
    prefixes = [known for known in server.locations if known.kind is MatchKind.PREFIX and text.startswith(known.path)]
    return max(prefixes, key=lambda known: len(known.path))


def _answer(model, name, text, scheme):
    server = _server(model, name)
    location = _location(server, text)
    policy = location.policy
    checks = {
        "password": policy.basic_auth is not None,
        "networks": bool(policy.allow),
        "certificate": scheme == "https" and server.client_auth is not None,
    }
    is_redirected = scheme == "http" and policy.redirects_to_https(has_tls=server.has_tls)
    is_served = isinstance(location.target, ToUpstream) and not policy.is_closed and not is_redirected
    return Answer(location.ingress, is_served, frozenset(known for known, is_met in checks.items() if is_met))


def _model(ingresses, way="", left_out=None):
    """Return the model of all Ingresses, or without one of them."""
    limit, texts = NamespaceLimits.refusal, left_out.metadata.annotations if left_out is not None else {}
    without, key = {}, f"{PREFIX}/canary-by-cookie"
    if way == "quarantine":
        without[ObjectName(left_out.metadata.namespace, left_out.metadata.name)] = "nginx rejects it"

    def refusal(self, known):
        return "too many" if way == "limit" and known == left_out else limit(self, known)

    with mock.patch.object(NamespaceLimits, "refusal", refusal), mock.patch.dict(texts):
        if way == "rejected":
            texts[key] = "no name"
        elif way == "invalid":
            texts["not a key"] = ""
        return resolve.resolve_ingress(world(*BASE, *ingresses), options(without=without))


@given(
    st.tuples(*(written(index) for index in range(3))), st.sampled_from(("quarantine", "limit", "rejected", "invalid"))
)
@settings(max_examples=examples(60), deadline=None)
@pytest.mark.slow
def test_nothing_opens_when_an_ingress_is_left_out(ingresses, way):
    model = _model(ingresses)
    before = {request: _answer(model, *request) for request in REQUESTS}
    for left_out in ingresses:
        name = ObjectName(left_out.metadata.namespace, left_out.metadata.name)
        is_written = way != "limit" and f"{PREFIX}/use-regex" not in left_out.metadata.annotations
        own = {check for key, check in CHECKS.items() if f"{PREFIX}/{key}" in left_out.metadata.annotations}
        model = _model(ingresses, way, left_out)
        assert LEFT_OUT & {known.verdict for known in model.reasons if known.about and known.about.name == name}
        kept = _kept(
            ingresses[: ingresses.index(left_out)], _model([known for known in ingresses if known != left_out])
        )
        for alias, host in kept.items():
            assert _server(model, alias).host == host, (alias, host, str(name))
        for request, then in before.items():
            if _server(model, request[0]).host in {kept.get(request[0]), kept.get("*.test")}:
                continue  # an older Ingress has this name
            now = _answer(model, *request)
            if not now.is_served or (way == "limit" and now.owner.namespace != name.namespace):
                continue  # over a limit, nothing of another namespace is closed
            case = request, str(name), then, now
            if is_written or now.owner == then.owner:
                assert then.is_served, case
                assert now.owner == then.owner, case
                assert now.checks >= then.checks, case
            elif then.is_served and now.owner.namespace == name.namespace:
                # Its paths are unknown: only guards remain; over a limit, only its own.
                assert now.checks >= (then.checks & own if way == "limit" else then.checks), case
