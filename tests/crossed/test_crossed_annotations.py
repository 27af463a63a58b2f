"""Every annotation on every way that a request can take: the same effect, or an exception that says why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from tests.crossed.examples import CANARIES, EXAMPLES, WITHOUT_EFFECT, Example
from tests.crossed.ways import AUTHS, Way, all_ways, answers, differences

WAYS = sorted(all_ways(), key=str)


def test_every_annotation_has_an_example() -> None:
    assert sorted([*EXAMPLES, *CANARIES, *WITHOUT_EFFECT]) == sorted(ANNOTATIONS)


def _effects(way: Way) -> dict[str, dict[str, Any]]:
    """Return what each example changes on a way, compared with the same annotations without the one it is about."""
    by_settings: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, example in EXAMPLES.items():
        by_settings.setdefault(tuple(example.settings.items()), []).append(name)
    effects: dict[str, dict[str, Any]] = {}
    for settings, names in by_settings.items():
        given = {name: _given(way, name, EXAMPLES[name]) for name in names}
        sites = list(dict.fromkeys(site for both in given.values() for site in both))
        made = dict(zip(sites, answers(way, [dict(site) for site in sites], dict(settings)), strict=True))
        effects |= {name: differences(made[has], made[has_not]) for name, (has, has_not) in given.items()}
    return effects


_Site = tuple[tuple[str, str], ...]


def _given(way: Way, name: str, example: Example) -> tuple[_Site, _Site]:
    """Return the annotations of an example, with and without the one it is about."""
    beside = {key: value for key, value in {**AUTHS[way.auth], **example.beside}.items() if key != name}
    return tuple({**beside, name: example.value}.items()), tuple(beside.items())


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An effect that is another one on some ways, with its reason.

    Attributes:
        on: One way on which it is another one.
        where: Tells such ways from the others.
        names: The annotations; none for all.
        fields: What is different, by the beginning of its name.
    """

    reason: str
    on: Way
    where: Callable[[Way], bool]
    names: tuple[str, ...] = ()
    fields: str = ""

    def excuses(self, name: str, way: Way, key: str) -> bool:
        return (not self.names or name in self.names) and key.startswith(self.fields) and self.where(way)


DIFFERENCES = (
    Difference(
        reason="nobody is behind it, or a name that is resolved for each request: there are no servers to choose from",
        on=Way(backend="nobody"),
        where=lambda way: way.backend != "pods",
        fields="upstream.",
    ),
    Difference(
        reason="without the Secret the Ingress is closed, so that everything else is different too",
        on=Way(auth="asked"),
        where=lambda way: way.auth == "asked" or way.has_canary or way.backend != "pods",
        names=("auth-secret", "auth-secret-type"),
    ),
    Difference(
        reason="a canary keeps clients as its main Ingress does",
        on=Way(has_canary=True),
        where=lambda way: way.has_canary,
        names=("affinity", "affinity-mode", *(name for name in EXAMPLES if name.startswith("session-cookie-"))),
        fields="canaries",
    ),
    Difference(
        reason="it answers where nobody else does",
        on=Way(backend="nobody"),
        where=lambda way: way.backend == "nobody",
        names=("default-backend",),
    ),
    Difference(
        reason="a rule for all names, or all below one, has no second name with or without www.; reported",
        on=Way(host="wildcard"),
        where=lambda way: way.host != "own",
        names=("from-to-www-redirect",),
    ),
    Difference(
        reason="a rule for all names has them all already",
        on=Way(host="none"),
        where=lambda way: way.host == "none",
        names=("server-alias",),
    ),
    Difference(
        reason="docs/ingress-nginx.md: what a default backend gets is not rewritten",
        on=Way(path="rest"),
        where=lambda way: way.path in {"default", "rest"},
        names=("rewrite-target",),
    ),
)


@functools.cache
def _plain() -> dict[str, dict[str, Any]]:
    return _effects(Way())


def test_every_example_has_an_effect() -> None:
    assert [name for name, effect in _plain().items() if not effect] == ["default-backend"]


def _wrong(way: Way) -> dict[tuple[str, str], str]:
    """Return the effects on a way that are not those of the plain one, by annotation and field."""
    wrong = {}
    for name, got in _effects(way).items():
        expected = _plain()[name]
        for key in expected.keys() | got.keys():
            if expected.get(key) != got.get(key):
                wrong[name, key] = f"{got.get(key)}, not {expected.get(key)}"
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_annotation_has_the_same_effect_on_every_way(way: Way) -> None:
    wrong = _wrong(way)
    assert {
        key: text for key, text in wrong.items() if not any(each.excuses(key[0], way, key[1]) for each in DIFFERENCES)
    } == {}


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: each.reason)
def test_every_difference_is_one(difference: Difference) -> None:
    assert [key for key in _wrong(difference.on) if difference.excuses(key[0], difference.on, key[1])] != []


def _shared(way: Way) -> dict[str, dict[str, Any]]:
    """Return what each example of a canary changes on a way."""
    effects = {}
    for name, example in CANARIES.items():
        main = {**AUTHS[way.auth], "affinity": "cookie"}
        (has,) = answers(way, [main], {}, {**example.beside, name: example.value})
        (has_not,) = answers(way, [main], {}, example.beside)
        effects[name] = differences(has, has_not)
    return effects


@pytest.mark.parametrize("way", [way for way in WAYS if way.has_canary], ids=str)
def test_a_canary_has_the_same_share_on_every_way(way: Way) -> None:
    plain = _shared(Way(has_canary=True))
    assert [name for name, effect in plain.items() if not effect] == []
    assert _shared(way) == plain
