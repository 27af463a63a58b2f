"""A large Service is written behind all others, in turns, and others are written between the calls that it takes."""

from __future__ import annotations

import pytest

from rulegen.agent.inbox import Wake
from rulegen.agent.services.turns import LONGEST_S, Turns
from rulegen.kube.objects.names import ObjectName
from tests.agent.stage import Stage, changed, endpoints, service

A, B = ObjectName("demo", "a"), ObjectName("demo", "b")


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr("rulegen.model.services.limits.LARGE", 20)
    stage = Stage()
    stage.writer.chains_per_commit = 5
    stage.at(1, changed(service("small", 2)), changed(endpoints("small", 1)))
    return stage


def large(count: int) -> tuple[object, ...]:
    return changed(service("large", 3)), changed(endpoints("large", *range(10, 10 + count)))


def test_others_are_written_while_a_large_service_is_written(stage):
    """The change comes behind the first call, and is in the kernel before the last."""
    seen: list[bool] = []

    def on_call() -> None:
        if not seen:
            stage.inbox.on_event(changed(endpoints("small", 1, 2)))
        seen.append("10.244.1.2:8080" in stage.destinations())

    stage.writer.on_call = on_call
    stage.at(5, *large(30))
    stage.run(9)
    assert seen[:1] == [False]
    assert seen[2:] == [True] * (len(seen) - 2)
    assert len(seen) > 4
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired


def test_small_changes_come_first(stage):
    first: list[list[str]] = []
    stage.writer.on_call = lambda: first.append(stage.destinations())
    stage.at(5, *large(30), changed(endpoints("small", 7)))
    stage.run(9)
    assert first[0] == ["10.244.1.7:8080"]
    assert stage.is_right()


def test_what_shares_an_address_with_a_large_service_waits(stage):
    """What shares an address with a large service waits for it."""
    shared = {"external_ips": ("198.51.100.1",)}
    seen: list[bool] = []

    def on_call() -> None:
        if not seen:
            stage.inbox.on_event(changed(service("small", 2, age="2020-01-01T00:00:00Z", **shared)))
        seen.append("10.244.1.1:8080" in stage.destinations())

    stage.writer.on_call = on_call
    stage.at(5, changed(service("large", 3, **shared)), large(30)[1])
    stage.run(9)
    assert seen
    assert stage.is_right()


def slow(stage, seconds: float, calls: list[float]) -> None:
    """Have each call of a large change take so long, and note when it was."""

    def on_call() -> None:
        calls.append(stage.clock.now)
        stage.clock.now += seconds

    stage.writer.on_call = on_call


@pytest.mark.not_quick
def test_a_slow_large_service_leaves_most_time_to_others(stage):
    """A large service that is slow leaves most of the time to others."""
    for second in range(5, 305):
        stage.at(second, *large(30 + second % 7), changed(endpoints("small", second % 2 + 1)))
    calls: list[float] = []
    slow(stage, 2, calls)
    stage.run(360)
    assert 0.1 < 2 * len(calls) / 300 < 0.3
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired


@pytest.mark.not_quick
def test_a_large_service_that_is_written_quickly_does_not_wait(stage):
    """As a rolling update of 3,000 pods: each step is in the kernel before the next, whatever else changes."""
    late = []
    for second in range(5, 65, 2):
        stage.at(second, *large(30 + second % 7), changed(endpoints("small", second % 3 + 1)))
        stage.at(second + 1.5, lambda: late.append(stage.state.desired - stage.state.applied))
    slow(stage, 0.01, [])
    stage.run(70)
    assert set(late) == {0}
    assert stage.is_right()


def test_a_slow_large_service_alone_does_not_wait(stage):
    """A slow large service does not wait where nothing else changes."""
    late = []
    stage.at(40, *large(30))
    for second in range(50, 200, 10):
        stage.at(second, *large(30 + second % 7))
        stage.at(second + 9, lambda: late.append(stage.state.desired - stage.state.applied))
    slow(stage, 0.4, [])
    stage.run(210)
    assert set(late) == {0}


