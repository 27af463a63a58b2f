"""What both an Ingress and the ConfigMap can say: what the Ingress says holds for its requests, also no and 0.

Compared is the effect on a location: each directive that nginx uses there, from wherever it is inherited, and the
upstream that requests go to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from rulegen.kube.objects.names import ObjectName
from rulegen.languages.nginx.parser import Statement, parse
from rulegen.model.ingress.ir import ToUpstream
from rulegen.model.ingress.values.annotations.annotation import InvalidValue
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS
from tests.strategies.ingresses import API, NAMED, WEB, compiled, config_map, file_of, ingress, path, rule, tls
from tests.strategies.ingresses import SETTINGS as MAP

GROUND = (*WEB, *API, *NAMED)
SAME: Final = {"allowlist-source-range": "whitelist-source-range"}
"""Annotations that have another name than the key."""
BOTH: Final = tuple(sorted(name for name in ANNOTATIONS if name in SETTINGS or name in OTHER_NAMES))
VALUES: Final[dict[str, tuple[str, ...]]] = {
    "allowlist-source-range": ("10.0.0.0/8", "192.0.2.0/24"),
    "client-body-buffer-size": ("16k", "1m", "0"),
    "custom-http-errors": ("404", "502,503"),
    "denylist-source-range": ("10.0.0.0/8", "192.0.2.0/24"),
    "disable-proxy-intercept-errors": ("true", "false"),
    "force-ssl-redirect": ("true", "false"),
    "limit-rate": ("5", "7", "0"),
    "limit-rate-after": ("5", "7", "0"),
    "load-balance": ("least_conn", "ip_hash", "round_robin"),
    "preserve-trailing-slash": ("true", "false"),
    "proxy-body-size": ("2m", "3m", "0"),
    "proxy-buffer-size": ("8k", "16k"),
    "proxy-buffering": ("on", "off"),
    "proxy-buffers-number": ("8", "16"),
    "proxy-busy-buffers-size": ("8k", "12k"),
    "proxy-connect-timeout": ("7", "9"),
    "proxy-cookie-domain": ("off", "a.test b.test"),
    "proxy-cookie-path": ("off", "/a /b"),
    "proxy-http-version": ("1.0", "1.1"),
    "proxy-max-temp-file-size": ("7m", "0"),
    "proxy-next-upstream": ("error", "timeout http_502", "off"),
    "proxy-next-upstream-timeout": ("7", "9", "0"),
    "proxy-next-upstream-tries": ("7", "9", "0"),
    "proxy-read-timeout": ("7", "9"),
    "proxy-redirect-from": ("http://a.test/", "/b", "off"),
    "proxy-redirect-to": ("http://a.test/", "/b", "off"),
    "proxy-request-buffering": ("on", "off"),
    "proxy-send-timeout": ("7", "9"),
    "relative-redirects": ("true", "false"),
    "service-upstream": ("true", "false"),
    "ssl-ciphers": ("HIGH", "ECDHE-RSA-AES128-GCM-SHA256"),
    "ssl-prefer-server-ciphers": ("true", "false"),
    "ssl-redirect": ("true", "false"),
    "use-port-in-redirects": ("true", "false"),
    "whitelist-source-range": ("10.0.0.0/8", "192.0.2.0/24"),
}
BESIDE: Final = {
    "disable-proxy-intercept-errors": {"custom-http-errors": "404"},
    "force-ssl-redirect": {"ssl-redirect": "false"},
    "limit-rate": {"proxy-buffering": "on"},
    "proxy-redirect-from": {"proxy-redirect-to": "/to"},
    "proxy-redirect-to": {"proxy-redirect-from": "/from"},
    "relative-redirects": {"permanent-redirect": "/new"},
    "use-port-in-redirects": {"permanent-redirect": "/new"},
    "limit-rate-after": {"limit-rate": "3", "proxy-buffering": "on"},
}
"""What else an Ingress must say for an annotation to have an effect."""


def effect(annotations: dict[str, str], keys: dict[str, str]) -> dict[str, list[tuple[object, ...]]]:
    """Return the directives that hold for the path `/`, each with its arguments."""
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test", path("/")), annotations=annotations, tls=[tls("cert", "site.test")]),
        config_map(MAP.name, keys, MAP.namespace),
        default_backend=ObjectName("default", "api"),
    )
    files = result.configuration.files
    (http,) = (block for block in parse(files["nginx.conf"]) if block.name == "http")
    own = parse(files[file_of("site.test")])
    (server,) = (block for block in own if block.name == "server")
    (location,) = (block for block in server.block or () if block.name == "location" and block.args == ("/",))
    holds: dict[str, list[tuple[object, ...]]] = {}
    for level in (http, server, location):
        at_level: dict[str, list[tuple[object, ...]]] = {}
        for directive in level.block or ():
            if directive.name not in {"location", "server", "map"} and not directive.name.startswith(
                ("grpc", "fastcgi")
            ):
                at_level.setdefault(directive.name, []).append(shape(directive))
        holds |= at_level
    (served,) = (served for served in result.model.servers["site.test"].locations if served.path == "/")
    assert isinstance(served.target, ToUpstream)
    upstream = replace(result.model.upstreams[served.target.upstream], name="")
    return {**holds, "proxy_pass": [], "upstream": [(upstream,)]}


def shape(directive: Statement) -> tuple[object, ...]:
    return (*directive.args, *map(shape, directive.block or ()))


def test_all_that_both_can_say_is_tried():
    assert set(BOTH) <= VALUES.keys()


@pytest.mark.parametrize("name", sorted(VALUES))
def test_an_ingress_goes_over_the_settings(name):
    key = SAME.get(name, name)
    for own in VALUES[name]:
        annotations = {name: own, **BESIDE.get(name, {})}
        alone = effect(annotations, {})
        for other in VALUES[name]:
            if key in SETTINGS or key in OTHER_NAMES:
                assert effect(annotations, {key: other}) == alone, (own, other)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_the_settings_hold_where_an_ingress_says_nothing(name):
    key = SAME.get(name, name)
    first, *others = (effect(BESIDE.get(name, {}), {key: value}) for value in VALUES[name])
    assert all(entry != first for entry in others)


@pytest.mark.parametrize("name", sorted(name for name in VALUES if ANNOTATIONS[name].invalid is InvalidValue.IGNORE))
def test_the_settings_hold_where_what_an_ingress_says_is_invalid(name):
    key, beside = SAME.get(name, name), BESIDE.get(name, {})
    for value in VALUES[name]:
        assert effect({**beside, name: "\u00e9"}, {key: value}) == effect(beside, {key: value})
