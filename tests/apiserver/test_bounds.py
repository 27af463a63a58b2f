"""What an API server's answers may cost: bytes, memory, time, numbers; whatever answers there, and however."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from rulegen.apiserver import limits, lists
from rulegen.apiserver.budget import Budget, Kept, Weights, weight
from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.lists import read_cluster
from rulegen.apiserver.objects import SERVICES, ApiObjects
from rulegen.apiserver.transport import client, response
from rulegen.apiserver.transport.connection import ApiConnection
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.watch import Watch
from rulegen.errors import HostError, Rejected
from rulegen.kube.objects.events import Changed, Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import EndpointSlice, Service
from rulegen.kube.reading.decode import decode_object
from rulegen.kube.reading.json_text import MAX_PLAIN_VALUES
from tests.apiserver.watching import Consumer, fast, soon
from tests.servers.hostileapi import (
    CHUNK_SIZE,
    CHUNKED,
    EXTENSIONS,
    HEADERS,
    INTERIM,
    OK,
    SPACES,
    TINY_CHUNKS,
    TRAILERS,
    bomb,
    drip,
    full_of,
    hostile,
    kubeconfig_of,
    page,
    pages_of,
    service,
    slice_of,
    watch_of,
)
from tests.sizes import sized

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("alone")

SMALL = ApiTerms(mebibytes=8)


def read(feed, folder, terms: ApiTerms = SMALL) -> HostError:
    """Return the error that reading a cluster ends with."""
    with hostile(feed) as url, pytest.raises(HostError) as caught:
        read_cluster(kubeconfig_of(url, folder), ingress=True, budget=Budget(terms))
    assert caught.value.hint
    return caught.value


class TestOneAnswer:
    @pytest.mark.parametrize(
        ("feed", "expected"),
        [
            pytest.param(INTERIM, "a head of more than 64 KiB", id="interim answers"),
            pytest.param(HEADERS, "does not speak HTTP|a head of more than 64 KiB", id="headers"),
            pytest.param(EXTENSIONS, "the chunked encoding adds more than", id="chunk extensions"),
            pytest.param(TRAILERS, "the chunked encoding adds more than", id="trailers"),
            pytest.param(CHUNK_SIZE, "exceeded|closed early", id="chunk size"),
            pytest.param(SPACES, "an answer of more than 1048576 bytes", id="spaces"),
            pytest.param(TINY_CHUNKS, "the chunked encoding adds|an answer of more than", id="tiny chunks"),
            pytest.param(bomb, "the answer is encoded as 'gzip', which was not requested", id="bomb"),
        ],
    )
    @pytest.mark.parametrize("who", ["command", "run"])
    def test_what_never_ends_is_left_and_said(self, tmp_path, monkeypatch, feed, expected, who):
        if who == "command":
            message = read(feed, tmp_path).message
        else:
            monkeypatch.setattr(response, "MAX_WRITTEN", SMALL.page)
            with hostile(feed) as url:
                link = ApiConnection(kubeconfig_of(url, tmp_path), terms=SMALL)
                with pytest.raises(ApiError) as caught:
                    link.fetch("/api/v1/services", doing="list services")
                link.cut()
            message = caught.value.message
        assert any(words in message for words in expected.split("|")), message

    def test_a_byte_now_and_then_is_no_answer(self, tmp_path, monkeypatch):
        """Each byte ends a silence; the time of the whole answer goes on."""
        monkeypatch.setattr(limits, "ANSWER_S", 0.7)
        assert "the answer was not complete after 0.7 s" in read(drip(0.05), tmp_path).message

    def test_a_byte_now_and_then_is_no_answer_for_run_either(self, tmp_path):
        with hostile(drip(0.05)) as url:
            link = ApiConnection(kubeconfig_of(url, tmp_path))
            with pytest.raises(ApiError, match="not complete after") as caught:
                link.ask("/api/v1/services", {}, doing="list", silence_s=30, whole_s=0.7).small()
            link.cut()
        assert caught.value.reason is ApiReason.TIMEOUT

    def test_an_answer_to_what_we_write_is_bounded_too(self, tmp_path):
        with hostile(lambda _: iter([CHUNKED, *([b"10000\r\n" + b" " * 0x10000 + b"\r\n"] * 300)])) as url:
            link = ApiConnection(kubeconfig_of(url, tmp_path))
            with pytest.raises(ApiError, match="more than 16777216 bytes"):
                ApiObjects(link).patch(SERVICES, "shop", "web", {})
            link.cut()

    def test_an_answer_of_many_values_to_a_write_is_not_decoded(self, tmp_path):
        text = b'{"a":[' + b"{}," * 1_000_000 + b"{}]}"
        with hostile(lambda _: iter([OK + b"Content-Length: %d\r\n\r\n" % len(text) + text])) as url:
            link = ApiConnection(kubeconfig_of(url, tmp_path))
            with pytest.raises(ApiError, match=f"more than {MAX_PLAIN_VALUES} values"):
                ApiObjects(link).read(SERVICES, "shop", "web")
            link.cut()

    @pytest.mark.parametrize("header", ["9" * 400, "99999999999", "-1", "1e9", "nan", "soon", "Fri, 31 Dec 9999"])
    def test_a_pause_that_the_server_asks_for_has_an_end(self, tmp_path, monkeypatch, header):
        slept: list[float] = []
        monkeypatch.setattr(client.time, "sleep", slept.append)
        answer = b"HTTP/1.1 503 no\r\nContent-Length: 0\r\nRetry-After: " + header.encode() + b"\r\n\r\n"
        assert "(503)" in read(lambda _: iter([answer]), tmp_path).message
        assert len(slept) == client.TRIES - 1
        assert all(0 <= seconds <= client.LONGEST_PAUSE_S for seconds in slept)


class TestLists:
    def test_all_lists_of_a_command_have_one_budget(self, tmp_path):
        """Each page alone would do."""
        padded = "{" + " " * 1000 + "}"

        def feed(path: str) -> Iterator[bytes]:
            items = ",".join([service(0)] + [padded] * 900) if "continue" not in path else padded
            yield page(path, items, "" if "continue" in path else "again")

        error = read(feed, tmp_path, ApiTerms(mebibytes=3))
        assert "more than 3 MiB of answers" in error.message or "an answer of more than" in error.message
        assert "--api-limit" in error.hint

    @pytest.mark.parametrize(
        "item",
        [
            pytest.param(lambda _: "{}", id="no objects"),
            pytest.param(lambda number: service(number, labels=200), id="labels"),
            pytest.param(service, id="services"),
        ],
    )
    def test_pages_for_ever_of_small_objects_end(self, tmp_path, item):
        message = read(pages_of(item), tmp_path).message
        assert "objects that need more than 8 MiB" in message or "more than 8 MiB of answers" in message

    def test_pages_for_ever_of_nothing_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lists, "MAX_PAGES", 50)
        assert "more than 50 pages" in read(pages_of(lambda _: "", size=0), tmp_path).message

    def test_pages_that_take_too_long_together_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(limits, "LIST_S", 0.5)
        assert "not finished after 0.5 s" in read(pages_of(lambda _: "", size=0), tmp_path).message

    def test_a_token_that_is_no_token(self, tmp_path):
        feed = pages_of(lambda _: "", token=lambda number: f"{number}" + "x" * 50_000, size=0)
        with hostile(feed) as url, pytest.raises(HostError, match="a continue token of more than 32768 characters"):
            read_cluster(kubeconfig_of(url, tmp_path))

    def test_pages_that_are_too_large_are_asked_for_in_parts(self, tmp_path):
        asked: list[str] = []

        def feed(path: str) -> Iterator[bytes]:
            asked.append(path)
            limit = int(path.partition("limit=")[2].partition("&")[0])
            items = [service(0)[:-1] + " " * 5000 + "}"] * min(limit, 400) if "/services" in path else []
            yield page(path, ",".join(items))

        with hostile(feed) as url:
            objects = read_cluster(kubeconfig_of(url, tmp_path), budget=Budget(SMALL))
        assert [path.partition("limit=")[2].partition("&")[0] for path in asked if "/services" in path] == ["500", "62"]
        assert len(objects) == 62

    def test_a_page_of_too_many_values_is_not_decoded(self, tmp_path):
        error = read(full_of(b"0", 4 << 20), tmp_path, ApiTerms(mebibytes=64))
        assert "with more than 1500000 values" in error.message


class TestObjects:
    def test_an_object_of_too_many_values_harms_only_itself(self):
        raw = b'{"metadata":{"name":"web","namespace":"shop"},"spec":{"ports":[' + b"{}," * MAX_PLAIN_VALUES + b"{}]}}"
        objects = decode_object(raw, Service)
        assert isinstance(objects, Rejected)
        assert objects.object == "Service shop/web"
        assert objects.lines() == (f"Service shop/web: more than {MAX_PLAIN_VALUES} values",)

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            (Service, service),
            (Service, lambda number: service(number, labels=500)),
            (EndpointSlice, lambda number: slice_of(number, 500)),
            (Service, lambda _: "{}"),
            (Service, lambda _: '{"metadata":{"name":5}}'),
        ],
        ids=["services", "labels", "endpoints", "empty", "wrong type"],
    )
    def test_the_memory_that_objects_take_is_counted(self, kind, text):
        texts = [text(number).encode() for number in range(sized(quick=30, usual=300, full=300))]
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        kept = [decode_object(each, kind) for each in texts]
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert taken <= 1.5 * weight(kept)
        assert weight(kept) <= 10 * taken

    def test_weights_follow_events(self):
        weights = Weights(Service)
        each = decode_object(service(1).encode(), Service)
        bad = decode_object(b'{"metadata":{"name":"s1","namespace":"shop"},"spec":1}', Service)
        name = ObjectName("shop", "s1")
        weights.changed(Changed(Service, each, name))
        assert weights.total == weight([each])
        weights.changed(Changed(Service, bad, name))
        assert weights.total == weight([bad])
        weights.changed(Changed(Service, each, name))
        weights.changed(Changed(Service, each, name))
        assert weights.total == weight([each])
        weights.changed(Gone(Service, name))
        assert weights.total == 0

    def test_the_limit_counts_all_watches_together(self):
        kept = Kept(ApiTerms(mebibytes=1))
        assert kept.note("a", 600_000)
        assert not kept.note("b", 500_000)
        assert kept.note("a", 500_000)
        assert kept.note("b", 500_000)
        assert kept.note("a", 0)
        assert kept.note("b", 1_000_000)


PART = sized(quick=8, usual=8, full=1)
"""Answers, the limit for them, and the memory beyond BASE_MB are smaller by this factor."""
MOST_MB, BASE_MB = 512, 64
_READS = f"""
import resource, sys, time
from pathlib import Path
from rulegen.errors import HostError
from rulegen.apiserver.budget import Budget
from rulegen.apiserver.limits import DEFAULT_MEBIBYTES, ApiTerms
from rulegen.apiserver.lists import read_cluster
from rulegen.apiserver.watch import Watch

