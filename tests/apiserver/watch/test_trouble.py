"""What a watch does when a server fails, and what it says of it."""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from typing import Any, ClassVar

import pytest

from rulegen.apiserver.objects import LEASES, ApiObjects
from rulegen.apiserver.watch import Watch
from rulegen.apiserver.watching.outage import OutageNotice
from rulegen.kube.objects.events import Listed
from rulegen.kube.objects.names import ObjectName
from tests.apiserver.watch.objects import TLS, asked, is_watching, service
from tests.apiserver.watching import fast, soon
from tests.fakes.faults import Fault
from tests.fakes.watches import (
    DROP,
    FINISH,
    error_event,
)


class TestTrouble:
    def test_the_server_may_ask_for_a_pause(self, api, watch, seen):
        pauses: list[float] = []
        api.fail("services", Fault.status(429, retry_after=7), Fault.status(503, retry_after=9999))
        watch(timing={"sleep": lambda _, seconds: pauses.append(seconds)})

        assert [seconds for seconds in pauses if seconds > 1] == [7.0, 600.0]
        assert seen.of("Service")

    def test_an_error_event_may_ask_for_a_pause_too(self, api, watch):
        pauses: list[float] = []
        watcher = watch(timing={"sleep": lambda _, seconds: pauses.append(seconds)})
        assert is_watching(watcher)
        api.disturb("services", error_event(429, retry_after=8))
        assert soon(lambda: 8.0 in pauses)

    def test_a_server_that_always_fails_is_asked_ever_less(self, api, watch):
        pauses: list[float] = []
        api.fail("services", *[Fault.status(500)] * 8)
        timing = {"first_pause": 0.5, "longest_pause": 30.0, "draw": lambda _, most: most}
        watch(timing={**timing, "sleep": lambda _, seconds: pauses.append(seconds)})
        assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]

    def test_watches_that_end_at_once_are_begun_with_pauses(self, api, watch):
        watch(timing={"first_pause": 0.2, "draw": lambda _, most: most, "longest_pause": 10.0, "short_watch": 1.0})
        api.disturb("services", *[FINISH] * 50)
        time.sleep(0.5)
        assert len(asked(api, "services", watched=True)) <= 4

    def test_a_server_that_forgets_at_once_is_asked_with_pauses(self, api, watch):
        watch(timing={"first_pause": 0.2, "draw": lambda _, most: most, "longest_pause": 10.0, "short_watch": 1.0})
        api.disturb("services", *[error_event(410)] * 50)
        time.sleep(0.5)
        assert len(asked(api, "services", watched=False)) <= 5

    def test_what_may_not_be_listed_is_logged_once_and_asked_slowly(self, api, watch, seen, warnings):
        pauses: list[float] = []
        api.put("services", service("web"))
        api.fail("services", *[Fault.status(403, "user x cannot list")] * 5)
        watch(timing={"slow_pause": 60.0, "sleep": lambda _, seconds: pauses.append(seconds)})

        (before,) = warnings
        hint = "grant it to this user: list services, in all namespaces"
        assert before == f"{api.url}: not allowed to list services (403: user x cannot list); hint: {hint}"
        assert len([seconds for seconds in pauses if 30 <= seconds <= 60]) == 3
        assert len([seconds for seconds in pauses if seconds < 1]) == 2  # it may only not know its roles yet
        assert [len(each.objects) for each in seen.of("Service")] == [1]

    def test_what_was_listed_stays_when_the_right_is_taken(self, api, watch, seen, warnings):
        api.put("services", service("web"))
        watcher = watch()
        assert is_watching(watcher)
        api.fail("services", *[Fault.status(403, "no")] * 3)
        api.disturb("services", DROP)
        assert soon(lambda: warnings)
        assert seen.names("Service") == ["web"]

        api.put("services", service("new"))
        assert soon(lambda: seen.names("Service") == ["new", "web"])
        assert not watcher.counts().troubles

    @pytest.mark.parametrize(("code", "warned"), [(403, 1), (404, 0)])
    def test_a_server_may_lack_or_deny_service_cidrs(self, api, watch, seen, warnings, code, warned):
        cidrs = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}
        api.put("servicecidrs", cidrs)
        api.fail("servicecidrs", Fault.status(code, "no"))
        watch(service_cidrs=True)
        assert len(warnings) == warned
        assert soon(lambda: seen.names("ServiceCIDR") == ["kubernetes"])
        assert [len(each.objects) for each in seen.of("ServiceCIDR")] == [0, 1]

    def test_an_unreachable_server_is_logged_once(self, api, watch, seen, warnings):
        api.put("services", service("a"), service("b"))
        watcher = watch(timing={"outage": 0.3})
        assert is_watching(watcher)
        api.go_away()
        api.delete("services", "shop", "a")
        time.sleep(0.5)
        assert seen.names("Service") == ["a", "b"]
        assert "Service" in watcher.counts().troubles
        assert watcher.counts().contact_age_s["Service"] >= 0.4
        api.come_back()

        assert soon(lambda: seen.names("Service") == ["b"])
        assert watcher.counts().lists["Service"] == 2
        assert soon(lambda: not watcher.counts().troubles)
        assert len(warnings) == len(set(warnings)) <= 2

    def test_a_server_put_back_to_a_backup_while_it_was_away(self, api, watch, seen):
        api.put("services", service("a"))
        watch(timing={"outage": 0.2})
        api.go_away()
        api.set_back()
        api.put("services", service("b"))
        time.sleep(0.3)
        api.come_back()
        assert soon(lambda: seen.names("Service") == ["a", "b"])

    def test_a_server_that_refuses_our_version_for_no_good_reason(self, api, watch, seen):
        api.put("services", service("a"))
        watcher = watch(timing={"outage": 60.0})
        assert is_watching(watcher)
        api.fail("services", *[Fault.status(504, "Too large resource version")] * 3)
        api.disturb("services", DROP)
        assert soon(lambda: len(seen.of("Service", Listed)) == 2)

    def test_a_failed_consumer_gets_all_objects_again(self, api, tmp_path, seen, warnings):
        api.put("services", service("a"))
        failing = iter([ValueError("full"), None, ValueError("again")])

        def emit(event: Any) -> None:
            if event.kind.__name__ == "Service" and (error := next(failing, None)):
                raise error
            seen(event)

        watcher = Watch(emit, kubeconfig=api.kubeconfig(tmp_path), warn=warnings.append, timing=fast())
        with watcher:
            assert soon(lambda: seen.names("Service") == ["a"])
            api.put("services", service("b"))
            assert soon(lambda: seen.names("Service") == ["a", "b"])
        assert warnings[0] == "services: ValueError: full"


