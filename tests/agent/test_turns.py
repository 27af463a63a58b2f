"""A large Service is written behind all others, in turns, and others are written between the calls that it takes."""

from __future__ import annotations

import pytest

from rulegen.agent.loop import Wake
from rulegen.agent.turns import PAUSE_S, Turns
from rulegen.kube.world import ObjectName
from tests.agent.stage import Stage, changed, endpoints, service

A, B = ObjectName("demo", "a"), ObjectName("demo", "b")


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr("rulegen.model.limits.LARGE", 20)
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
            stage.loop.hear(changed(endpoints("small", 1, 2)))
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


def test_what_shares_an_address_with_a_large_service_waits_for_it(stage):
    shared = {"external_ips": ("198.51.100.1",)}
    seen: list[bool] = []

    def on_call() -> None:
        if not seen:
            stage.loop.hear(changed(service("small", 2, age="2020-01-01T00:00:00Z", **shared)))
        seen.append("10.244.1.1:8080" in stage.destinations())

    stage.writer.on_call = on_call
    stage.at(5, changed(service("large", 3, **shared)), large(30)[1])
    stage.run(9)
    assert seen
    assert stage.is_right()


def test_a_large_service_that_changes_all_the_time_is_written_now_and_then(stage):
    for second in range(5, 65):
        stage.at(second, *large(30 + second % 7), changed(endpoints("small", second % 2 + 1)))
    calls: list[float] = []
    stage.writer.on_call = lambda: calls.append(stage.clock.now)
    stage.run(90)
    assert 5 <= len(set(calls)) <= 1 + 60 / PAUSE_S
    assert len(stage.written) > 60
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired


def test_a_failed_call_of_a_small_change_has_both_written_again(stage):
    seen: list[int] = []

    def on_call() -> None:
        if not seen:
            stage.loop.hear(changed(endpoints("small", 1, 2)))
            stage.writer.failures.append("lost")
        seen.append(1)

    stage.writer.on_call = on_call
    stage.at(5, *large(30))
    stage.run(60)
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired


def test_what_ends_the_loop_comes_through_while_a_large_service_is_written(stage):
    stage.writer.on_call = lambda: stage.loop.signals.put(Wake("stop"))
    stage.at(5, *large(30))
    assert stage.run(3000) == "stop"
    assert stage.clock.now < 200


def test_of_large_services_the_one_that_waits_longest_is_next():
    turns = Turns()
    turns.wait({A}, 1)
    turns.wait({A, B}, 2)
    assert turns.chosen({A, B}, 3) == A
    turns.wrote(A, 3, 4)
    turns.wait({A, B}, 5)
    assert turns.chosen({A, B}, 5) == B
    turns.wrote(B, 5, 25)
    turns.wait({A, B}, 26)
    assert turns.chosen({A, B}, 26) == A
    turns.wrote(A, 26, 27)
    turns.wait({B}, 27)
    assert turns.chosen({B}, 80) is None
    assert turns.chosen({B}, 25 + 4 * 20) == B


def test_a_large_service_that_goes_is_large_still(stage):
    """What it had has to be removed."""
    stage.at(5, *large(30))
    calls: list[float] = []
    stage.at(30, lambda: setattr(stage.writer, "on_call", lambda: calls.append(stage.clock.now)))
    stage.at(31, changed(endpoints("large")))
    stage.run(40)
    assert calls
    assert stage.is_right()
