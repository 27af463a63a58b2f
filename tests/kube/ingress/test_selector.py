"""Label selectors match the same objects as in kubectl; all other texts are invalid."""

from __future__ import annotations

import pytest

from rulegen.kube.selector import parse_selector

LABELS = {"team": "shop", "x.io/tier": "", "env": "a-1"}


@pytest.mark.parametrize(
    ("text", "selects"),
    [
        ("", True),
        ("team=shop", True),
        ("team==shop", True),
        (" team = shop , env ", True),
        ("team=Shop", False),
        ("team!=shop", False),
        ("gone!=shop", True),
        ("team", True),
        ("!team", False),
        ("! gone", True),
        ("x.io/tier=", True),
        ("x.io/tier", True),
        ("team in (blog,shop)", True),
        ("team in(blog)", False),
        ("team notin (shop)", False),
        ("gone notin (shop)", True),
        ("team=shop,env notin (a-1)", False),
        ("inner", False),
    ],
)
def test_what_a_selector_selects(text, selects):
    assert parse_selector(text).selects(LABELS) is selects


@pytest.mark.parametrize(
    "text",
    ["=shop", "team=shop,", ",team", "team=a b", "team in shop", "team in (a", "team>1", "a/b/c", "team=a=b", "é"],
)
def test_invalid_selectors(text):
    with pytest.raises(ValueError, match="is not a label selector"):
        parse_selector(text)
