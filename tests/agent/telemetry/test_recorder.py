"""Events: what users are told, in a form that an API server takes, once, and never at the expense of the work."""

from __future__ import annotations

import io
import threading
import time

import pytest

from rulegen.agent.telemetry import events as module
from rulegen.agent.telemetry.events import EventRequest, ObjectReference, Recorder
from tests.agent.talking import Place
from tests.apiserver.watching import soon
from tests.fakes.faults import Fault

WEB = ObjectReference("v1", "Service", "shop", "web", "uid-1")
NODE = ObjectReference("v1", "Node", "", "node1", "uid-2")


def drift(note: str = "rule a was deleted") -> EventRequest:
    return EventRequest(NODE, "DriftMended", "Mend", note)


def rejected(note: str = "not served: spec.ports: none", about: ObjectReference = WEB) -> EventRequest:
    return EventRequest(about, "Rejected", "Serve", note, is_shared=True)


def events(place: Place) -> list[dict]:
    return list(place.api.kept("events").values())


class TestSending:
    def test_an_event_is_one_that_a_server_takes_and_kubectl_finds(self, place):
        place.recorder().send(rejected())
        (event,) = events(place)
        assert event["regarding"] == {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "shop",
            "name": "web",
            "uid": "uid-1",
        }
        assert (event["type"], event["reason"], event["action"]) == ("Warning", "Rejected", "Serve")
        assert (event["reportingController"], event["reportingInstance"]) == ("rulegen.io/agent", "node1")
        assert event["eventTime"] == "2026-01-02T03:04:05.678901Z"
        assert event["metadata"]["namespace"] == "shop"

    def test_events_about_a_node_are_where_kubectl_looks_for_them(self, place):
        place.recorder().send(drift())
        (event,) = events(place)
        assert event["metadata"]["namespace"] == "default"
        assert "namespace" not in event["regarding"]

    def test_the_same_again_is_counted_in_the_event_that_is_there(self, place):
        recorder = place.recorder()
        for _ in range(5):
            recorder.send(drift())
            place.clock.now += 1
        (event,) = events(place)
        assert event["series"] == {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.678901Z"}
        place.clock.now += module.PATCH_S
        recorder.settle()
        (event,) = events(place)
        assert event["series"]["count"] == 5
        place.clock.now += module.SERIES_S
        recorder.send(drift())
        assert len(events(place)) == 2

    def test_a_deleted_event_is_created_again(self, place):
        recorder = place.recorder()
        recorder.send(drift())
        for namespace, name in place.api.kept("events"):
            place.api.delete("events", namespace, name)
        recorder.send(drift())
        assert events(place) == []
        place.clock.now += 1
        recorder.send(drift())
        assert len(events(place)) == 1

    def test_a_deleted_namespace_does_not_stop_other_events(self, place):
        recorder = place.recorder()
        place.api.fail("events", Fault.terminating("events.events.k8s.io", "web.1", "shop"))
        recorder.send(rejected())
        recorder.send(drift())
        assert [event["metadata"]["namespace"] for event in events(place)] == ["default"]

    def test_a_fault_of_ours_keeps_nothing_else_from_being_sent(self, place, monkeypatch):
        recorder = place.recorder()
        create = recorder.objects.create
        broken = iter([True])

        def create_or_fail(*words):
            if next(broken, False):
                raise KeyError("a fault of ours")
            return create(*words)

        monkeypatch.setattr(recorder.objects, "create", create_or_fail)
        recorder.start()
        recorder.send_event(rejected())
        recorder.send_event(drift())
        assert soon(lambda: len(events(place)) == 1)
        recorder.stop()
        assert recorder.state.metrics.events["failed"] == 1

    def test_a_shared_event_is_created_once_for_all_nodes(self, place):
        for node in ("node1", "node2", "node3"):
            recorder = place.recorder(node)
            recorder.send(rejected())
            recorder.send(rejected())
            recorder.send(rejected("another fault"))
        assert sorted(event["note"] for event in events(place)) == ["another fault", "not served: spec.ports: none"]

    @pytest.mark.not_quick
    def test_a_restarted_agent_counts_in_earlier_events(self, place):
        """They are there for an hour; `create` is answered with 409."""
        notes = [f"fault {number}" for number in range(20)]
        for start in range(3):
            recorder = place.recorder()
            for note in notes:
                recorder.send(rejected(note))
            place.clock.now += 1
            assert len(events(place)) == len(notes)
            outcomes = {"counted": 20} if start else {"sent": 20}
            assert recorder.state.metrics.events.values() == outcomes
        last = "2026-01-02T03:04:07.678901Z"
        assert sorted(event["note"] for event in events(place)) == sorted(notes)
        assert [event["series"] for event in events(place)] == [{"count": 3, "lastObservedTime": last}] * len(notes)
        assert "get" not in {verb for verb, _, _ in place.api.done}  # the role has no such right

    def test_a_lasting_problem_is_sent_again_later(self, place):
        recorder = place.recorder()
        recorder.send(rejected())
        place.clock.now += module.SERIES_S
        recorder.send(rejected())
        (event,) = events(place)
        assert event["series"]["count"] == 2

    @pytest.mark.not_quick
    def test_of_many_nodes_that_start_at_once_one_counts(self, place):
        for node in ("node1", "node2", "node3"):
            place.recorder(node).send(rejected())
        assert "series" not in events(place)[0]
        place.clock.now += module.PATCH_S
        for node in ("node4", "node5", "node6"):
            place.recorder(node).send(rejected())
        assert events(place)[0]["series"]["count"] == 2

    def test_an_event_of_which_the_answer_was_lost_is_one(self, place, monkeypatch):
        monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)

        def without_answer(handler) -> None:
            handler.wfile = io.BytesIO()
            place.api._serve(handler)
            handler.close_connection = True

        place.api.fail("events", Fault(without_answer))
        place.recorder().send(rejected())
        (event,) = events(place)
        assert "series" not in event

    @pytest.mark.parametrize(
        ("is_there", "faults"),
        [
            (False, [Fault.status(409), None]),  # it went before it was read
            (True, [Fault.status(409), Fault.status(404)]),
            (True, [Fault.status(409), None, Fault.status(409, "the object has been modified")]),
            (True, [Fault.status(409), None, Fault.status(404)]),
            (True, [Fault.status(409), Fault.status(503), None, Fault.hang_up()]),
        ],
        ids=range(5),
    )
    def test_whatever_comes_between_none_is_lost(self, place, monkeypatch, faults, is_there):
        monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
        if is_there:
            place.recorder().send(rejected())
            place.clock.now += 1
        place.api.fail("events", *faults)
        recorder = place.recorder()
        recorder.send(rejected())
        (event,) = events(place)
        assert ("series" in event) == is_there
        assert recorder.state.metrics.events["failed"] == 0

    def test_events_of_an_object_are_limited(self, place):
        """Of one object there are a few events at once and then one now and then."""
        recorder = place.recorder()
        for number in range(100):
            recorder.send(rejected(f"fault {number}"))
        other = ObjectReference("v1", "Service", "shop", "other", "uid-3")
        recorder.send(rejected(about=other))
        assert len(events(place)) == module.BURST + 1
        assert recorder.state.metrics.events["dropped"] == 100 - module.BURST
        place.clock.now += module.REFILL_S
        recorder.send(rejected("one more"))
        recorder.send(rejected("and another"))
        assert len(events(place)) == module.BURST + 2

    @pytest.mark.parametrize(
        "note", ["x" * 5000, "\N{SNOWMAN}" * 1000, "a\nb\x1b[31m\u202e", "\udcff" * 900, "", "\0"], ids=range(6)
    )
    def test_whatever_a_note_holds_a_server_takes_it(self, place, note):
        place.recorder().send(rejected(note))
        (event,) = events(place)
        assert event["note"].isprintable()
        assert len(event["note"].encode()) <= 1024

    @pytest.mark.parametrize("name", ["../../secrets/a", "a/b", "", "A" * 300, "a%2fb", "(no name)"])
    def test_what_can_be_no_name_is_not_asked_for(self, place, name):
        place.recorder().send(rejected(about=ObjectReference("v1", "Service", "shop", name)))
        place.recorder().send(rejected(about=ObjectReference("v1", "Service", name or "..", "web")))
        assert place.api.requests == []

    def test_names_of_253_characters_have_events_too(self, place):
        place.recorder().send(rejected(about=ObjectReference("v1", "Service", "shop", ".".join(["a" * 62] * 4)[:253])))
        assert len(events(place)) == 1


