"""The law of the watcher: whatever happens in between, in the end the consumer has what the server has.

The server is real (sockets, TLS, several threads), the faults are those of real ones, in any order: it is down, silent,
frozen within a watch, refuses us, fails, is put back to a backup. What it never does is lie: an answer that says in
good form that there is nothing is believed.
"""

from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rulegen.apiserver.watch import Watch
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import Secret
from tests.apiserver.watching import ALL, ROLES, Consumer, allowed_to, fast, soon
from tests.fakes.certificates import make_certificate
from tests.fakes.faults import Fault
from tests.fakes.requests import selector
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
)
from tests.servers.fakeapi import FakeApi
from tests.sizes import examples

KINDS = {
    "services": "Service",
    "endpointslices": "EndpointSlice",
    "nodes": "Node",
    "ingresses": "Ingress",
    "secrets": "Secret",
}
NAMED = ("a", "b")
"""Secrets that are referred to; `c` never is."""
DISTURBANCES = (
    DROP,
    END_WITHIN_LINE,
    FINISH,
    HALF_CHUNK,
    HALF_LINE,
    HANG,
    SLOW,
    *GARBAGE,
    error_event(410),
    error_event(500),
)
FAULTS = {
    "429": Fault.status(429, retry_after=0),
    "500": Fault.status(500),
    "503": Fault.status(503),
    "403": Fault.status(403),
    "404": Fault.status(404),
    "410": Fault.status(410),
    "401": Fault.status(401),
    "hang up": Fault.hang_up(),
    "silent": Fault(lambda handler: (time.sleep(0.6), setattr(handler, "close_connection", True))),
    "page": Fault.body(b"<html>"),
    "cut": Fault.body(b'{"kind":"ServiceList","metadata":{"resourceVersion":"7"},"items":[', length=9999),
    "empty": Fault.body(b"{}"),
    "as it should": None,
}
uids = count()

