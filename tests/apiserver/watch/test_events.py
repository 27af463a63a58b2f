"""What a watch asks for, and what it makes of what a server says."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest

from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.watch import Watch
from rulegen.apiserver.watching import reflector
from rulegen.kube.objects.events import Changed, Gone, Listed
from rulegen.kube.objects.names import Decoded
from tests.apiserver.watch.objects import asked, is_watching, service
from tests.apiserver.watching import fast, soon
from tests.fakes.faults import Fault
from tests.fakes.watches import (
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