class TestTrouble:
    @pytest.fixture
    def recorder(self, place, monkeypatch) -> Recorder:
        monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
        return place.recorder()

    def test_trouble_that_passes_loses_nothing(self, place, recorder):
        faults = [Fault.status(503), Fault.status(429, retry_after=0), Fault.hang_up(), Fault.status(500)]
        place.api.fail("events", *faults)
        recorder.send(drift())
        assert len(events(place)) == 1

    def test_a_server_that_is_away_for_minutes_loses_nothing(self, place, recorder, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.01)
        place.api.go_away()
        recorder.start()
        for number in range(5):
            recorder.send_event(rejected(f"fault {number}"))
        assert soon(lambda: recorder._waiting.qsize() == 4)
        time.sleep(0.3)  # longer than it is tried where a server answers with an error
        place.clock.now += 120
        place.api.come_back()
        assert soon(lambda: len(events(place)) == 5)
        recorder.stop()
        assert {event["eventTime"] for event in events(place)} == {"2026-01-02T03:04:05.678901Z"}  # when they were told

    def test_who_may_not_write_events_asks_once_and_says_so(self, place, recorder):
        place.api.allows = lambda _: False
        for number in range(20):
            recorder.send(rejected(f"fault {number}"))
        assert len(place.api.requests) == 1
        assert recorder.log.out.getvalue().count("not allowed to write events") == 1
        place.api.allows = None
        place.clock.now += module.SILENCE_S
        recorder.send(rejected("later"))
        assert len(events(place)) == 1

    def test_what_a_server_does_not_take_is_dropped(self, place, recorder):
        place.api.fail("events", Fault.status(422, "no"))
        recorder.send(drift())
        recorder.send(rejected())
        assert [event["reason"] for event in events(place)] == ["Rejected"]

    def test_a_namespace_that_is_going_away_harms_nobody(self, place, recorder):
        place.api.fail("events", Fault.status(404, 'namespaces "shop" not found'))
        recorder.send(rejected())
        assert recorder.state.metrics.events["failed"] == 1