TERMS = ApiTerms(mebibytes=DEFAULT_MEBIBYTES // {PART})

def all_failed_twice(errors):
    kinds = set(kind for kind, _ in errors)
    failures = [sum(n for (kind, _), n in errors.items() if kind == each) for each in kinds]
    return len(failures) >= 5 and min(failures) >= 2  # the kinds that an agent with Ingresses follows

def command(kubeconfig):
    try:
        read_cluster(kubeconfig, ingress=True, budget=Budget(TERMS))
    except HostError as error:
        print(error.message)

def run(kubeconfig):
    kept, said = dict(), []

    def emit(event):
        if hasattr(event, "objects"):
            kept[event.kind] = event.objects
        elif hasattr(event, "one"):
            kept[event.kind, event.name] = event.state

    watch = Watch(emit, kubeconfig=kubeconfig, node="a", ingress=True, warn=said.append, terms=TERMS)
    watch.start()
    end = time.monotonic() + 12
    while not all_failed_twice(watch.counts().errors) and time.monotonic() < end:
        time.sleep(0.05)
    print(said, watch.counts().errors)
    watch.stop()

for reader in (command, run):
    reader(sys.argv[1])
    status = Path("/proc/self/status").read_text()
    print(f"VmHWM of {{reader.__name__}}:", status.partition("VmHWM:")[2].split()[0])
"""
"""Reads a cluster as a command and then as an agent does, and prints after each the most memory that the process had
until then, in KiB: not ru_maxrss, which a fork takes over."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "feed",
    [
        pytest.param(bomb, id="bomb"),
        pytest.param(full_of(b"{}", (300 << 20) // PART), id="empty objects"),
        pytest.param(full_of(b"{}", (2 << 20) // PART), id="fewer empty objects"),
        pytest.param(full_of(b"0", (300 << 20) // PART), id="numbers"),
        pytest.param(full_of(b"[[[[[[]]]]]]", (30 << 20) // PART), id="nested"),
        pytest.param(
            full_of(b'{"spec":{"ports":[' + b"{}," * (300_000 // PART) + b"{}]}}", (30 << 20) // PART), id="ports"
        ),
        pytest.param(pages_of(lambda _: "{}"), id="pages of empty objects"),
        pytest.param(pages_of(lambda number: service(number, labels=200)), id="pages of labels"),
        pytest.param(
            watch_of(lambda n: f'{{"type":"ADDED","object":{service(n, labels=200)}}}\n'.encode()), id="events"
        ),
    ],
)
def test_no_answer_costs_more_than_half_a_gigabyte(tmp_path, feed):
    with hostile(feed) as url:
        done = subprocess.run(
            [sys.executable, "-c", _READS, kubeconfig_of(url, tmp_path)],
            capture_output=True,
            text=True,
            timeout=250,
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
    peaks = {who: int(kib) for who, kib in re.findall(r"^VmHWM of (\w+): (\d+)$", done.stdout, re.MULTILINE)}
    assert peaks.keys() == {"command", "run"}, done.stdout
    assert max(peaks.values()) <= (BASE_MB + (MOST_MB - BASE_MB) / PART) * 1024, done.stdout


def test_objects_of_one_name_count_each_while_they_are_listed(tmp_path):
    """A list holds all its objects until it is reported, also thousands without a name."""
    with hostile(full_of(b"{}", 64 << 10)) as url:
        seen = Consumer()
        watch = Watch(seen, kubeconfig=kubeconfig_of(url, tmp_path), timing=fast(), terms=ApiTerms(mebibytes=1))
        watch.start()
        try:
            assert soon(lambda: {reason for _, reason in watch.counts().errors} == {"too many"})
            assert not watch.counts().lists
        finally:
            watch.stop()


def test_an_error_keeps_nothing_of_what_was_read(tmp_path):
    """A watcher waits with its error for up to half a minute: a page of many MiB must not wait with it."""
    with hostile(full_of(b"{}", 20 << 20)) as url:
        seen = Consumer()
        config = kubeconfig_of(url, tmp_path)
        slow = fast(first_pause=1000.0, longest_pause=1000.0, draw=lambda low, high: high)
        tracemalloc.start()
        watch = Watch(seen, kubeconfig=config, timing=slow, terms=ApiTerms(mebibytes=64))
        watch.start()
        assert soon(lambda: len(watch.counts().troubles) == 0 and sum(watch.counts().errors.values()) >= 2)
        assert soon(lambda: tracemalloc.get_traced_memory()[0] < 16 << 20)
        tracemalloc.stop()
        watch.stop()