class TestWaking:
    """Who reaches the server again wakes the others, which would wait for up to half a minute, one by one."""

    LONG: ClassVar[dict[str, Any]] = {
        "first_pause": 60.0,
        "longest_pause": 60.0,
        "draw": lambda _, most: most,
        "wake_spread": 0.2,
        "short_watch": 0.0,
        "watch_silence": 60.0,
    }

    @staticmethod
    def are_in_trouble(watcher: Watch, number: int) -> bool:
        return soon(lambda: sum(watcher.counts().errors.values()) == number)

    def test_all_are_back_soon_after_the_first(self, api, watch, seen):
        watcher = watch(timing=self.LONG, ingress=True)
        watcher.refer_to(secrets=[ObjectName("shop", f"tls-{number}") for number in range(10)])
        assert is_watching(watcher, "Secret")
        assert soon(lambda: not watcher.unanswered())
        api.go_away()
        assert self.are_in_trouble(watcher, 5)
        api.come_back()
        time.sleep(0.1)
        assert watcher.counts().watches["Secret"] == 1  # nobody has noticed yet

        watcher.refer_to(secrets=[TLS, *(ObjectName("shop", f"tls-{number}") for number in range(10))])
        began = time.monotonic()
        assert is_watching(watcher, "Secret", 2)
        assert all(is_watching(watcher, kind, 2) for kind in ("Service", "EndpointSlice", "Ingress", "IngressClass"))
        assert time.monotonic() - began < 2.0

    def test_what_is_written_wakes_who_reads(self, api, watch, seen):
        watcher = watch(timing=self.LONG)
        assert is_watching(watcher)
        assert is_watching(watcher, "EndpointSlice")
        api.go_away()
        assert self.are_in_trouble(watcher, 2)
        api.come_back()
        ApiObjects(watcher.link).list(LEASES, "rulegen", "")
        assert is_watching(watcher, times=2)

    def test_a_server_that_asked_for_a_pause_is_not_asked_sooner(self, api, watch, seen):
        watcher = watch(timing={**self.LONG, "outage": 600.0})
        assert is_watching(watcher)
        assert is_watching(watcher, "EndpointSlice")
        api.fail("services", Fault.status(429, retry_after=30))
        api.break_connections()
        assert self.are_in_trouble(watcher, 2)
        ApiObjects(watcher.link).list(LEASES, "rulegen", "")
        assert is_watching(watcher, "EndpointSlice", 2)
        time.sleep(0.3)
        assert watcher.counts().watches["Service"] == 1

    def test_a_failing_collection_is_not_asked_more_for_others_sake(self, api, watch, seen):
        watcher = watch(timing=self.LONG)
        assert is_watching(watcher)
        api.fail("services", *[Fault.status(500)] * 50)
        api.disturb("services", DROP)
        assert soon(lambda: ("Service", "cut") in watcher.counts().errors)
        ApiObjects(watcher.link).list(LEASES, "rulegen", "")
        assert soon(lambda: ("Service", "500") in watcher.counts().errors)
        for _ in range(5):
            ApiObjects(watcher.link).list(LEASES, "rulegen", "")
        time.sleep(0.3)
        assert watcher.counts().errors["Service", "500"] == 1