class TestThread:
    @pytest.mark.not_quick
    def test_telling_waits_for_nobody(self, place):
        released = threading.Event()
        place.api.fail("events", *[Fault.mute(released)] * 3)
        recorder = place.recorder()
        recorder.start()
        try:
            began = time.monotonic()
            for number in range(module.WAITING + 100):
                recorder.send_event(rejected(f"fault {number}"))
            assert time.monotonic() - began < 2
            assert recorder.state.metrics.events["dropped"] >= 99
        finally:
            released.set()
            place.api.go_away()
            recorder.stop()
            place.api.come_back()

    def test_the_end_sends_what_waits_and_the_last_counts(self, place, monkeypatch):
        monkeypatch.setattr(module, "END_S", 20.0)  # however busy the machine is
        recorder = place.recorder()
        recorder.start()
        for _ in range(4):
            recorder.send_event(drift())
        recorder.send_event(rejected())
        recorder.stop()
        assert soon(lambda: {event["reason"] for event in events(place)} == {"DriftMended", "Rejected"})
        (counted,) = (event for event in events(place) if event["reason"] == "DriftMended")
        assert counted["series"]["count"] == 4
        assert not [thread for thread in threading.enumerate() if thread.name == "events"]

    def test_no_server_at_all_fails_nothing(self, place):
        recorder = place.recorder()
        place.api.go_away()
        recorder.start()
        recorder.send_event(drift())
        assert soon(lambda: "connection" in recorder.log.out.getvalue() or recorder._waiting.empty())
        recorder.stop()
        place.api.come_back()
        assert recorder.state.metrics.events["failed"] == 1
