"""The watcher: what it asks for, what it makes of what a server does, and that it ends when it is told to."""

from __future__ import annotations

import datetime as dt
import gc
import json
import re
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.objects import LEASES, ApiObjects
from rulegen.apiserver.transport import connection
from rulegen.apiserver.watch import Watch
from rulegen.apiserver.watching import reflector
from rulegen.apiserver.watching.outage import OutageNotice
from rulegen.errors import HostError, Rejected
from rulegen.kube.objects.events import Changed, Gone, Listed
from rulegen.kube.objects.names import Decoded, ObjectKey, ObjectName
from rulegen.kube.objects.structs import ConfigMap, Secret
from rulegen.kube.snapshot.cluster import Cluster
from tests.apiserver.watching import Consumer, fast, soon
from tests.fakeapi import FakeApi, Fault, make_certificate
from tests.fakewatch import (
    DROP,
    END_WITHIN_LINE,
    FINISH,
    GARBAGE,
    HALF_CHUNK,
    HALF_LINE,
    HANG,
    SLOW,
    error_event,
    line,
)
from tests.forwardproxy import ForwardProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TLS = ObjectName("shop", "tls")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as fake:
        yield fake


@pytest.fixture
def seen() -> Consumer:
    return Consumer()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def watch(api, tmp_path, seen, warnings) -> Iterator[Callable[..., Watch]]:
    """Start to watch, and end that with the test."""
    begun: list[Watch] = []

    def begin(*, is_synced: bool = True, timing: dict[str, Any] | None = None, **options: Any) -> Watch:
        options["kubeconfig"] = options.get("kubeconfig") or api.kubeconfig(tmp_path)
        begun.append(Watch(seen, warn=warnings.append, timing=fast(**(timing or {})), **options))
        begun[-1].start()
        assert not is_synced or soon(lambda: begun[-1].has_synced)
        return begun[-1]

    yield begin
    ends = [each.stop() for each in begun]
    assert all(ends)


def service(name: str, *, labels: dict[str, str] | None = None, cluster_ip: str = "10.96.0.10", port: int = 80) -> dict:
    return {
        "metadata": {"namespace": "shop", "name": name, "labels": labels or {}},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{"port": port, "protocol": "TCP"}]},
    }


def secret(name: str = "tls", value: str = "YQ==") -> dict:
    return {"metadata": {"namespace": "shop", "name": name, "uid": value}, "data": {"key": value}}


def asked(api: FakeApi, noun: str, *, watched: bool) -> list[dict[str, str]]:
    return [
        query for path, query in list(api.requests) if path.rpartition("/")[2] == noun and ("watch" in query) == watched
    ]


def is_watching(watcher: Watch, kind: str = "Service", times: int = 1) -> bool:
    return soon(lambda: watcher.counts().watches.get(kind, 0) >= times)


class TestEvents:
    def test_a_list_and_then_what_changes(self, api, watch, seen):
        api.put("services", service("a"), service("b"))
        watch()
        api.put("services", service("c"))
        api.delete("services", "shop", "a")

        assert soon(lambda: seen.names("Service") == ["b", "c"])
        assert [type(each) for each in seen.of("Service")] == [Listed, Changed, Gone]

    def test_all_kinds_that_a_node_needs(self, api, watch, seen):
        api.put("nodes", {"metadata": {"name": "worker1"}}, {"metadata": {"name": "worker2"}})
        watch(node="worker1")
        api.put("nodes", {"metadata": {"name": "worker3"}}, {"metadata": {"name": "worker1", "uid": "new"}})

        assert soon(lambda: seen.state("Node") == ({("", "worker1"): "new"}, set()))
        assert {each.kind.__name__ for each in seen.events} == {"Service", "EndpointSlice", "Node"}

    def test_ingresses_and_all_services_that_they_may_name(self, api, watch, seen):
        api.put("services", service("headless", cluster_ip="None"))
        api.put("ingressclasses", {"metadata": {"name": "rulegen"}, "spec": {"controller": "rulegen.io/ingress"}})
        backend = {"service": {"name": "web", "port": {"number": 80}}}
        watch(ingress=True)
        api.put("ingresses", {"metadata": {"namespace": "shop", "name": "shop"}, "spec": {"defaultBackend": backend}})

        assert soon(lambda: seen.names("Ingress") == ["shop"])
        assert seen.names("IngressClass") == ["rulegen"]
        assert seen.names("Service") == ["headless"]

    def test_a_service_that_another_proxy_takes_over_goes(self, api, watch, seen):
        other = {"service.kubernetes.io/service-proxy-name": "mesh"}
        api.put("services", service("a"), service("b", labels=other), service("c", cluster_ip="None"))
        watch()
        assert seen.names("Service") == ["a"]

        api.put("services", service("a", labels=other), service("b"))
        assert soon(lambda: seen.names("Service") == ["b"])

    def test_old_servers_know_no_field_selector(self, api, watch, seen):
        api.knows_field_selectors = False
        api.put("services", service("web"), service("headless", cluster_ip="None"))
        watch()
        assert seen.names("Service") == ["headless", "web"]

    def test_a_good_object_that_turns_bad_and_back_and_goes(self, api, watch, seen):
        api.put("services", service("web"), service("bad", port=70000))
        watch()
        assert seen.state("Service")[1] == {"Service shop/bad"}

        api.put("services", service("web", port=70000))
        assert soon(lambda: seen.state("Service") == ({}, {"Service shop/bad", "Service shop/web"}))
        api.put("services", service("web"))
        api.delete("services", "shop", "bad")
        assert soon(lambda: seen.state("Service") == ({("shop", "web"): ""}, set()))

    def test_an_empty_list_that_is_null(self, api, watch, seen):
        api.has_null_items = True
        watch()
        assert [each.objects for each in seen.of("Service")] == [()]