class TestSaying:
    """That the server is away is said once, within seconds, and that it is back; in words of the field."""

    PATIENT: ClassVar[dict[str, float]] = {"list_silence": 20.0, "watch_silence": 60.0}
    """So that a busy machine is not taken for a silent server."""

    @pytest.fixture
    def notices(self) -> list[OutageNotice]:
        return []

    def test_a_server_that_goes_and_comes_back(self, api, watch, seen, notices):
        watcher = watch(notice=notices.append, ingress=True, timing=self.PATIENT)
        watcher.refer_to(secrets=[ObjectName("shop", f"tls-{number}") for number in range(10)])
        assert is_watching(watcher, "Secret")
        api.go_away()
        assert soon(lambda: notices)
        time.sleep(0.3)
        api.come_back()
        assert soon(lambda: len(notices) == 2)
        time.sleep(0.1)
        away, back = notices
        assert away.message == "the API server does not answer"
        assert away.fields["error"].startswith(f"{api.url}: ")
        since = dt.datetime.fromisoformat(away.fields["since"])
        assert abs((dt.datetime.now(dt.UTC) - since).total_seconds()) < 5
        assert "kept" in away.fields["meanwhile"]
        assert (back.is_well, back.message) == (True, "the API server answers again")
        assert "Cuttable" not in str(away)

    def test_one_that_is_away_when_we_begin(self, api, watch, notices):
        api.go_away()
        watch(is_synced=False, notice=notices.append, timing=self.PATIENT)
        assert soon(lambda: notices)
        (away,) = notices
        assert away.fields["error"] == f"{api.url}: cannot be reached: Connection refused"
        assert away.fields["meanwhile"] == "no change is applied before all lists have been received"
        api.come_back()
        assert soon(lambda: [each.is_well for each in notices] == [False, True])

    @pytest.mark.parametrize("sort", ["mute", "stall"])
    def test_one_that_takes_a_request_and_says_nothing(self, api, watch, notices, sort):
        released = threading.Event()
        api.fail("services", getattr(Fault, sort)(released))
        watch(is_synced=False, notice=notices.append, timing={**self.PATIENT, "overdue": 0.3})
        assert soon(lambda: notices)
        (away,) = notices
        assert re.search(r"list services: no answer for \d+ s", away.fields["error"])
        released.set()
        assert soon(lambda: [each.is_well for each in notices] == [False, True])

    @pytest.mark.parametrize(
        ("fault", "message", "hint"),
        [
            (Fault.status(401, "Unauthorized"), "the API server denies access", "renew the token"),
            (Fault.status(503, "starting"), "the API server answers with errors", "check its log"),
            (Fault.status(429, retry_after=0), "the API server answers with errors", "try again"),
        ],
        ids=["401", "503", "429"],
    )
    def test_one_that_does_not_want_us(self, api, watch, notices, fault, message, hint):
        for noun in ("services", "endpointslices"):
            api.fail(noun, *[fault] * 1000)
        watch(is_synced=False, notice=notices.append, timing={**self.PATIENT, "notice": 0.5})
        assert soon(lambda: notices)
        time.sleep(0.2)
        assert len(notices) == 1, notices
        (said,) = notices
        assert said.message == message
        assert hint in said.fields["hint"]
        api.calm_down()
        assert soon(lambda: [each.is_well for each in notices] == [False, True])

    def test_a_break_that_is_over_at_once_is_not_said(self, api, watch, notices):
        watcher = watch(notice=notices.append, timing={**self.PATIENT, "notice": 2.0})
        for times in (1, 2, 3):
            assert is_watching(watcher, times=times)
            api.break_connections()
        assert is_watching(watcher, times=4)
        assert not notices

    def test_a_missing_right_is_logged_with_a_hint_and_when_granted(self, api, watch, notices):
        watcher = watch(notice=notices.append, timing=self.PATIENT)
        api.fail("secrets", *[Fault.status(403, "no")] * 3)
        watcher.refer_to(secrets=[TLS])
        assert soon(lambda: len(notices) == 2)
        assert notices[0].fields["hint"] == (
            "grant it to this user: get, list and watch secrets named tls in namespace shop"
        )
        assert str(notices[1]).startswith("no longer: ")
