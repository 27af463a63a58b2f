"""What the watches of an API server may cost: bytes, memory, time, numbers; whatever answers there, and however."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from rulegen.apiserver import watch as apiwatch
from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.watch import Watch
from rulegen.apiserver.watching import reflector
from rulegen.kube.objects.events import Changed
from rulegen.kube.objects.names import ObjectName
from tests.apiserver.watching import Consumer, fast, soon
from tests.servers.fakeapi import FakeApi
from tests.servers.hostileapi import (
    hostile,
    kubeconfig_of,
    pages_of,
    service,
    watch_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("alone")

SMALL = ApiTerms(mebibytes=8)


class TestWatches:
    @pytest.fixture
    def follow(self, tmp_path) -> Iterator:
        begun: list[Watch] = []
        seen, said = Consumer(), []

        def begin(url: str, terms: ApiTerms = SMALL, **timing: float) -> tuple[Consumer, list[str], Watch]:
            each = Watch(
                seen, kubeconfig=kubeconfig_of(url, tmp_path), warn=said.append, timing=fast(**timing), terms=terms
            )
            begun.append(each)
            each.start()
            return seen, said, each

        yield begin
        for each in begun:
            each.stop()

    def test_endless_events_end_and_known_objects_stay(self, follow):
        """What there is, is then read as a whole; when that fits, all goes on."""
        event = '{{"type":"ADDED","object":{}}}\n'.format
        feed = watch_of(lambda number: event(service(number, labels=100)).encode() if number < 2000 else b"\n")
        with hostile(feed) as url:
            seen, _, watch = follow(url, ApiTerms(mebibytes=2))
            assert soon(lambda: watch.counts().errors.get(("Service", "too many")))
            assert len(seen.of("Service", Changed)) < 2000
            watch.stop()

    @pytest.mark.not_quick
    def test_a_consumer_that_is_busy_is_waited_for(self, tmp_path):
        """The same object again and again: what is kept of it is little, and what waits would be without end."""
        event = '{{"type":"MODIFIED","object":{}}}\n'.format
        events: list[object] = []
        is_busy = threading.Event()
        is_busy.set()

        def waiting() -> int:
            return len(events) if is_busy.is_set() else 0

        def line(number: int) -> bytes:
            each = service(number, labels=200).replace(f'"name":"s{number}"', '"name":"same"')
            return event(each).encode()

        with hostile(watch_of(line)) as url:
            config = kubeconfig_of(url, tmp_path)
            watch = Watch(events.append, kubeconfig=config, timing=fast(), terms=SMALL, waiting=waiting)
            watch.start()
            assert soon(lambda: len(events) > 20)
            threading.Event().wait(1.0)
            before = len(events)
            threading.Event().wait(0.5)
            assert len(events) == before < 500
            is_busy.clear()
            assert soon(lambda: len(events) > before + 100)
            is_busy.set()
            assert watch.stop()

    def test_a_line_for_ever_ends(self, follow, monkeypatch):
        monkeypatch.setattr(reflector, "MAX_OBJECT", 100_000)
        with hostile(watch_of(lambda _: b" " * 10_000)) as url:
            _, _, watch = follow(url)
            assert soon(lambda: watch.counts().errors.get(("Service", "too large")))
            watch.stop()

    def test_a_watch_that_the_server_never_ends_is_ended(self, follow):
        """Line feeds for ever are no silence."""

        def line(_: int) -> bytes:
            threading.Event().wait(0.02)
            return b"\n"

        with hostile(watch_of(line)) as url:
            _, _, watch = follow(url, watch_least=1.0, watch_most=1.0, watch_silence=0.3)
            assert soon(lambda: watch.counts().watches.get("Service", 0) >= 2)
            watch.stop()

    @pytest.mark.not_quick
    def test_lists_over_the_memory_limit_are_discarded(self, follow):
        with hostile(pages_of(lambda number: service(number, labels=50))) as url:
            seen, _, watch = follow(url)
            assert soon(lambda: watch.counts().errors.get(("Service", "too many")))
            assert seen.of("Service") == []
            watch.stop()

    def test_lists_that_take_too_long_end(self, follow):
        def feed(path: str) -> Iterator[bytes]:
            threading.Event().wait(0.05)
            yield from endless(path)

        endless = pages_of(lambda _: "", size=0)
        with hostile(feed) as url:
            _, _, watch = follow(url, list_whole=0.5)
            assert soon(lambda: watch.counts().errors.get(("Service", "timeout")))
            watch.stop()

    def test_pages_for_ever_end(self, follow, monkeypatch):
        monkeypatch.setattr(reflector, "MAX_PAGES", 20)
        with hostile(pages_of(lambda _: "", size=0)) as url:
            _, _, watch = follow(url)
            assert soon(lambda: watch.counts().errors.get(("Service", "garbage")))
            watch.stop()


class TestNamed:
    """One Ingress, or many of one tenant, name more Secrets than can be followed."""

    NAMES = tuple(ObjectName("greedy", f"s{number:04}") for number in range(40))
    OTHERS = (ObjectName("shop", "a"), ObjectName("shop", "b"))

    def test_those_of_other_namespaces_are_followed_all_the_same(self, tmp_path, monkeypatch):
        monkeypatch.setattr(apiwatch, "MAX_NAMED", 10)
        said, seen = [], Consumer()
        others = threading.active_count()  # of the tests before
        with FakeApi() as api:
            names = [*self.NAMES, *self.OTHERS]
            api.put("secrets", *({"metadata": {"namespace": item.namespace, "name": item.name}} for item in names))
            with Watch(seen, kubeconfig=api.kubeconfig(tmp_path), warn=said.append, timing=fast()) as watch:
                watch.refer_to(secrets=self.NAMES)
                assert soon(lambda: len(seen.names("Secret")) == 10)
                watch.refer_to(secrets=[*self.NAMES[5:], *self.OTHERS])
                assert soon(lambda: {"a", "b"} <= set(seen.names("Secret")))
                beyond = {key.name for key in watch.refused()}
                assert beyond == set(self.NAMES[13:])
                assert threading.active_count() - others < 40  # with those of the server
                watch.refer_to(secrets=self.OTHERS)
                assert not watch.refused()
        # On a busy machine a wait of 50 ms for an answer may be said, too.
        [line] = [each for each in said if each.startswith("Ingresses refer to")]
        assert line.startswith("Ingresses refer to more Secrets and ConfigMaps than can be watched; limit: 10; ")
        assert line.endswith("not_read: 30: greedy/s0010, greedy/s0011, greedy/s0012, …")