class TestLists:
    def test_pages_are_one_list(self, api, watch, seen):
        expected = [f"web-{number:02}" for number in range(25)]
        api.put("services", *map(service, expected))
        watch(page_size=4)

        assert len(seen.of("Service")) == 1
        assert seen.names("Service") == expected
        assert [query["limit"] for query in asked(api, "services", watched=False)] == ["4"] * 7

    def test_what_changes_between_two_pages_is_not_missed(self, api, watch, seen):
        api.put("services", *(service(f"web-{number}") for number in range(6)))

        def change(handler: Any) -> None:
            api.delete("services", "shop", "web-0")
            api.put("services", service("late"))
            api._serve(handler)

        api.fail("services", None, Fault(change))
        watch(page_size=2)

        assert soon(lambda: seen.names("Service") == ["late", *(f"web-{number}" for number in range(1, 6))])

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_list_whose_token_expires_is_read_anew_and_whole(self, api, watch, seen, times):
        expected = [f"web-{number}" for number in range(5)]
        api.put("services", *map(service, expected))
        api.fail("services", *[None, Fault.status(410, "too old")] * times)
        watch(page_size=2)

        before = seen.of("Service")  # the last 410 may be for the watch, and then there is one more list
        assert before
        assert all(sorted(each.object.metadata.name for each in listed.objects) == expected for listed in before)

    def test_a_page_that_is_too_large_is_asked_for_in_parts(self, api, watch, seen, monkeypatch):
        monkeypatch.setattr(ApiTerms, "page", 2000)
        expected = [f"web-{number:02}" for number in range(20)]
        api.put("services", *map(service, expected))
        watch()

        assert len(seen.of("Service")) == 1
        assert seen.names("Service") == expected

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.body(b"{}"),
            Fault.body(b'{"kind":"ServiceList"}'),
            Fault.body(b'{"kind":"ServiceList","metadata":{"resourceVersion":"7"},"items":{}}'),
            Fault.body(b"<html>"),
            Fault.body(b'{"kind":"ServiceList","items":[', length=5000),
            Fault.body(b"", length=5000),
            Fault.hang_up(),
            Fault.status(302),
            Fault.status(404),
            Fault.status(410),
            Fault.status(429, retry_after=0),
            Fault.status(500, "etcd"),
            Fault.status(503),
        ],
    )
    def test_no_failure_is_an_empty_list(self, api, watch, seen, fault):
        api.put("services", service("web"))
        api.fail("services", fault, fault)
        watcher = watch()

        assert [len(each.objects) for each in seen.of("Service")] == [1]
        assert sum(watcher.counts().errors.values()) >= 2

    def test_a_page_that_a_proxy_has_packed_is_not_unpacked(self, api, watch, seen):
        """We ask for no encoding: what is small on the wire could be of any size."""
        listed = {"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": []}
        api.put("services", service("a"))
        api.fail("services", Fault.packed(listed))
        watcher = watch()
        assert seen.names("Service") == ["a"]
        assert len(seen.of("Service")) == 1
        assert watcher.counts().errors["Service", "encoded"] == 1

    def test_the_same_page_again_and_again_ends(self, api, watch, seen):
        api.put("services", service("web"))
        page = b'{"kind":"ServiceList","metadata":{"continue":"again","resourceVersion":"7"},"items":[]}'
        api.fail("services", Fault.body(page), Fault.body(page))
        watch()
        assert seen.names("Service") == ["web"]


