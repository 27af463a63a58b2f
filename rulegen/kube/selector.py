"""Label selectors in kubectl's syntax: `team=shop`, `tier!=test`, `env in (a,b)`, `env notin (a)`, `team`, `!a`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.kube.syntax import is_label_value, is_qualified_name
from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

_TERM: Final = re.compile(
    r"\s*(?:(?P<no>!)\s*(?P<absent>[^\s!=,()]+)"
    r"|(?P<key>[^\s!=,()]+)\s*(?:(?P<sign>==?|!=)\s*(?P<value>[^\s!=,()]*)"
    r"|(?P<word>(?<=\s)(?:in|notin))\s*\((?P<values>[^()]*)\))?)\s*(?:,|\Z)"
)


class Requirement(NamedTuple):
    """One term of a selector: the label `key` exists with one of `values` (None: any value); `negated` inverts it."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy the term; a missing label has none of the values."""
        value = labels.get(self.key)
        is_there = value is not None and (self.values is None or value in self.values)
        return is_there is not self.negated


class Selector(NamedTuple):
    """All terms of a selector; without terms, it selects everything."""

    requirements: tuple[Requirement, ...] = ()
    text: str = ""

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy all terms."""
        return all(requirement.holds(labels) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """Return the selector in a text.

    Raises:
        ValueError: The text is not a label selector.

    >>> parse_selector("team in (shop, blog), !legacy").selects({"team": "blog"})
    True
    """
    requirements, at, is_more = [], 0, bool(text.strip())
    while is_more:
        term = _TERM.match(text, at)
        if term is None or (made := _requirement(term)) is None:
            raise ValueError(f"{quoted(text)} is not a label selector such as team=shop,env in (a,b),!legacy")
        requirements.append(made)
        at, is_more = term.end(), term[0].endswith(",") or term.end() < len(text)
    return Selector(tuple(requirements), text)


def _requirement(term: re.Match[str]) -> Requirement | None:
    key = term["absent"] or term["key"]
    values: frozenset[str] | None = None
    if term["sign"]:
        values = frozenset({term["value"]})
    elif term["word"]:
        values = frozenset(part.strip() for part in term["values"].split(","))
    if not is_qualified_name(key) or not all(is_label_value(value) for value in values or ()):
        return None
    return Requirement(key, values, negated=bool(term["no"]) or term["sign"] == "!=" or term["word"] == "notin")
