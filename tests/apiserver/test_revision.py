"""When a server's revisions say that it was set back: a table, and whatever order answers come in."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.watching.revision import Revisions, number


@dataclass
class Server:
    """Answers with a revision, or with an error.

    Attributes:
        asked: How often it was asked.
    """

    revision: str = "0"
    error: ApiError | None = None
    asked: int = 0
    now: float = 100.0
    set_back: list[tuple[int, int]] = field(default_factory=list)

    def revisions(self) -> Revisions:
        return Revisions(lambda: self.now, lambda *reported: self.set_back.append(reported))

    def ask(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.revision


@pytest.mark.parametrize(
    ("reported", "answer", "goes_on", "set_back"),
    [
        ("100", "100", True, []),
        ("100", "101", True, []),
        ("100", "99", False, [(99, 100)]),
        ("9", "10", True, []),  # as numbers, not as texts
        ("18446744073709551616", "18446744073709551615", False, [(18446744073709551615, 18446744073709551616)]),
        ("100", "", False, []),  # nothing can be compared: this one lists anew
        ("100", "abc", False, []),
        ("abc", "100", False, []),
        ("", "100", False, []),
        ("0x64", "100", False, []),
        ("\u0661\u0662", "100", False, []),
        ("100", "-5", False, []),
        ("100", "9" * 40, False, []),
    ],
)
def test_whether_a_watch_may_go_on(reported, answer, goes_on, set_back):
    server = Server(answer)
    revisions = server.revisions()
    revisions.heard(reported, revisions.era)
    assert revisions.is_whole(reported, server.ask, since=100.0) == goes_on
    assert server.set_back == set_back
    assert revisions.era == len(set_back)


def test_a_revision_of_one_watch_counts_for_all():
    server = Server("150")
    revisions = server.revisions()
    revisions.heard("200", 0)
    assert not revisions.is_whole("100", server.ask, since=100.0)
    assert server.set_back == [(150, 200)]


def test_a_revision_during_the_request_proves_nothing():
    """An answer is as old as its question: a list of many pages takes half a minute."""
    revisions = Server().revisions()
    revisions.heard("100", 0)
    mark = revisions.mark()
    revisions.heard("200", 0)
    assert revisions.listed("150", mark) == 0


def test_a_list_begun_before_a_restore_was_noticed_is_dropped():
    revisions = Server().revisions()
    revisions.heard("200", 0)
    mark = revisions.mark()
    assert revisions.listed("150", revisions.mark()) == 1
    assert revisions.listed("200", mark) is None
    assert revisions.listed("151", revisions.mark()) == 1


def test_what_a_watch_from_before_still_tells_counts_no_longer():
    server = Server("160")
    revisions = server.revisions()
    revisions.heard("200", 0)
    revisions.listed("150", revisions.mark())
    revisions.heard("201", 0)
    assert revisions.is_whole("150", server.ask, since=100.0)


def test_one_question_serves_all_that_come_back_at_the_same_time():
    server = Server("100")
    revisions = server.revisions()
    for _ in range(300):
        assert revisions.is_whole("100", server.ask, since=100.0)
    assert server.asked == 1
    server.now += 1
    assert revisions.is_whole("100", server.ask, since=100.5)  # its watch broke off since
    assert server.asked == 2
    server.now += 60
    assert revisions.is_whole("100", server.ask, since=100.5)  # it waited for long
    assert server.asked == 3


def test_nobody_waits_twice_for_an_answer_that_never_came():
    server = Server(error=ApiError("silent", ApiReason.TIMEOUT))
    revisions = server.revisions()
    for _ in range(300):
        with pytest.raises(ApiError):
            revisions.is_whole("100", server.ask, since=100.0)
    assert server.asked == 1


def test_what_one_may_not_read_keeps_no_other_from_asking():
    server = Server("100", error=ApiError("forbidden", ApiReason.STATUS, status=403))
    revisions = server.revisions()
    with pytest.raises(ApiError):
        revisions.is_whole("100", server.ask, since=100.0)
    server.error = None
    assert revisions.is_whole("100", server.ask, since=100.0)


@given(st.lists(st.tuples(st.sampled_from(["heard", "listed", "set back"]), st.integers(1, 50)), max_size=40))
def test_only_a_server_that_was_set_back_begins_an_era(steps):
    server = Server()
    revisions = server.revisions()
    now, highest, eras = 100, 0, 0
    for what, by in steps:
        now = now - by if what == "set back" else now + by
        now = max(now, 1)
        if what == "heard":
            now = max(now, highest)  # a watch that goes on tells nothing from before
            revisions.heard(str(now), revisions.era)
            highest = now
        else:
            eras += now < highest
            assert revisions.listed(str(now), revisions.mark()) == eras
            highest = now
        assert revisions.era == eras


@pytest.mark.parametrize("text", ["", "0", "01", "1e3", " 1", "1 ", "+1", "\u00b2", "None"])
def test_what_is_no_revision(text):
    assert number(text) is None