class TestStreams:
    @pytest.mark.parametrize(
        "disturbance",
        [
            DROP,
            END_WITHIN_LINE,
            FINISH,
            HALF_CHUNK,
            HALF_LINE,
            HANG,
            SLOW,
            *GARBAGE,
            line(b"", "an empty line"),
            error_event(410),
            error_event(500),
            error_event(504, "Too large resource version"),
        ],
        ids=repr,
    )
    def test_nothing_is_lost(self, api, watch, seen, disturbance):
        api.put("services", service("a"), service("b"))
        watcher = watch()
        assert is_watching(watcher)

        api.disturb("services", disturbance)
        api.delete("services", "shop", "b")
        api.put("services", service("c"))

        assert soon(lambda: seen.names("Service") == ["a", "c"])
        api.put("services", service("d"))
        assert soon(lambda: seen.names("Service") == ["a", "c", "d"])

    @pytest.mark.parametrize("by_status", [True, False])
    def test_what_was_compacted_is_listed_anew_once_and_at_once(self, api, watch, seen, by_status):
        api.refuses_by_status = by_status
        api.put("services", service("a"))
        pauses: list[float] = []
        watcher = watch(timing={"short_watch": 0.0, "sleep": lambda _, seconds: pauses.append(seconds)})
        assert is_watching(watcher)
        with api._changed:  # all of it at once
            api.delete("services", "shop", "a")
            api.put("services", service("b"))
            api._changes.clear()
            api.compact()
            api.disturb("services", FINISH)

        assert soon(lambda: seen.names("Service") == ["b"])
        assert [type(each) for each in seen.of("Service")] == [Listed, Listed]
        assert set(pauses) == {0.0}

    def test_a_break_needs_no_new_list(self, api, watch, seen):
        api.put("services", service("a"))
        watcher = watch()
        for number in range(3):
            assert is_watching(watcher, times=number + 1)
            api.disturb("services", DROP)
            api.put("services", service(f"b{number}"))
            assert soon(lambda: f"b{number}" in seen.names("Service"))  # noqa: B023 - waited for here

        assert watcher.counts().lists["Service"] == 1

    def test_bookmarks_save_from_listing_anew(self, api, watch, seen):
        api.bookmark_every = 0.02
        api.put("services", service("a"))
        watcher = watch()
        api.put("nodes", {"metadata": {"name": "elsewhere"}})
        latest = str(api._version)
        assert soon(lambda: watcher._followers[0]._version == latest)
        api.compact()
        api.disturb("services", DROP)
        assert is_watching(watcher, times=2)

        api.put("services", service("b"))
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        assert watcher.counts().lists["Service"] == 1
        assert watcher.counts().events["Service", "bookmark"] >= 1
        assert all(query["allowWatchBookmarks"] == "true" for query in asked(api, "services", watched=True))

    def test_each_watch_lasts_as_long_as_the_dice_say(self, api, watch):
        watcher = watch()
        assert is_watching(watcher)
        (query,) = asked(api, "services", watched=True)
        assert 300 <= int(query["timeoutSeconds"]) <= 600

    def test_a_watch_that_ends_as_it_should_goes_on(self, api, watch, seen):
        watcher = watch(timing={"watch_least": 1.0, "watch_most": 1.0})
        assert is_watching(watcher, times=2)
        api.put("services", service("a"))
        assert soon(lambda: seen.names("Service") == ["a"])
        assert not watcher.counts().errors

    def test_a_server_that_falls_silent_is_asked_again(self, api, watch):
        watcher = watch()
        assert is_watching(watcher, times=3)
        assert watcher.counts().lists["Service"] == 1
        assert not watcher.counts().errors

    def test_a_proxy_that_knows_no_chunks(self, api, watch, seen):
        api.has_chunks = False
        watcher = watch()
        assert is_watching(watcher)
        api.put("services", service("a"))
        assert soon(lambda: seen.names("Service") == ["a"])
        for number, disturbance in enumerate((DROP, FINISH, HALF_LINE, HANG)):
            api.disturb("services", disturbance)
            api.put("services", service(f"b{number}"))
            assert soon(lambda: f"b{number}" in seen.names("Service"))  # noqa: B023 - waited for here
        assert watcher.counts().lists["Service"] == 1

    def test_an_event_that_is_too_large(self, api, watch, seen, monkeypatch):
        monkeypatch.setattr(reflector, "MAX_OBJECT", 20_000)
        watcher = watch()
        assert is_watching(watcher)
        api.put("services", service("big", labels={f"label-{number}": "x" * 60 for number in range(600)}))

        assert soon(lambda: seen.names("Service") == ["big"])  # by a list, which may be longer
        assert watcher.counts().errors["Service", "too large"] == 1


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

    def test_a_server_that_is_away_harms_nothing_and_is_told_once(self, api, watch, seen, warnings):
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

    def test_a_consumer_that_fails_is_told_all_anew(self, api, tmp_path, seen, warnings):
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


