"""The schedule of a sync: what is due when, and for how long nothing is tried after a failure."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.agent.retry import LONGEST_PAUSE_S, RetryPause
from rulegen.agent.services.schedule import Schedule, SyncIntervals
from tests.agent.stage import Clock
from tests.sizes import examples

INTERVALS = SyncIntervals(min_sync_s=1.0, sync_s=30.0, quiet_s=0.2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schedule(clock) -> Schedule:
    """Return the schedule of an agent that has just checked, which took no time."""
    made = Schedule(clock, INTERVALS)
    made.checked(0.0, has_changed=True)
    made.must_check = False
    return made


def test_a_check_is_due_after_the_period(schedule, clock):
    assert schedule.due_in(math.inf) == 30
    clock.now += 10
    schedule.is_untouched()
    assert schedule.due_in(math.inf) == 30


def test_a_sync_is_due_when_changes_may_be_written(schedule):
    schedule.synced()
    assert schedule.due_in(schedule.sync_at) == 1


def test_foreign_changes_are_checked_once_it_is_quiet(schedule):
    schedule.rules_changed()
    assert (schedule.must_check, schedule.due_in(math.inf)) == (True, pytest.approx(0.2))


def test_after_a_long_check_foreign_changes_wait(schedule):
    """Who writes rules of their own without pause costs at most a quarter of the time."""
    schedule.checked(2.0, has_changed=False)
    schedule.rules_changed()
    assert schedule.due_in(math.inf) == 6


def test_long_after_a_long_check_foreign_changes_are_checked_at_once(schedule, clock):
    schedule.checked(2.0, has_changed=False)
    clock.now += 10
    schedule.rules_changed()
    assert schedule.due_in(math.inf) == pytest.approx(0.2)


def test_the_host_is_read_at_most_once_in_the_least_time(schedule, clock):
    schedule.host_read()
    clock.now += 0.1
    schedule.host_changed()
    assert schedule.due_in(math.inf) == pytest.approx(0.9)


def test_pauses_double_up_to_20_seconds_until_a_success(schedule, clock):
    pauses = []
    for _ in range(8):
        pauses.append(schedule.failed())
        assert schedule.is_paused
        clock.now += pauses[-1]
        assert not schedule.is_paused
    assert pauses == [1, 2, 4, 8, 16, 20, 20, 20]
    schedule.succeeded()
    assert schedule.failed() == 1


def test_a_pause_of_its_own_bounds():
    pause = RetryPause(0.5, 3.0)
    assert [pause.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    pause.succeeded()
    assert (pause.now_s, pause.failed()) == (0.0, 0.5)


STEPS = ("rules_changed", "host_changed", "host_read", "is_untouched", "synced", "succeeded", "failed", "wait")


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 40)), max_size=30))
def test_whatever_happens_nothing_is_late_and_no_pause_is_cut(steps):
    """A check is never further away than its period or a pause; what failed is not tried before its pause is over."""
    clock = Clock()
    schedule = Schedule(clock, INTERVALS)
    paused_until = clock.now
    for step, seconds in steps:
        before = schedule.check_at
        if step == "wait":
            clock.now += seconds
        elif step == "failed":
            paused_until = clock.now + schedule.failed()
        else:
            getattr(schedule, step)()
        if step in {"rules_changed", "host_changed"}:
            assert schedule.check_at <= before
        due_in = schedule.due_in(math.inf)
        assert due_in >= 0
        assert clock.now + due_in >= paused_until
        assert due_in <= max(INTERVALS.sync_s, LONGEST_PAUSE_S) + 1e-6  # sums of times are rounded
