"""A server that was set back, and objects that are watched by name."""

from __future__ import annotations

import json
import time

import pytest

from rulegen.apiserver.watching.outage import OutageNotice
from rulegen.errors import Rejected
from rulegen.kube.objects.events import Changed, Gone
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import ConfigMap, Secret
from rulegen.kube.snapshot.cluster import Cluster
from tests.apiserver.watch.objects import TLS, asked, is_watching, secret, service
from tests.apiserver.watching import soon
from tests.fakes.faults import Fault
from tests.fakes.watches import (
    DROP,
    line,
)


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
        assert cluster.apply_event(first)
        assert not any(cluster.apply_event(event) for event in later)
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

    def test_an_event_older_than_the_known_state(self, api, watch, seen, notices):
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

    def test_objects_without_references_cause_no_events(self, api, watch, seen):
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
    def test_unanswered_objects_cause_no_events(self, api, watch, seen, warnings, status):
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

    def test_an_invalid_object_is_reported_with_its_faults(self, api, watch, seen):
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