class TestRestore:
    """A server that was put back to a backup has fewer revisions than it told, and silence for a watch from those."""

    @pytest.fixture
    def notices(self) -> list[OutageNotice]:
        return []

    @staticmethod
    def set_back(notices: list[OutageNotice]) -> list[OutageNotice]:
        return [each for each in notices if "went back to an older state" in each.message]

    @pytest.mark.parametrize("bookmarks", [0.0, 0.02])
    def test_all_is_listed_anew_and_it_is_said(self, api, watch, seen, notices, bookmarks):
        api.bookmark_every = bookmarks
        api.put("services", service("a"), service("b"))
        api.put("secrets", secret())
        backup = api.backup()
        watcher = watch(notice=notices.append)
        watcher.refer_to(secrets=[TLS])
        for number in range(20):
            api.put("services", service(f"new-{number}"))
        api.delete("services", "shop", "b")
        api.put("secrets", secret(value="Yg=="))
        assert soon(lambda: len(seen.names("Service")) == 21 and seen.state("Secret")[0] == {TLS: "Yg=="})
        before = api._version

        api.restore(backup)
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        assert soon(lambda: seen.state("Secret")[0] == {TLS: "YQ=="})
        (notice,) = self.set_back(notices)
        assert (notice.fields["revision"], notice.fields["before"]) == (str(backup.version), str(before))
        api.put("services", service("c"))
        api.delete("services", "shop", "a")
        assert soon(lambda: seen.names("Service") == ["b", "c"])
        assert watcher.counts().lists["Service"] == 2

    def test_a_restore_that_one_watch_notices_has_all_list_again(self, api, watch, seen, notices):
        """The revisions of one kind may have passed again what was told of it, when those of all have not."""
        api.put("services", service("a"))
        backup = api.backup()
        watcher = watch(notice=notices.append, ingress=True)
        assert is_watching(watcher, "Ingress")
        api.put("services", service("b"))
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        for number in range(9):
            api.put("ingressclasses", {"metadata": {"name": f"class-{number}"}, "spec": {"controller": "x.io/y"}})
        assert soon(lambda: len(seen.names("IngressClass")) == 9)

        api.restore(backup)
        for number in range(3):  # past what was told of Services
            api.put("endpointslices", {"metadata": {"namespace": "shop", "name": f"s-{number}"}, "addressType": "IPv4"})
        assert soon(lambda: seen.names("Service") == ["a"] and seen.names("IngressClass") == [])
        assert len(self.set_back(notices)) == 1

    def test_a_restored_server_with_new_revisions_is_found_by_lists(self, api, watch, seen):
        api.put("services", service("a"))
        backup = api.backup()
        watcher = watch(timing={"whole": 0.4, "watch_least": 1.0, "watch_most": 1.0})
        api.put("services", service("b"))
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        api.restore(backup)
        with api._changed:
            api.put("services", service("c"), service("d"))
        assert soon(lambda: seen.names("Service") == ["a", "c", "d"])
        assert not watcher.counts().troubles

    def test_a_whole_list_comes_to_nothing_and_ends_no_watch(self, api, watch, seen):
        api.put("services", service("a"))
        watcher = watch(timing={"whole": 0.02, "watch_least": 1.0, "watch_most": 1.0})
        assert soon(lambda: watcher.counts().lists["Service"] == 3)
        cluster = Cluster()
        first, *later = seen.of("Service")
        assert cluster.take(first)
        assert not any(cluster.take(event) for event in later)
        assert not watcher.counts().errors

    def test_after_a_restart_the_revision_is_asked_for_once_for_all(self, api, watch, seen, notices):
        api.put("services", service("a"))
        watcher = watch(notice=notices.append, ingress=True, timing={"watch_silence": 60.0, "list_silence": 60.0})
        watcher.refer_to(secrets=[ObjectName("shop", f"tls-{number}") for number in range(20)])
        assert is_watching(watcher, "Secret")
        assert soon(lambda: not watcher.unanswered())
        lists = dict(watcher.counts().lists)
        del api.requests[:]
        api.go_away()
        api.put("services", service("b"))
        api.come_back()
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        assert is_watching(watcher, "Secret", 2)
        assert watcher.counts().lists == lists
        asked_for_one = [query for _, query in list(api.requests) if query.get("limit") == "1"]
        assert 1 <= len(asked_for_one) <= 3  # of 5
        assert not self.set_back(notices)

    def test_after_a_long_absence_all_is_listed_again(self, api, watch, seen):
        """It has passed our revisions when we are back, and our pause was longer than the rest of its absence."""
        api.put("services", service("a"))
        backup = api.backup()
        pauses = {"first_pause": 0.8, "draw": lambda _, most: most, "longest_pause": 0.8, "outage": 0.5}
        watcher = watch(timing={**pauses, "watch_silence": 60.0})
        assert is_watching(watcher)
        api.put("services", service("b"))
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        errors = sum(watcher.counts().errors.values())
        api.go_away()
        assert soon(lambda: sum(watcher.counts().errors.values()) >= errors + 2)
        api.restore(backup)
        for name in ("c", "d", "e"):
            api.put("services", service(name))
        assert soon(lambda: seen.names("Service") == ["a", "c", "d", "e"])

    def test_one_that_fails_after_it_was_set_back_is_asked_ever_less(self, api, watch, seen, notices):
        api.put("services", service("a"))
        backup = api.backup()
        pauses = {"first_pause": 0.2, "longest_pause": 10.0, "draw": lambda _, most: most}
        watcher = watch(notice=notices.append, ingress=True, timing=pauses)
        api.put("services", service("b"))
        assert soon(lambda: seen.names("Service") == ["a", "b"])
        assert is_watching(watcher, "Ingress")
        api.fail("services", *[Fault.status(500)] * 100)
        api.restore(backup)
        assert soon(lambda: self.set_back(notices))
        del api.requests[:]
        time.sleep(0.6)
        assert len(asked(api, "services", watched=False)) <= 5
        api.calm_down()
        assert soon(lambda: seen.names("Service") == ["a"])

    def test_an_event_from_before_what_was_told(self, api, watch, seen, notices):
        """A proxy leads us to a server that was set back, and nothing breaks off."""
        api.put("services", service("a"), service("b"))
        watcher = watch(notice=notices.append)
        assert is_watching(watcher)
        with api._changed:
            api._objects["services"].pop(("shop", "b"))
            api._version = 50
            api._changes.clear()
        old = {"kind": "Service", **service("a")}
        old["metadata"]["resourceVersion"] = "50"
        api.disturb("services", line(json.dumps({"type": "MODIFIED", "object": old}).encode(), "an old event"))
        assert soon(lambda: seen.names("Service") == ["a"])
        assert len(self.set_back(notices)) == 1


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
        assert away.fields["meanwhile"] == "nothing is passed on before all lists were received"
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


