"""Quarantine: whatever culprits there are, the rest passes, and the innocent stay."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.compiler.ingress.candidates import Candidates
from rulegen.compiler.ingress.refused_ingresses import settle
from rulegen.errors import HostError
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.configuration import Configuration
from rulegen.model.ingress.options import IngressOptions


class Nginx:
    """Refuses single parts, and pairs of parts; its message names some part of what it refuses."""

    def __init__(self, names, singles=(), pairs=(), *, broken=False) -> None:
        self.names, self.singles, self.pairs, self.broken = names, set(singles), list(pairs), broken
        self.tests = 0

    def compile(self, without: frozenset[str]) -> Configuration:
        return Configuration(files={name: "" for name in self.names if name not in without})

    def test(self, configuration: Configuration) -> str | None:
        self.tests += 1
        there = set(configuration.files)
        if self.broken:
            return "no such directive"
        for name in self.names:
            if name in there & self.singles:
                return f"bad {name}"
        for pair in self.pairs:
            if set(pair) <= there:
                return f"clash {pair[0]}"
        return None

    def settle(self, **options):
        return settle(self.names, self.compile, self.test, program="nginx", **options)


def last_word(message: str) -> list[str]:
    return [message.rpartition(" ")[2]]


NAMES = [f"i{number:03}" for number in range(200)]


def test_all_is_well_takes_one_test():
    nginx = Nginx(NAMES)

    settled = nginx.settle()

    assert (list(settled.configuration.files), settled.quarantined, nginx.tests) == (NAMES, {}, 1)


def test_a_suspect_is_found_without_halving():
    nginx = Nginx(NAMES, ["i123"])

    settled = nginx.settle(suspects=last_word)

    assert settled.quarantined == {"i123": "bad i123"}
    assert nginx.tests <= 5


def test_a_wrong_suspect_costs_tests_and_harms_nobody():
    settled = Nginx(NAMES, ["i123"]).settle(suspects=lambda _: ["i007", "i150", "nobody"])

    assert settled.quarantined == {"i123": "bad i123"}


def test_of_a_pair_the_younger_is_left_out_whatever_is_named():
    settled = Nginx(NAMES, pairs=[("i010", "i150")]).settle(suspects=last_word)

    assert settled.quarantined == {"i150": "clash i010"}


def test_what_fails_without_any_part_is_an_error():
    with pytest.raises(HostError, match="even without any Ingress: no such directive"):
        Nginx(NAMES, broken=True).settle()


def test_the_ingress_that_a_message_names_is_left_out_with_the_reason():
    names = [ObjectName("shop", name) for name in NAMES]
    tests = []

    def compiled(options: IngressOptions, _: object) -> Mapping[ObjectName, str]:
        return {name: options.without.get(name, "served") for name in names}

    def test(site: Mapping[ObjectName, str]) -> str | None:
        tests.append(site)
        return "bad i123" if site[names[123]] == "served" else None

    candidates = Candidates("nginx", compiled, IngressOptions())
    site = candidates.settled(names, test, lambda _, message: [ObjectName("shop", *last_word(message))])

    assert {str(name): what for name, what in site.items() if what != "served"} == {
        "shop/i123": "nginx rejects it: bad i123"
    }
    assert len(tests) <= 5


def test_the_number_of_tries_is_bounded_and_the_result_passes():
    nginx = Nginx(NAMES, NAMES[1::2])

    settled = nginx.settle(most_tests=50)

    assert 50 <= nginx.tests <= 52
    assert nginx.test(settled.configuration) is None
    assert "i000" in settled.configuration.files
    assert set(settled.quarantined) | set(settled.configuration.files) == set(NAMES)


@given(st.data())
def test_any_culprits_and_pairs(data):
    names = NAMES[: data.draw(st.integers(2, 60))]
    some = st.sampled_from(names)
    singles = data.draw(st.sets(some, max_size=5))
    pairs = [tuple(sorted(pair)) for pair in data.draw(st.lists(st.sets(some, min_size=2, max_size=2), max_size=5))]
    nginx = Nginx(names, singles, pairs)
    suspects = data.draw(st.sampled_from([last_word, lambda _: (), lambda _: names[:3]]))

    settled = nginx.settle(suspects=suspects)

    tests = nginx.tests
    assert nginx.test(settled.configuration) is None
    assert set(settled.quarantined) == _expected(names, singles, pairs)
    culprits = len(settled.quarantined)
    assert tests <= 2 + culprits * (math.ceil(math.log2(len(names) + 1)) + 6)


def _expected(names, singles, pairs) -> set[str]:
    """Take the parts one by one, oldest first, and leave out each that does not get on with those before it."""
    kept: set[str] = set()
    for name in names:
        clashes = any(name in pair and set(pair) <= kept | {name} for pair in pairs)
        if name not in singles and not clashes:
            kept.add(name)
    return set(names) - kept
