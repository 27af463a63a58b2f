"""Secrets and ConfigMaps that Ingresses refer to: any number of them, any role, with few threads and connections."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from rulegen.apiserver.referred import follower, scopes, selection
from rulegen.apiserver.referred.order import BULK
from rulegen.apiserver.watch import Watch
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import ConfigMap, Secret
from tests.apiserver.watching import ALL, NAMESPACE, ROLES, Consumer, allowed_to, fast, soon
from tests.fakes.certificates import make_certificate
from tests.fakes.faults import Fault
from tests.fakes.watches import DROP, FINISH, GARBAGE, HALF_CHUNK, HALF_LINE, SLOW, error_event
from tests.servers.fakeapi import FakeApi
from tests.sizes import sized

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMES = {"watch_silence": 30.0, "list_silence": 10.0}


class Place:
    """A server with a role that can change, and a watcher of it."""

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api = api
        self.role = ALL
        self.seen = Consumer()
        self.said: list[str] = []
        api.allows_at = lambda path, query: allowed_to(self.role, path, query)
        cluster = {"certificate-authority": str(api.certificate[0])} if api.certificate else {}
        kubeconfig = api.kubeconfig(folder, **cluster)
        self.watch = Watch(self.seen, kubeconfig=kubeconfig, warn=self.said.append, timing=fast(**TIMES))

    def put(self, names: list[ObjectName], value: str = "YQ==", noun: str = "secrets") -> None:
        for name in names:
            metadata = {"namespace": name.namespace, "name": name.name, "uid": value}
            self.api.put(noun, {"metadata": metadata, "data": {"key": value}})

    def has(self, names: list[ObjectName], value: str = "YQ==", kind: str = "Secret") -> bool:
        return soon(lambda: self.seen.state(kind)[0] == dict.fromkeys((tuple(name) for name in names), value))

    def asked(self, noun: str = "secrets") -> list[tuple[str, dict[str, str]]]:
        return [(path, query) for path, query in [*self.api.requests] if path.endswith(noun)]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    with FakeApi() as api:
        made = Place(api, tmp_path)
        with made.watch:
            yield made


@pytest.fixture
def tls_place(tmp_path) -> Iterator[Place]:
    with FakeApi(certificate=make_certificate(tmp_path), is_prompt=True) as api:
        made = Place(api, tmp_path)
        with made.watch:
            yield made


def names_of(count: int, namespaces: int = 1) -> list[ObjectName]:
    return [ObjectName(f"team-{number % namespaces}", f"tls-{number}") for number in range(count)]


class TestRoles:
    @pytest.mark.not_quick
    @pytest.mark.parametrize("role", ROLES)
    def test_each_object_is_added_changed_deleted_and_added_again(self, place, role):
        place.role = role
        names = names_of(30, 3)
        place.put(names[1:])
        place.watch.refer_to(secrets=names)
        assert place.has(names[1:])
        assert soon(lambda: place.seen.of("Secret", Gone) == [Gone(Secret, names[0])])
        assert not place.watch.unanswered()[2:]
        place.put(names, "Yg==")
        assert place.has(names, "Yg==")
        place.api.delete("secrets", *names[7])
        assert soon(lambda: place.seen.of("Secret", Gone)[-1] == Gone(Secret, names[7]))
        assert not place.watch.refused()
        assert not [line for line in place.said if "not allowed" in line]

    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.slow
    def test_the_number_of_threads_and_connections_has_a_bound(self, tls_place, monkeypatch, role):
        """Few threads and connections, over TLS, for hundreds of Secrets and of ConfigMaps in 40 namespaces."""
        monkeypatch.setattr(follower, "POLLS_PER_S", 200.0)
        tls_place.role = role
        names = names_of(sized(quick=80, usual=300, full=600), 40)
        tls_place.put(names)
        tls_place.put(names, noun="configmaps")
        tls_place.watch.refer_to(secrets=names, config_maps=names)
        assert tls_place.has(names)
        assert tls_place.has(names, kind="ConfigMap")
        assert sum(thread.name.startswith("watch ") for thread in threading.enumerate()) <= 12
        assert len(tls_place.api._connections) <= 32
        tls_place.put(names[:5], "Yg==")
        assert soon(lambda: list(tls_place.seen.state("Secret")[0].values()).count("Yg==") == 5, 60.0)
        assert len(tls_place.api._connections) <= 32

    def test_one_watch_does_where_all_namespaces_are_allowed(self, place):
        names = names_of(40, 20)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        assert soon(lambda: place.watch.counts().watches.get("Secret"))
        assert {path for path, query in place.asked() if "watch" in query} == {"/api/v1/secrets"}
        time.sleep(0.5)
        del place.api.requests[:]
        time.sleep(0.5)
        assert place.asked() == []  # nothing is asked for again and again

    @pytest.mark.not_quick
    def test_each_change_that_a_watch_reports_is_read_at_once(self, tmp_path, monkeypatch):
        """A change wakes a thread that reads, whichever threads wait: no reading in turns is needed for it."""
        monkeypatch.setitem(TIMES, "poll", 3600.0)
        names = names_of(1)
        with FakeApi() as api:
            place = Place(api, tmp_path)
            place.put(names)
            with place.watch:
                place.watch.refer_to(secrets=names)
                assert place.has(names)
                assert soon(lambda: place.watch.counts().watches.get("Secret"))
                for number in range(40):
                    place.put(names, f"{number:04}")
                    assert place.has(names, f"{number:04}")
                place.api.delete("secrets", *names[0])
                assert soon(lambda: place.seen.of("Secret", Gone))

    def test_each_namespace_is_watched_where_only_that_is_allowed(self, place):
        place.role = NAMESPACE
        names = names_of(6, 3)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        assert soon(lambda: place.watch.counts().watches.get("Secret") == 3)
        watched = {path for path, query in place.asked() if "watch" in query}
        assert watched == {f"/api/v1/namespaces/team-{number}/secrets" for number in range(3)}

    @pytest.mark.not_quick
    def test_namespaces_beyond_the_bound_are_followed_too(self, place, monkeypatch):
        monkeypatch.setattr(scopes, "MAX_WATCHES", 2)
        place.role = NAMESPACE
        names = names_of(18, 6)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        place.put(names, "Yg==")
        assert place.has(names, "Yg==")
        watched = {path for path, query in place.asked() if "watch" in query}
        assert len(watched) == 2

    @pytest.mark.parametrize("before", ROLES)
    @pytest.mark.parametrize("after", ROLES)
    def test_a_role_that_changes_is_noticed(self, place, before, after):
        place.role = before
        names = names_of(4, 2)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        place.role = after
        place.api.disturb("secrets", *[DROP] * 4)
        place.put(names, "Yg==")
        assert place.has(names, "Yg==")
        if after == ALL:
            assert soon(lambda: "/api/v1/secrets" in {path for path, query in place.asked() if "watch" in query})
        place.api.calm_down()
        place.put(names, "Yw==")
        assert place.has(names, "Yw==")

    def test_a_role_without_any_right_refuses_until_it_is_granted(self, place):
        place.api.allows_at = lambda path, _: "secrets" not in path
        names = names_of(3)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert soon(lambda: place.watch.refused() == {ObjectKey("Secret", name) for name in names})
        assert not place.seen.of("Secret")
        assert [line for line in place.said if "get, list and watch secrets named" in line]
        place.api.allows_at = None
        assert place.has(names)
        assert not place.watch.refused()


class TestWhatIsRead:
    @pytest.mark.parametrize("knows_metadata", [True, False])
    def test_what_nobody_refers_to_is_not_decoded(self, place, monkeypatch, knows_metadata):
        """Neither from lists nor from watches, also of a server that sends whole objects."""
        decoded: list[bytes] = []
        decode = selection.decode_object

        def noting(raw: Any, *arguments: Any, **named: Any) -> Any:
            decoded.append(bytes(raw))
            return decode(raw, *arguments, **named)

        monkeypatch.setattr(selection, "decode_object", noting)
        place.api.knows_metadata = knows_metadata
        wanted = names_of(BULK + 2)
        others = [ObjectName(name.namespace, f"x{name.name}") for name in wanted[:5]]
        place.put(wanted)
        place.put(others, "c2VjcmV0")
        place.watch.refer_to(secrets=wanted)
        assert place.has(wanted)
        assert soon(lambda: place.watch.counts().watches.get("Secret"))
        place.put(others, "c2VjcmV0Cg==")
        place.put(wanted, "Yg==")
        assert place.has(wanted, "Yg==")
        assert not [text for text in decoded if b"c2VjcmV0" in text]

    def test_many_of_a_namespace_are_read_by_a_list(self, place):
        names = names_of(100, 4)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        assert len(place.asked()) <= 12

    def test_a_namespace_with_many_others_is_not_read_whole(self, place):
        wanted = names_of(BULK)
        place.put([ObjectName("team-0", f"a{number}") for number in range(500)])
        place.put(wanted)
        place.watch.refer_to(secrets=wanted)
        assert place.has(wanted)
        pages = [query for path, query in place.asked() if "/namespaces/" in path and "fieldSelector" not in query]
        assert 1 <= len(pages) <= 2
        assert all(int(query["limit"]) <= 2 * BULK for query in pages)

    @pytest.mark.not_quick
    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
    def test_a_list_that_fails_takes_nothing_away(self, place, status):
        """Lists and watches of whole namespaces always fail; each object is read by its name all the same."""
        names = names_of(BULK + 5)
        place.put(names)
        fault = Fault.status(status, "no")
        whole = re.compile(r"fieldSelector=metadata.name")

        def serve(handler: Any) -> None:
            if whole.search(handler.path):
                place.api._serve(handler)
            else:
                fault.answer(handler)

        place.api.fail("secrets", *[Fault(serve)] * 3000)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        place.put(names[:3], "Yg==")
        assert soon(lambda: list(place.seen.state("Secret")[0].values()).count("Yg==") == 3)
        assert not place.seen.of("Secret", Gone)

    def test_an_object_that_always_fails_harms_only_itself(self, place):
        names = names_of(BULK + 5)
        place.put(names)

        def serve(handler: Any) -> None:
            if "tls-3" in handler.path or "fieldSelector" not in handler.path:
                Fault.status(500, "it cannot be decrypted").answer(handler)
            else:
                place.api._serve(handler)

        place.api.fail("secrets", *[Fault(serve)] * 3000)
        place.watch.refer_to(secrets=names)
        assert place.has([name for name in names if name.name != "tls-3"])
        assert place.watch.unanswered()[-1] == "Secret team-0/tls-3"
        place.api.calm_down()
        assert place.has(names)

    def test_silent_objects_do_not_delay_others(self, place):
        names = names_of(8)
        place.put(names)
        place.api.hush("secrets", "tls-1", "tls-5")
        place.watch.refer_to(secrets=names, config_maps=[ObjectName("team-0", "headers")])
        left = [name for name in names if name.name not in {"tls-1", "tls-5"}]
        assert place.has(left)
        assert soon(lambda: place.seen.of("ConfigMap", Gone))
        assert [title for title in place.watch.unanswered() if "Secret" in title] == [
            "Secret team-0/tls-1",
            "Secret team-0/tls-5",
        ]
        place.api.speak()
        assert place.has(names)


class TestDisturbances:
    @pytest.mark.parametrize(
        "disturbance",
        [DROP, FINISH, HALF_CHUNK, HALF_LINE, SLOW, *GARBAGE, error_event(410), error_event(500)],
        ids=repr,
    )
    def test_no_change_is_missed(self, place, disturbance):
        names = names_of(3)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        assert soon(lambda: place.watch.counts().watches.get("Secret"))
        place.api.disturb("secrets", disturbance)
        place.put(names[:2], "Yg==")
        place.api.delete("secrets", *names[2])
        assert place.has(names[:2], "Yg==")

    def test_a_version_that_is_given_twice_is_passed_on_twice(self, place):
        """Versions are given once more after a restore: the same one may be of another object."""
        names = names_of(2)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        backup = place.api.backup()
        place.put(names, "Yg==")
        assert place.has(names, "Yg==")
        place.api.restore(backup)
        place.put(names[:1], "Yw==")
        assert soon(lambda: place.seen.state("Secret")[0] == {tuple(names[0]): "Yw==", tuple(names[1]): "YQ=="})

    def test_after_a_restore_one_404_takes_nothing_away(self, place):
        """It comes of what stands before an API server that is not there yet; what was told before stays."""
        names = names_of(1)
        place.put(names)
        place.watch.refer_to(secrets=names)
        assert place.has(names)
        refused: list[str] = []

        def serve(handler: Any) -> None:
            if "fieldSelector" in handler.path and len(refused) < 2:
                refused.append(handler.path)
                Fault.status(404, "no").answer(handler)
            else:
                place.api._serve(handler)

        place.api.fail("secrets", *[Fault(serve)] * 100)
        place.watch._referred.begin_era()
        assert soon(lambda: len(refused) == 2)
        place.put(names, "Yg==")
        assert place.has(names, "Yg==")
        assert not place.seen.of("Secret", Gone)

    def test_objects_that_are_no_longer_referred_to_end_the_watch(self, place):
        names = names_of(3)
        place.put(names)
        place.watch.refer_to(secrets=names, config_maps=names)
        assert place.has(names)
        assert soon(lambda: len(place.watch.counts().watches) >= 4)
        place.watch.refer_to()
        assert soon(lambda: len(place.api._connections) <= 3 + 6)
        before = len(place.seen.events)
        place.put(names, "Yg==")
        time.sleep(0.3)
        assert len([event for event in place.seen.events[before:] if event.kind in (Secret, ConfigMap)]) == 0
        place.watch.refer_to(secrets=names)
        assert place.has(names, "Yg==")