class TestNamed:
    def test_one_that_is_there_changes_and_goes(self, api, watch, seen):
        api.put("secrets", secret(), secret("other"))
        watch().refer_to(secrets=[TLS, TLS])
        assert soon(lambda: seen.state("Secret")[0] == {TLS: "YQ=="})
        api.put("secrets", secret(value="Yg=="), secret("other", "Yg=="))
        assert soon(lambda: seen.state("Secret")[0] == {TLS: "Yg=="})
        api.delete("secrets", "shop", "tls")

        assert soon(lambda: seen.of("Secret", Gone) == [Gone(Secret, TLS)])
        inside = [query for path, query in api.requests if path == "/api/v1/namespaces/shop/secrets"]
        assert inside
        assert all(query["fieldSelector"] == "metadata.name=tls" for query in inside)

    def test_one_that_is_not_there_is_gone_and_may_come(self, api, watch, seen):
        watcher = watch()
        watcher.refer_to(config_maps=[ObjectName("shop", "headers")])
        assert soon(lambda: seen.of("ConfigMap") == [Gone(ConfigMap, ObjectName("shop", "headers"))])
        assert soon(lambda: not watcher.unanswered())

        api.put("configmaps", {"metadata": {"namespace": "shop", "name": "headers"}, "data": {"X-A": "b"}})
        assert soon(lambda: seen.names("ConfigMap") == ["headers"])

    def test_one_that_went_while_nobody_looked(self, api, watch, seen):
        api.put("secrets", secret())
        watcher = watch()
        watcher.refer_to(secrets=[TLS])
        assert is_watching(watcher, "Secret")
        api.go_away()
        api.delete("secrets", "shop", "tls")
        api.compact()
        api.come_back()
        assert soon(lambda: not seen.state("Secret")[0])

    def test_of_one_that_is_no_longer_named_nothing_is_told(self, api, watch, seen):
        api.put("secrets", secret(), secret("other"))
        watcher = watch()
        other = ObjectName("shop", "other")
        watcher.refer_to(secrets=[TLS, other])
        assert is_watching(watcher, "Secret")
        assert soon(lambda: len(seen.names("Secret")) == 2)
        watcher.refer_to(secrets=[other])
        before = len(seen.of("Secret"))
        api.put("secrets", secret(value="Yg=="), secret("other", "Yg=="))

        assert soon(lambda: seen.state("Secret")[0].get(other) == "Yg==")
        assert len(seen.of("Secret")) == before + 1

        watcher.refer_to(secrets=[TLS, other])
        assert soon(lambda: seen.state("Secret")[0] == {TLS: "Yg==", other: "Yg=="})

    def test_one_that_is_answered_with_404_is_gone(self, api, watch, seen, warnings):
        api.fail("secrets", *[Fault.status(404, "no")] * 3)
        watcher = watch()
        watcher.refer_to(secrets=[TLS])

        assert soon(lambda: seen.of("Secret") == [Gone(Secret, TLS)])
        assert not watcher.unanswered()
        assert not warnings
        api.put("secrets", secret())
        assert soon(lambda: seen.names("Secret") == ["tls"])

    @pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
    def test_of_one_that_is_not_answered_nothing_is_told(self, api, watch, seen, warnings, status):
        api.put("secrets", secret())
        api.fail("secrets", *[Fault.status(status, "no")] * 4)
        watcher = watch()
        watcher.refer_to(secrets=[TLS])

        assert watcher.unanswered()[-1] == "Secret shop/tls"
        assert soon(lambda: seen.names("Secret") == ["tls"])
        assert not seen.of("Secret", Gone)
        assert len([each for each in warnings if "not allowed to list secrets" in each]) == (status == 403)

    def test_one_that_may_not_be_read_is_refused_until_it_may(self, api, watch, seen):
        api.put("secrets", secret())
        no = Fault.status(403, "no")
        api.fail("secrets", *[no] * 30)
        watcher = watch()
        watcher.refer_to(secrets=[TLS])
        assert soon(lambda: watcher.refused() == {ObjectKey("Secret", TLS)})
        assert watcher.unanswered()[-1] == "Secret shop/tls"
        api.calm_down()
        assert soon(lambda: seen.names("Secret") == ["tls"])
        assert not watcher.refused()
        assert not watcher.unanswered()

    def test_roles_unknown_for_a_moment_take_nothing_away(self, api, watch, seen):
        api.put("secrets", secret())
        watcher = watch()
        watcher.refer_to(secrets=[TLS])
        assert is_watching(watcher, "Secret")
        for number in (2, 8):
            api.fail("secrets", *[Fault.status(403, "RBAC is not there yet")] * number)
            watches = watcher.counts().watches["Secret"]
            api.disturb("secrets", DROP)
            assert is_watching(watcher, "Secret", watches + 1)
        assert not seen.of("Secret", Gone)
        api.put("secrets", secret(value="Yg=="))
        assert soon(lambda: seen.state("Secret")[0] == {TLS: "Yg=="})

    def test_an_object_that_comes_back_unchanged_is_passed_on_again(self, api, watch, seen):
        api.put("secrets", secret())
        watcher = watch(timing={"outage": 600.0})
        watcher.refer_to(secrets=[TLS])
        assert is_watching(watcher, "Secret")
        assert soon(lambda: not watcher.unanswered())
        api.fail("secrets", *[Fault.status(404, "the server is starting")] * 30)
        api.disturb("secrets", DROP)
        assert soon(lambda: seen.of("Secret", Gone) == [Gone(Secret, TLS)])
        assert soon(lambda: seen.names("Secret") == ["tls"])

    def test_a_bad_one_is_told_with_its_faults(self, api, watch, seen):
        api.put("secrets", secret(value="super secret!"))
        watch().refer_to(secrets=[TLS])
        assert soon(lambda: seen.state("Secret")[1] == {"Secret shop/tls"})
        (before,) = seen.of("Secret", Changed)
        assert isinstance(before.state, Rejected)
        assert "super" not in repr(before)

    @pytest.mark.parametrize("name", [("..", "tls"), ("shop", ".."), ("shop", "a/b"), ("shop", "a,b=c"), ("", "a")])
    def test_what_can_be_no_name_leads_nowhere(self, api, watch, name):
        watcher = watch()
        watcher.refer_to(secrets=[ObjectName(*name)])
        assert not watcher.unanswered()
        assert not [path for path, _ in api.requests if "secret" in path]


