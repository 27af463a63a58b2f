"""Paths with other values of annotations that are in use need no reload: the values stand in maps."""

from __future__ import annotations

import re

import pytest

from rulegen.compiler.ingress.haproxy import compile_haproxy
from rulegen.languages.haproxy.runtime import structure_of
from tests.strategies.ingresses import WEB, ingress, options, path, rule, world

CAPTURED = "ImplementationSpecific"


def _paths(kind, number):
    host = f"{kind}{number}.test"
    annotations = {
        "rewrite": {"rewrite-target": f"/new{number}"},
        "captured": {"rewrite-target": f"/new{number}/$2", "use-regex": "true"},
        "redirect": {"permanent-redirect": f"https://a{number}.test/$request_uri"},
        "timeout": {"proxy-read-timeout": f"{10 + number}"},
        "cors": {
            "enable-cors": "true",
            "cors-allow-origin": f"https://a{number}.test",
            "cors-max-age": f"{number + 1}",
        },
        "ranges": {"whitelist-source-range": f"10.{number}.0.0/16", "denylist-source-range": f"10.{number}.7.0/24"},
        "vhost": {"upstream-vhost": f"a{number}.test"},
        "canary": {},
    }[kind]
    where = path(f"/a{number}(/|$)(.*)", kind=CAPTURED) if kind == "captured" else path()
    yield ingress(host, rule(host, where), annotations=annotations)
    if kind == "canary":
        share = {"canary": "true", "canary-weight": f"{10 + number}", "canary-by-cookie": f"try{number}"}
        yield ingress(f"more-{host}", rule(host), annotations=share)


KINDS = ("rewrite", "captured", "redirect", "timeout", "cors", "ranges", "vhost", "canary")


def _site(kind, count, live=None):
    objects = [each for number in range(count) for each in _paths(kind, number)]
    return compile_haproxy(world(*WEB, *objects), options(), served=True, live=live)


@pytest.mark.parametrize("kind", KINDS)
def test_another_value_of_a_kind_in_use_needs_no_reload(kind):
    before = _site(kind, 1).configuration
    after = _site(kind, 3, before).configuration
    assert structure_of(before) == structure_of(after)
    assert before.digest != after.digest


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_served_without_a_reload_has_the_values_of_a_fresh_configuration(kind):
    """The names of backends and maps differ, and the values in the maps do not."""
    before = _site(kind, 1).configuration
    taken, fresh = _site(kind, 3, before).configuration, _site(kind, 3).configuration

    def values(configuration):
        own = ("capture-", "expressions-", "networks-", "numbers-", "origins-", "rewritten-", "texts-")
        texts = [text for name, text in configuration.files.items() if name.removeprefix("maps/").startswith(own)]
        return sorted(text for text in texts if text not in {"", "\\A -\n"} and not re.search("[bf][0-9a-f]{16}", text))

    assert values(taken) == values(fresh)
    assert values(fresh) != [] or kind == "canary"
