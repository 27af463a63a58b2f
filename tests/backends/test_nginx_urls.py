"""Where nginx sends clients and copies of requests: no other host, and the same URL for a Service as for a name."""

from __future__ import annotations

import re

import pytest

from tests.strategies.ingresses import WEB, compiled, ingress, path, rule, site, text_of


@pytest.mark.parametrize("where", ["/", "/a"])
@pytest.mark.parametrize("target", ["/$location_path$arg_next", "/$location_path", "/$request_uri", "/$arg_next/x"])
def test_behind_the_slash_of_a_relative_redirect_is_no_second_one(target, where):
    """A literal second slash is left out; if a variable could begin with one, a map leaves it out for each request."""
    annotations = {"temporal-redirect": target, "relative-redirects": "true"}
    text = text_of(compiled(*WEB, ingress("site", rule("site.test", path(where)), annotations=annotations)))

    answers = set(re.findall(r"return 302 (.*);", text))
    assert answers
    for answer in answers:
        assert answer == "$plain_relative" or re.match(r"/([^/\\$]|\Z)", answer)


@pytest.mark.parametrize(
    ("rest", "asked"),
    [
        ("", "$request_uri"),
        ("/x", "/x$is_args$args"),
        ("/x?a=1", "/x?a=1$is_args$args"),
        ("/x?$args", "/x?$args"),
        ("$request_uri", "$request_uri"),
    ],
)
def test_the_mirror_is_asked_for_the_same_whether_its_name_is_a_services(rest, asked):
    """As in ingress-nginx, the query of the request follows a URL without variables."""
    urls = [
        re.findall(r"proxy_pass ([^;]*);", text_of(compiled(*WEB, site(mirror_target=f"http://{name}{rest}"))))
        for name in ("web.default.svc.cluster.local", "mirror.test")
    ]

    assert [[url for url in passed if url.endswith(asked)] for passed in urls] == [
        [f"http://default.web.80{asked}"],
        [f"http://$mirror_server{asked}"],
    ]