class TestCredentials:
    @pytest.fixture
    def api(self) -> Iterator[FakeApi]:
        with FakeApi(token="first") as fake:
            yield fake

    def test_a_new_token_is_read_once_for_all(self, api, watch, seen, tmp_path):
        watcher = watch(ingress=True)
        assert is_watching(watcher, "IngressClass")
        api.token = "second"
        api.kubeconfig(tmp_path)
        api.break_connections()
        api.put("services", service("a"))

        assert soon(lambda: seen.names("Service") == ["a"])
        assert soon(lambda: all(is_watching(watcher, kind, 2) for kind in watcher.counts().watches))
        assert watcher._link.generation == 2

    def test_a_token_that_comes_late(self, api, watch, seen, warnings, tmp_path):
        watcher = watch()
        assert is_watching(watcher)
        api.token = "second"
        (tmp_path / "kubeconfig").unlink()
        api.break_connections()
        api.put("services", service("a"))
        assert soon(lambda: [each for each in warnings if "kubeconfig" in each])
        assert seen.names("Service") == []
        api.kubeconfig(tmp_path)

        assert soon(lambda: seen.names("Service") == ["a"])
        assert "second" not in "".join(warnings)

    def test_a_plugin_is_asked_again(self, api, watch, seen, tmp_path):
        token = tmp_path / "token"
        token.write_text("first")
        script = tmp_path / "plugin.py"
        version = "client.authentication.k8s.io/v1"
        credential = {"apiVersion": version, "kind": "ExecCredential"}
        script.write_text(
            f"import json\nprint(json.dumps({{**{credential!r}, 'status': {{'token': open({str(token)!r}).read()}}}}))"
        )
        user = {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(script)]}}
        watcher = watch(kubeconfig=api.kubeconfig(tmp_path, user=user))
        assert is_watching(watcher)
        api.token = "second"
        token.write_text("second")
        api.break_connections()
        api.put("services", service("a"))
        assert soon(lambda: seen.names("Service") == ["a"]), watcher.counts()

    def test_a_file_with_a_token_is_read_again(self, api, watch, seen, tmp_path):
        token = tmp_path / "token"
        token.write_text("first")
        watcher = watch(kubeconfig=api.kubeconfig(tmp_path, user={"tokenFile": str(token)}))
        assert is_watching(watcher)
        api.token = "second"
        token.write_text("second")
        api.break_connections()
        api.put("services", service("a"))
        assert soon(lambda: seen.names("Service") == ["a"])

    def test_no_configuration_is_told_at_once(self, tmp_path):
        with pytest.raises(HostError, match="no such file"):
            Watch(print, kubeconfig=str(tmp_path / "absent"))