@pytest.mark.not_quick
def test_a_large_service_is_written_between_foreign_changes(stage):
    """As on a node where somebody commits rules of their own all the time; the loop neither spins nor waits."""
    late = []
    for tenth in range(20, 400):
        stage.at(tenth / 10, Wake("check"))
    stage.at(5, lambda: setattr(stage.schedule, "_checks_from", stage.clock.now + 20.0))
    stage.at(5.05, Wake("check"))
    stage.at(5.06, *large(30))
    stage.at(9, lambda: late.append(stage.state.desired - stage.state.applied))
    stage.run(50)
    assert late == [0]
    assert stage.is_right()


@pytest.mark.slow
def test_two_slow_large_services_share_the_time(stage):
    calls: list[float] = []
    for second in range(40, 240):
        stage.at(second, *large(30 + second % 7))
        stage.at(second, changed(service("other", 4)), changed(endpoints("other", *range(100, 130 + second % 5))))
    slow(stage, 0.2, calls)
    stage.run(300)
    assert 0.2 * len(calls) / 200 < 0.5
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired


@pytest.mark.slow
def test_a_node_stays_healthy_while_a_large_service_waits(stage):
    """A node stays well while a large service waits for its turn."""
    well = []
    for second in range(5, 405):
        stage.at(second, *large(30 + second % 7), changed(endpoints("small", second % 2 + 1)))
        stage.at(second, lambda: well.append(stage.state.is_working and stage.state.age_s < 60))
    slow(stage, 3, [])
    stage.run(600)
    assert all(well)
    assert stage.is_right()


def test_a_failed_call_of_a_small_change_has_both_written_again(stage):
    seen: list[int] = []

    def on_call() -> None:
        if not seen:
            stage.inbox.on_event(changed(endpoints("small", 1, 2)))
            stage.writer.failures.append("lost")
        seen.append(1)

    stage.writer.on_call = on_call
    stage.at(5, *large(30))
    stage.run(60)
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired


def test_a_stop_comes_through_a_large_write(stage):
    """What ends the loop comes through while a large service is written."""
    stage.writer.on_call = lambda: stage.signals.put(Wake("stop"))
    stage.at(5, *large(30))
    assert stage.run(3000) == "stop"
    assert stage.clock.now < 200


def test_of_large_services_the_one_that_waits_longest_is_next():
    turns = Turns()
    turns.wait({A}, 101)
    turns.wait({A, B}, 102)
    assert turns.chosen({A, B}, 103) == A
    turns.wrote(A, 2, 105)
    turns.wait({A, B}, 105)
    assert turns.chosen({A, B}, 105) == B
    turns.wrote(B, 4, 109)
    turns.wait({A, B}, 112)
    assert turns.chosen({A, B}, 112) == A
    turns.wrote(A, 2, 115)
    turns.wait({B}, 115)
    assert turns.chosen({B}, 109 + 4 * 3.5 - 0.1) is None
    assert turns.oldest(116) == 116
    assert turns.chosen({B}, 109 + 4 * 3.5) == B
    assert turns.oldest(130) == 109 + 4 * 3.5


def test_a_pause_has_an_end():
    turns = Turns()
    turns.wrote_others(99)
    turns.wrote(A, 60, 160)
    turns.wrote_others(170)
    assert turns.next_at(A) == 160 + LONGEST_S


def test_a_large_service_that_goes_is_large_still(stage):
    """What it had has to be removed."""
    stage.at(5, *large(30))
    calls: list[float] = []
    stage.at(30, lambda: setattr(stage.writer, "on_call", lambda: calls.append(stage.clock.now)))
    stage.at(31, changed(endpoints("large")))
    stage.run(40)
    assert calls
    assert stage.is_right()
