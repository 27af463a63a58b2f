"""Which page is made when, and for whom."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

import pytest

from rulegen.agent.pages_server.rendering import LONGEST_REST_S, Made, Rendering, Slow
from rulegen.agent.pages_server.reply import Reply

LONG_S = 60


class Stage:
    """A page that ends when it is told to, and what was made."""

    def __init__(self) -> None:
        self.made: SimpleQueue[Made[str]] = SimpleQueue()
        self.rendering = Rendering[str](self.made.put)
        self.may_end = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def page(self) -> Reply:
        self.begun.release()
        assert self.may_end.acquire(timeout=LONG_S)
        return Reply(200, "page")

    def next(self) -> Made[str]:
        made = self.made.get(timeout=LONG_S)
        self.rendering.finished(made)
        return made


@pytest.fixture
def stage():
    return Stage()


def rested(rendering: Rendering[str]) -> None:
    while (at := rendering.next_begin()) is not None:
        time.sleep(max(at - time.monotonic(), 0))
        rendering.begin()


def test_a_page_is_for_all_who_asked_before_it_was_begun(stage):
    slow = Slow(stage.page, "lane")
    stage.rendering.ask("first", slow)
    assert stage.begun.acquire(timeout=LONG_S)
    for client in ("second", "third"):
        stage.rendering.ask(client, slow)
    stage.may_end.release(2)
    assert stage.next().clients == ("first",)
    rested(stage.rendering)
    assert stage.next().clients == ("second", "third")


def test_the_page_is_made_for_those_who_may_see_it_alone(stage):
    """Whoever is refused is so and the page is made for the others alone."""
    stage.may_end.release()
    stage.rendering.ask("first", Slow(stage.page, "lane"))
    stage.rendering.ask("stranger", Slow(stage.page, "lane", lambda: Reply(403, "")))
    stage.rendering.ask("faulty", Slow(stage.page, "lane", lambda: Reply(1 // 0, "")))
    first = stage.next()
    assert first.clients == ("first",)
    rested(stage.rendering)
    second = stage.next()
    assert (second.clients, second.answer) == ((), None)
    statuses = {client: answer.head.split()[1] for client, answer in second.refused}
    assert statuses == {"stranger": b"403", "faulty": b"500"}
    assert [stage.begun.acquire(blocking=False) for _ in range(2)] == [True, False]


def test_whoever_leaves_is_not_waited_for(stage):
    stage.rendering.ask("first", Slow(stage.page, "lane"))
    stage.rendering.ask("second", Slow(stage.page, "lane"))
    stage.rendering.leave("second")
    stage.may_end.release()
    assert stage.next().clients == ("first",)
    assert stage.rendering.next_begin() is None


def test_a_lane_rests_as_long_as_its_page_took_and_others_do_not(stage):
    stage.may_end.release(3)
    stage.rendering.ask("first", Slow(stage.page, "lane"))
    made = stage.made.get(timeout=LONG_S)
    before = time.monotonic()
    stage.rendering.finished(Made(made.slow, made.clients, made.answer, made.refused, made.number, seconds=1000))
    stage.rendering.ask("second", Slow(stage.page, "lane"))
    at = stage.rendering.next_begin()
    assert at is not None
    assert before + LONGEST_REST_S <= at <= time.monotonic() + LONGEST_REST_S
    stage.rendering.ask("third", Slow(stage.page, "other"))
    assert stage.next().clients == ("third",)


def test_a_host_without_threads_is_an_answer(stage, monkeypatch):
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    stage.rendering.ask("first", Slow(stage.page, "lane"))
    ((client, answer),) = stage.next().refused
    assert client == "first"
    assert answer.head.startswith(b"HTTP/1.1 503 ")