class TestTls:
    def test_another_certificate_and_authority(self, tmp_path, seen, warnings):
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
        old, new = make_certificate(tmp_path / "old"), make_certificate(tmp_path / "new")
        authority = tmp_path / "ca.crt"
        authority.write_bytes(old[0].read_bytes())
        with FakeApi(certificate=old) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(authority)})
            with Watch(seen, kubeconfig=kubeconfig, warn=warnings.append, timing=fast()) as watcher:
                assert is_watching(watcher)
                api.show_certificate(new)
                api.break_connections()
                api.put("services", service("a"))
                assert soon(lambda: [each for each in warnings if "certificate verify failed" in each])
                assert seen.names("Service") == []
                authority.write_bytes(new[0].read_bytes())
                assert soon(lambda: seen.names("Service") == ["a"])
                assert "tls" in {reason for _, reason in watcher.counts().errors}

    def test_connections_share_one_context_which_follows_its_files(self, tmp_path, seen):
        """Reading a system's authorities takes 30 ms of CPU and 1 MB, for each of some hundred connections."""

        def contexts(watcher: Watch) -> set[ssl.SSLContext]:
            return {each.context for each in list(watcher._link._open) if isinstance(each, ssl.SSLSocket)}

        for name in ("old", "new"):
            (tmp_path / name).mkdir()
        old, new = make_certificate(tmp_path / "old"), make_certificate(tmp_path / "new")
        authority = tmp_path / "ca.crt"
        authority.write_bytes(old[0].read_bytes())
        with FakeApi(certificate=old) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(authority)})
            with Watch(seen, kubeconfig=kubeconfig, timing=fast(watch_silence=60.0)) as watcher:
                watcher.refer_to(secrets=[ObjectName("shop", f"tls-{number}") for number in range(10)])
                assert is_watching(watcher, "Secret")
                assert is_watching(watcher)
                (before,) = contexts(watcher)

                (tmp_path / "next").write_bytes(new[0].read_bytes())  # as ServiceAccounts have it: another file
                (tmp_path / "next").rename(authority)
                api.show_certificate(new)
                api.break_connections()
                assert is_watching(watcher, "Secret", 2)
                assert is_watching(watcher, times=2)
                (_,) = contexts(watcher) - {before}
                assert "tls" not in {reason for _, reason in watcher.counts().errors}
                assert watcher._link.generation == 1

    def test_verification_turned_off_is_told(self, tmp_path, seen, warnings):
        with FakeApi(certificate=make_certificate(tmp_path)) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"insecure-skip-tls-verify": True})
            with Watch(seen, kubeconfig=kubeconfig, warn=warnings.append, timing=fast()) as watcher:
                assert soon(lambda: watcher.has_synced)
        assert "not verified" in warnings[0]


