"""Expressions as nginx is given them: none is tried for long, and those that people write most stand as written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.backends.nginx.locations.expressions import bounded
from rulegen.model.ingress.values import regex
from tests.pcre import MATCH_LIMIT, Pattern

MANY_STEPS = "/" + "abc" * 60


@pytest.mark.parametrize("text", ["/", "^/app(/|$)(.*)", "(?i)^/app(/|$)(.*)", "^/a\\.b", r"^/a(?:/|\z)", "^/.+$"])
def test_what_takes_no_choice_stands_as_written(text):
    assert bounded(text) == text


def test_what_takes_many_steps_is_given_up():
    text = "^/(.*)a(.*)b(.*)c(.*)[de]"
    with Pattern(text) as free, Pattern(bounded(text)) as ended:
        assert free.match(MANY_STEPS) == -1
        assert ended.match(MANY_STEPS) == MATCH_LIMIT
        assert ended.match("/xaxbxcxd") > 0


pieces = ("/", "a", "(a|b)", "(.*)", ".+", "[^/]+", "(/|$)", "a?", "(?:a|aa)", "b{1,9}", "\\.", "\\*")


@given(st.lists(st.sampled_from(pieces), max_size=8).map("".join))
def test_what_stands_as_written_takes_few_steps(text):
    try:
        regex.check(text)
    except ValueError:
        return
    if bounded(f"^{text}") == f"^{text}":
        with Pattern(f"^{text}") as pattern:
            assert pattern.match("/" + "a" * 3000 + "!", 20_000) != MATCH_LIMIT