nouns = st.sampled_from(sorted(KINDS))
names = st.sampled_from("abc")
steps = st.one_of(
    st.tuples(st.just("put"), nouns, names, st.sampled_from(["plain", "plain", "labelled", "headless", "bad"])),
    st.tuples(st.just("put"), nouns, names, st.sampled_from(["plain", "plain", "labelled", "headless", "bad"])),
    st.tuples(st.just("delete"), nouns, names),
    st.tuples(st.just("disturb"), nouns, st.sampled_from(DISTURBANCES)),
    st.tuples(st.just("fail"), nouns, st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["compact", "forget_pages", "break_connections", "restart", "login", "refer", "wait"])),
    st.tuples(st.just("away"), nouns, names),
    st.tuples(st.sampled_from(["backup", "restore"])),
    st.tuples(st.just("role"), st.sampled_from(ROLES)),
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def content(noun: str, sort: str) -> dict[str, Any]:
    """Return what an object of a sort has but its name; of the sort `bad`, faults."""
    is_bad = sort == "bad"
    match noun:
        case "services":
            address = "None" if sort == "headless" else "10.96.0.1"
            ports = [{"port": 70000 if is_bad else 80, "protocol": "TCP"}]
            return {"spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports}}
        case "endpointslices":
            endpoints = 7 if is_bad else [{"addresses": ["10.0.0.1"]}]
            return {"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}]}
        case "nodes":
            return {"spec": {"podCIDRs": 7}} if is_bad else {}
        case "ingresses":
            backend = {"service": {"name": "web", "port": {"number": 80}}}
            return {"spec": {"rules": [{"host": "*"}]} if is_bad else {"defaultBackend": backend}}
        case _:
            return {"data": {"key": "no base64!" if is_bad else "YQ=="}}


LABELS = {
    "services": "service.kubernetes.io/service-proxy-name",
    "endpointslices": "service.kubernetes.io/headless",
}


class Play:
    """A server, a watcher, and all that happens to them."""

    def __init__(self, api: FakeApi, folder: Path, *, ingress: bool, **timing: float) -> None:
        self.api = api
        self.folder = folder
        self.seen = Consumer()
        self.ingress = ingress
        self.referred = set(NAMED)
        self.tokens = count()
        self.backup = api.backup()
        self.role = ALL
        api.allows_at = lambda path, query: allowed_to(self.role, path, query)
        options = {"kubeconfig": self.write_login(), "node": "a", "ingress": ingress, "page_size": 2}
        self.watch = Watch(self.seen, timing=fast(outage=0.3, **timing), **options)

    def write_login(self) -> str:
        return self.api.kubeconfig(self.folder, **{"certificate-authority": str(self.api.certificate[0])})

    def do(self, step: tuple[Any, ...]) -> None:
        api = self.api
        match step:
            case "put", noun, name, sort:
                self.put(noun, name, sort)
            case "delete", noun, name:
                api.delete(noun, space(noun), name)
            case "disturb", noun, disturbance:
                api.disturb(noun, disturbance)
            case "fail", noun, faults:
                api.fail(noun, *(FAULTS[fault] for fault in faults))
            case "away", noun, name:
                api.go_away()
                self.put(noun, name, "plain")
                api.delete(noun, space(noun), "a" if name == "b" else "b")
                api.come_back()
            case "role", role:
                self.role = role
            case ("backup",):
                self.backup = api.backup()
            case ("restore",):
                api.restore(self.backup)
            case ("restart",):
                api.go_away()
                api.compact()
                api.come_back()
            case ("login",):
                api.token = f"token-{next(self.tokens)}"
                api.break_connections()
                self.write_login()
            case ("refer",):
                self.referred ^= {"b"}
                self.refer()
            case ("wait",):
                time.sleep(0.05)
            case (name,):
                getattr(api, name)()

    def put(self, noun: str, name: str, sort: str) -> None:
        labels = {LABELS[noun]: "x"} if sort == "labelled" and noun in LABELS else {}
        metadata = {"namespace": space(noun), "name": name, "uid": f"uid-{next(uids)}", "labels": labels}
        self.api.put(noun, {"metadata": metadata, **content(noun, sort)})

    def refer(self) -> None:
        self.watch.refer_to(secrets=[ObjectName("shop", name) for name in self.referred])
        if "b" not in self.referred:
            self.seen(Gone(Secret, ObjectName("shop", "b")))  # a consumer forgets what it no longer refers to

    def expected(self, noun: str) -> tuple[dict[tuple[str, str], str], set[str]]:
        """Return what a consumer should have of a kind."""
        path = {
            "services": "?labelSelector=!service.kubernetes.io/service-proxy-name&fieldSelector=spec.clusterIP!=None",
            "endpointslices": "?labelSelector=!service.kubernetes.io/headless",
            "nodes": "?fieldSelector=metadata.name%3Da",
        }.get(noun, "")
        selects = selector("/x" + ("" if self.ingress and noun != "nodes" else path.replace("!=", "%21%3D")))
        usable, rejected = {}, set()
        for (namespace, name), each in self.api.kept(noun).items():
            if not selects(each) or (noun == "secrets" and name not in self.referred):
                continue
            bad = content(noun, "bad")
            if all(each.get(key) == value for key, value in bad.items()):
                rejected.add(f"{KINDS[noun]} {namespace}/{name}" if namespace else f"{KINDS[noun]} {name}")
            else:
                usable[namespace, name] = each["metadata"]["uid"]
        return usable, rejected

    def is_settled(self) -> bool:
        nouns = [noun for noun in KINDS if noun != "ingresses" or self.ingress]
        return self.watch.has_synced and all(self.seen.state(KINDS[noun]) == self.expected(noun) for noun in nouns)


def space(noun: str) -> str:
    return "" if noun == "nodes" else "shop"


@settings(
    max_examples=examples(12),
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # threads: what fails once need not fail again, so nothing is made smaller
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(steps, min_size=5, max_size=40),
    ingress=st.booleans(),
    by_status=st.booleans(),
    bookmarks=st.booleans(),
)
@pytest.mark.slow
def test_in_the_end_the_consumer_has_what_the_server_has(tmp_path, certificate, steps, ingress, by_status, bookmarks):
    api = FakeApi(certificate=certificate, refuses_by_status=by_status, bookmark_every=0.02 * bookmarks, token="first")
    with api:
        # A server that was set back may have passed our revisions before anybody is back: only a whole list finds it.
        whole = {"whole": 1.0, "watch_least": 1.0, "watch_most": 1.0} if ("restore",) in steps else {}
        play = Play(api, tmp_path, ingress=ingress, **whole)
        for noun in KINDS:
            for name in "abc":
                play.put(noun, name, "plain")
        play.do(("backup",))
        with play.watch as watcher:
            play.refer()
            for step in steps:
                play.do(step)
            api.calm_down()
            play.write_login()

            assert soon(play.is_settled), (watcher.counts(), watcher.unanswered())
            for noun in KINDS:  # and it still follows
                play.put(noun, "a", "plain")
            assert soon(play.is_settled), (watcher.counts(), watcher.unanswered())
    # Nobody waits for the thread of what is no longer referred to: it ends by itself, soon.
    assert soon(lambda: not [each for each in threading.enumerate() if each.name.startswith("watch ")])


@settings(
    max_examples=examples(10),
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    before=st.lists(st.tuples(nouns, names), min_size=1, max_size=6),
    after=st.lists(st.tuples(nouns, names), max_size=6),
    ingress=st.booleans(),
    bookmarks=st.booleans(),
)
@pytest.mark.slow
def test_a_restore_is_found_without_a_whole_list(tmp_path, certificate, before, after, ingress, bookmarks):
    """Where the server has fewer revisions than it told, which it has for a while, comparing them is enough."""
    with FakeApi(certificate=certificate, bookmark_every=0.02 * bookmarks, token="first") as api:
        play = Play(api, tmp_path, ingress=ingress)
        for noun in KINDS:
            for name in "abc":
                play.put(noun, name, "plain")
        backup = api.backup()
        with play.watch:
            play.refer()
            assert soon(play.is_settled)
            for noun, name in before:
                play.put(noun, name, "plain")
                api.delete(noun, space(noun), name)
            for _ in range(len(after) + 1):  # so that what comes after does not reach what was told
                play.put("services", "last", "plain")
            assert soon(play.is_settled)
            api.restore(backup)
            for noun, name in after:
                play.put(noun, name, "plain")
            assert soon(play.is_settled)
            assert play.watch.counts().lists["Service"] >= 2