class TestEnd:
    """Whatever a thread is waiting for, it ends within a second, and tells nothing afterwards."""

    @pytest.fixture
    def released(self) -> Iterator[threading.Event]:
        event = threading.Event()
        yield event
        event.set()

    def ends(self, watcher: Watch, seen: Consumer) -> bool:
        before = time.monotonic()
        is_over = watcher.stop()
        events = len(seen.events)
        return is_over and time.monotonic() - before < 1.0 and len(seen.events) == events

    def test_within_a_watch(self, api, watch, seen):
        watcher = watch(timing={"watch_silence": 60.0})
        watcher.refer_to(secrets=[TLS])
        assert is_watching(watcher, "Secret")
        assert self.ends(watcher, seen)

    def test_within_a_watch_without_chunks(self, api, watch, seen):
        api.has_chunks = False
        watcher = watch(timing={"watch_silence": 60.0})
        assert is_watching(watcher)
        assert self.ends(watcher, seen)

    def test_within_a_watch_through_a_proxy(self, tmp_path, seen):
        certificate = make_certificate(tmp_path)
        with FakeApi(certificate=certificate) as api, ForwardProxy("a:b") as proxy:
            cluster = {"certificate-authority": str(certificate[0]), "proxy-url": f"http://a:b@{proxy.address}"}
            kubeconfig = api.kubeconfig(tmp_path, **cluster)
            watcher = Watch(seen, kubeconfig=kubeconfig, timing=fast(watch_silence=60.0))
            watcher.start()
            assert is_watching(watcher)
            assert self.ends(watcher, seen)

    def test_within_a_watch_by_tls(self, tmp_path, seen):
        certificate = make_certificate(tmp_path)
        with FakeApi(certificate=certificate) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(certificate[0])})
            watcher = Watch(seen, kubeconfig=kubeconfig, timing=fast(watch_silence=60.0))
            watcher.start()
            assert is_watching(watcher)
            assert self.ends(watcher, seen)

    @pytest.mark.parametrize("sort", ["stall", "mute"])
    def test_before_and_within_an_answer(self, api, watch, seen, released, sort):
        api.fail("services", getattr(Fault, sort)(released))
        watcher = watch(is_synced=False, timing={"list_silence": 60.0})
        assert soon(lambda: asked(api, "services", watched=False))
        time.sleep(0.1)
        assert self.ends(watcher, seen)

    def test_within_a_handshake(self, tmp_path, seen):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            cluster = {"server": f"https://127.0.0.1:{silent.getsockname()[1]}", "insecure-skip-tls-verify": True}
            with FakeApi() as api:
                watcher = Watch(seen, kubeconfig=api.kubeconfig(tmp_path, **cluster), timing=fast())
            watcher.start()
            time.sleep(0.3)
            assert self.ends(watcher, seen)

    def test_while_a_connection_is_made_nothing_waits_for_it(self, tmp_path, seen, monkeypatch):
        monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 1.6)
        with socket.socket() as full, socket.socket() as first, socket.socket() as second, FakeApi() as api:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for each in (first, second):  # a third one gets no answer
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            kubeconfig = api.kubeconfig(tmp_path, server=f"http://127.0.0.1:{full.getsockname()[1]}")
            watcher = Watch(seen, kubeconfig=kubeconfig, timing=fast())
            watcher.start()
            time.sleep(0.3)
            before = time.monotonic()
            assert not watcher.stop()
            assert time.monotonic() - before < 1.2
            assert soon(lambda: not any(each.name.startswith("watch ") for each in threading.enumerate()))

    def test_within_a_pause(self, api, watch, seen):
        api.go_away()
        watcher = watch(is_synced=False, timing={"first_pause": 60.0, "longest_pause": 60.0})
        time.sleep(0.2)
        assert self.ends(watcher, seen)
        api.come_back()

    def test_nothing_is_left_over(self, api, tmp_path, seen):
        def open_files() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        kubeconfig = api.kubeconfig(tmp_path)
        with Watch(seen, kubeconfig=kubeconfig, timing=fast()) as watcher:
            assert is_watching(watcher)
        assert soon(lambda: not api._connections)
        before, threads = open_files(), threading.active_count()
        for _ in range(3):
            with Watch(seen, kubeconfig=kubeconfig, timing=fast()) as watcher:
                assert is_watching(watcher)
                api.disturb("services", DROP, HALF_LINE)
                assert is_watching(watcher, times=3)
        assert soon(lambda: not api._connections)
        assert open_files() <= before
        assert threading.active_count() <= threads

    def test_what_is_not_there_yet_is_named(self, api, watch):
        api.fail("services", *[Fault.status(500)] * 1000)
        watcher = watch(is_synced=False)
        watcher.refer_to(secrets=[TLS])
        assert soon(lambda: watcher.unanswered() == ("services",))
        assert not watcher.has_synced
        api.calm_down()
        assert soon(lambda: watcher.has_synced)


def test_no_object_is_kept(api, tmp_path):
    api.put("services", *(service(f"web-{number}") for number in range(20)))
    before: list[type] = []
    with Watch(lambda event: before.append(type(event)), kubeconfig=api.kubeconfig(tmp_path), timing=fast()) as watcher:
        assert is_watching(watcher)
        api.put("services", service("new"))
        assert soon(lambda: Changed in before)
        assert soon(
            lambda: not [each for each in gc.get_objects() if isinstance(each, Decoded) and each.source == api.url]
        )


def test_the_labels_of_counts_are_plain(api, watch):
    api.put("services", service("a"))
    watcher = watch()
    assert is_watching(watcher)
    api.put("services", service("b"))
    assert soon(lambda: watcher.counts().events.get(("Service", "changed")) == 1)
    counts = watcher.counts()
    assert counts.lists == {"Service": 1, "EndpointSlice": 1}
    assert json.dumps(counts.contact_age_s)
    assert 0 <= counts.contact_age_s["Service"] < 2
