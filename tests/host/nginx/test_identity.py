"""The sandbox's number: nobody's, within what this user namespace has."""

from __future__ import annotations

import grp
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.errors import HostError
from rulegen.host.proxy.sandbox import identity
from rulegen.host.proxy.sandbox.identity import IN_CONTAINERS, PREFERRED, Range, unused, usable


@pytest.fixture(autouse=True)
def fresh():
    identity._drawn.cache_clear()
    yield
    identity._drawn.cache_clear()


def ranges() -> st.SearchStrategy[tuple[Range, ...]]:
    bounds = st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**31)).map(lambda pair: Range(pair[0], sum(pair)))
    return st.lists(bounds, max_size=4).map(tuple)


@given(ranges(), ranges())
def test_an_id_is_drawn_only_where_user_and_group_exist(users, groups):
    for first, last in usable(users, groups):
        assert first <= last
        assert any(each.first <= first <= last <= each.last for each in users)
        assert any(each.first <= first <= last <= each.last for each in groups)
        assert any(each.first <= first <= last <= each.last for each in (PREFERRED, IN_CONTAINERS))


def test_a_number_is_nobodys():
    number = unused()

    with pytest.raises(KeyError):
        pwd.getpwuid(number)
    with pytest.raises(KeyError):
        grp.getgrgid(number)


def test_a_directory_is_asked_once(monkeypatch):
    asked = []

    def named(number):
        asked.append(number)
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", named)

    assert unused() == unused()
    assert len(asked) == 1


def test_a_number_that_a_process_has_by_now_is_drawn_anew(monkeypatch):
    first = unused()
    monkeypatch.setattr(identity, "_of_processes", lambda: iter([first]))

    assert unused() != first


def test_a_number_with_a_name_is_not_taken(monkeypatch):
    names = iter([True, True, False])
    monkeypatch.setattr(identity, "_is_named", lambda _: next(names))

    unused()

    assert next(names, None) is None


@pytest.mark.parametrize("allowed", [(), (Range(0, 0),), (Range(0, 1000),)])
def test_a_lack_of_free_user_ids_is_reported(monkeypatch, allowed):
    monkeypatch.setattr(identity, "_mapped", lambda _: allowed)

    with pytest.raises(HostError, match="no user id is free"):
        unused()


def test_numbers_that_users_give_to_containers_are_not_taken(monkeypatch, tmp_path):
    given_away = tmp_path / "subuid"
    given_away.write_text(f"anna:{PREFERRED.first}:{PREFERRED.last - PREFERRED.first}\nbad line\n:x:y\n")
    monkeypatch.setattr(identity, "_SUBORDINATE", (str(given_away),))
    monkeypatch.setattr(identity.secrets, "choice", lambda _: Range(PREFERRED.first, PREFERRED.first + 9))

    with pytest.raises(HostError, match="no user id is free"):
        unused()
