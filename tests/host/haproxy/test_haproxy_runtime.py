"""A running HAProxy takes changes of endpoints, hosts and certificates over its socket; its files say the same."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import math
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import ApplyError
from rulegen.host.commands.runner import run
from rulegen.host.haproxy import status, worker
from rulegen.host.haproxy.engine import HaproxyEngine
from rulegen.host.haproxy.pending import HINDERED_S
from rulegen.host.haproxy.program import HANGS, HAPROXY
from rulegen.host.haproxy.service import HaproxyService
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.service import HinderedError
from rulegen.kube.objects.kinds import KubeObject
from rulegen.languages.haproxy.commands import changes
from rulegen.languages.haproxy.runtime import holds, state_of
from rulegen.model.ingress.defaults import HttpHost
from tests.apiserver.watching import soon
from tests.languages.test_haproxy_changes import HOSTILE
from tests.rights import needs_root
from tests.strategies.ingresses import endpoints, ingress, options, rule, service, site, tls, tls_secret, world
from tests.strategies.ingresses import path as route

pytestmark = [pytest.mark.slow, needs_root]

HTTP, HTTPS, BACKEND = 8081, 8443, 9000
PORTS = (("http", BACKEND), ("other", BACKEND))
POD = "10.244.1.{}"


class Pod(BaseHTTPRequestHandler):
    """Answers with its own address."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


class Pods(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def pods(namespace: None) -> Iterator[None]:
    """Have an HTTP server at every address of 10.244.0.0/16."""
    subprocess.run(["ip", "addr", "add", "10.244.0.1/16", "dev", "lo"], check=True)
    with Pods(("0.0.0.0", BACKEND), Pod) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


Serve = Callable[..., DeployAction]


@pytest.fixture
def engine(service, pods) -> HaproxyEngine:
    host = HttpHost(user="haproxy haproxy", http_port=HTTP, https_port=HTTPS, ipv6=False)
    return HaproxyEngine(service, options(host=host))


@pytest.fixture
def serve(engine) -> Serve:
    """Return a function that serves objects as the agent does."""
    last = []

    def call(*objects: KubeObject) -> DeployAction:
        chosen = engine.check(world(*objects), engine.observe(), last[-1] if last else None)
        last.append(chosen)
        return engine.deploy(chosen).action

    return call


def ask(host: str = "site.test", target: str = "/", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", HTTP, timeout=10)
    try:
        connection.request("GET", target, headers={"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def answers(count: int = 20, **asked: str) -> set[str]:
    return {ask(**asked)[1] for _ in range(count)}


def presented(name: str) -> bytes:
    """Return the certificate that a client of TLS gets for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", HTTPS), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname=name) as secured:
        return secured.getpeercert(binary_form=True) or b""


def web(*numbers: int) -> tuple[KubeObject, ...]:
    return service("web"), endpoints("web", [POD.format(number) for number in numbers], ports=PORTS)


def on_socket(folder: Path, *commands: str) -> None:
    """Do what somebody else does over the socket of the worker."""
    with worker.connected(folder) as link:
        link.ask_all([f"{command}\n" for command in commands])


def is_as_on_disk(engine: HaproxyEngine) -> bool:
    seen, files = worker.observe(engine.service.folder), engine.observe()
    assert seen is not None
    assert files is not None
    return holds(seen.state, state_of(files)) and seen.state.digest == files.digest == engine.service.releases.live()


def restart(engine: HaproxyEngine) -> None:
    """Have HAProxy start again from its files."""
    folder = engine.service.folder
    before = {process.pid for process in HAPROXY.processes(folder)}
    for process in HAPROXY.processes(folder):
        process_list.send(process, signal.SIGKILL)
    assert soon(lambda: engine.is_serving and not before & {each.pid for each in HAPROXY.processes(folder)}, 30)


def workers(engine: HaproxyEngine) -> list[int]:
    return [process.pid for process in process_list.workers(HAPROXY.processes(engine.service.folder))]


def test_fifty_changes_of_endpoints_fail_no_request_and_need_no_reload(serve, engine):
    assert serve(*web(1, 2), site()) is DeployAction.STARTED
    before = workers(engine)
    results: list[object] = []
    ended = threading.Event()

    def client() -> None:
        while not ended.is_set():
            try:
                results.append(ask()[0])
            except (OSError, http.client.HTTPException) as error:
                results.append(error)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    actions = {serve(*web(number, number + 1), site()) for number in range(2, 52)}
    ended.set()
    for each in clients:
        each.join()

    assert len(results) > 100
    assert set(results) == {200}
    assert actions == {DeployAction.UPDATED}
    assert workers(engine) == before
    assert answers() == {POD.format(51), POD.format(52)}
    assert is_as_on_disk(engine)
    restart(engine)
    assert answers() == {POD.format(51), POD.format(52)}
    assert is_as_on_disk(engine)


@pytest.mark.parametrize(
    ("commands", "shown"),
    [
        (["set server {} state maint"], "takes no new connections"),
        (["set server {} weight 0"], "weight 0"),
        (["set server {} addr 10.244.9.9 port 80"], "10.244.9.9:80"),
        (["set server {} state maint", "del server {}"], ""),
        (["add server {backend}/mine 10.244.9.9:80", "enable server {backend}/mine"], "10.244.9.9:80"),
        (["add map maps/hosts.map evil.test hffff"], "evil.test hffff"),
        (["clear map maps/prefix.map"], "/ "),
    ],
)
def test_what_somebody_did_over_the_socket_is_shown_and_mended(serve, engine, commands, shown):
    objects = (*web(1, 2), site())
    serve(*objects)
    before = workers(engine)
    chosen = engine.check(world(*objects), engine.observe())
    key = min(state_of(chosen.configuration).servers)
    on_socket(engine.service.folder, *(text.format("/".join(key), backend=key.backend) for text in commands))

    plan = engine.plan(chosen, engine.observe())

    assert plan.items
    assert all(item.drift for item in plan.items)
    assert shown in "\n".join(line.text for item in plan.items for line in item.lines)
    assert not plan.reload
    assert engine.deploy(chosen).action is DeployAction.UPDATED
    assert engine.plan(chosen, engine.observe()).items == ()
    assert workers(engine) == before
    assert answers() == {POD.format(1), POD.format(2)}
    assert is_as_on_disk(engine)


def test_the_same_again_does_nothing(serve, engine):
    serve(*web(1, 2), site())
    assert serve(*web(1, 2), site()) is DeployAction.NOTHING
    serve(*web(3), site())
    assert serve(*web(3), site()) is DeployAction.NOTHING


def test_a_removed_server_ends_its_open_request_and_is_then_deleted(serve, engine):
    serve(*web(1, 2), site())
    with socket.create_connection(("127.0.0.1", HTTP), timeout=10) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert b"200" in open_one.recv(4096)
        assert serve(*web(3), site()) is DeployAction.UPDATED
        assert answers() == {POD.format(3)}
        open_one.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
        assert b"200" in open_one.recv(4096)


def test_a_client_stays_at_its_server_also_at_one_that_was_added(serve, engine):
    sticky = site(affinity="cookie", session_cookie_name="route")
    serve(*web(1), sticky)
    serve(*web(1, 2, 3), sticky)
    given: dict[str, str] = {}
    for _ in range(20):
        _, pod, headers = ask()
        given[pod] = headers["Set-Cookie"].partition(";")[0]
    assert len(given) == 3
    for pod, cookie in given.items():
        status, asked, headers = ask(Cookie=cookie)
        assert (status, asked, headers["Set-Cookie"]) == (200, pod, None)
    assert ask(Cookie="route=nobody")[0] == 200
    assert is_as_on_disk(engine)


def test_hosts_paths_and_new_services_are_served_without_a_reload(serve, engine):
    api = service("api"), endpoints("api", [POD.format(7)], ports=PORTS)
    serve(*web(1), site())
    before = workers(engine)

    actions = [
        serve(*web(1), site(), ingress("new", rule("new.test", route("/")))),
        serve(*web(1), *api, site(), ingress("new", rule("new.test", route("/x", to="api"), route("/y", to="web")))),
    ]

    assert actions == [DeployAction.UPDATED] * 2
    assert [ask("new.test", "/x")[:2], ask("new.test", "/y")[:2]] == [(200, POD.format(7)), (200, POD.format(1))]
    assert ask("new.test", "/")[0] == 404
    assert is_as_on_disk(engine)
    restart(engine)
    assert ask("new.test", "/x")[:2] == (200, POD.format(7))
    assert is_as_on_disk(engine)
    assert serve(*web(1), site()) is DeployAction.UPDATED
    assert ask("new.test", "/x")[0] == 404
    assert len(workers(engine)) == len(before)


def test_a_service_that_loses_its_endpoints_and_gets_others_needs_no_reload(serve, engine):
    plain = site(service_upstream="false")
    serve(*web(1), plain)
    assert serve(service("web"), plain) is DeployAction.UPDATED
    assert ask()[0] == 503
    assert serve(*web(2), plain) is DeployAction.UPDATED
    assert ask()[:2] == (200, POD.format(2))
    assert is_as_on_disk(engine)


def test_the_weight_of_a_canary_changes_without_a_reload(serve, engine):
    new = service("new"), endpoints("new", [POD.format(9)], ports=PORTS)

    def canary(weight: int) -> KubeObject:
        texts = {"canary": "true", "canary-weight": str(weight)}
        return ingress("canary", rule("site.test", route("/", to="new")), annotations=texts)

    serve(*web(1), *new, site(), canary(0))
    assert answers() == {POD.format(1)}
    assert serve(*web(1), *new, site(), canary(100)) is DeployAction.UPDATED
    assert answers() == {POD.format(9)}
    assert is_as_on_disk(engine)


def test_a_certificate_changes_without_a_reload(serve, engine):
    secured = ingress("site", rule("site.test"), tls=[tls("cert", "site.test")])
    serve(*web(1), secured, tls_secret("cert", "site.test"))
    before, seen = workers(engine), presented("site.test")

    assert serve(*web(1), secured, tls_secret("cert", "site.test", "also.test")) is DeployAction.UPDATED

    assert presented("site.test") != seen
    assert presented("other.test") not in {seen, presented("site.test")}
    assert workers(engine) == before
    assert is_as_on_disk(engine)
    restart(engine)
    assert is_as_on_disk(engine)


def test_a_reload_is_needed_for_what_the_socket_cannot_change(serve, engine):
    serve(*web(1), site())
    assert serve(*web(1), site(whitelist_source_range="127.0.0.0/8")) is DeployAction.RELOADED
    assert ask()[0] == 200
    assert is_as_on_disk(engine)


def test_hostile_texts_stay_one_entry_of_a_map(serve, engine):
    serve(*web(1), site())
    seen = worker.observe(engine.service.folder)
    entries = tuple((f"k{number}", text) for number, text in enumerate(HOSTILE))
    entries += tuple((text, "v") for text in HOSTILE if " " not in text)
    wanted = replace(seen.state, maps={**seen.state.maps, "maps/hosts.map": entries})
    with worker.connected(engine.service.folder) as link:
        worker.change(link, changes(seen.state, wanted, seen.listed, {}))
        assert worker.held(link).state.maps["maps/hosts.map"] == entries


def test_a_second_reload_waits_and_endpoints_do_not(serve, engine, monkeypatch):
    now = [100.0]
    engine.clock = lambda: now[0]
    slow = ingress("slow", rule("slow.test"), annotations={"proxy-read-timeout": "7"})
    serve(*web(1), site())
    before = workers(engine)
    now[0] += 20

    waiting = engine.deploy(engine.check(world(*web(2), site(), slow), engine.observe()))

    assert (waiting.action, waiting.again_s) == (DeployAction.UPDATED, 10)
    assert answers() == {POD.format(2)}
    assert ask("slow.test")[0] == 404
    assert workers(engine) == before
    assert serve(*web(3), site(), slow) is DeployAction.UPDATED
    assert answers() == {POD.format(3)}
    now[0] += 11
    assert serve(*web(3), site(), slow) is DeployAction.RELOADED
    assert ask("slow.test")[0] == 200
    assert is_as_on_disk(engine)


def test_a_restart_while_a_reload_waits_serves_all(serve, engine):
    serve(*web(1), site())
    slow = ingress("slow", rule("slow.test"), annotations={"proxy-read-timeout": "7"})
    serve(*web(2), site(), slow)
    assert ask("slow.test")[0] == 404
    restart(engine)
    assert [ask("slow.test")[0], *answers()] == [200, POD.format(2)]
    assert is_as_on_disk(engine)


def test_a_path_that_is_closed_does_not_wait(serve, engine):
    serve(*web(1), site())
    assert serve(*web(1), site(whitelist_source_range="192.0.2.0/24")) is DeployAction.RELOADED
    assert ask()[0] == 403


def test_only_what_others_change_in_the_files_is_noticed(serve, engine):
    for number in (1, 2):
        assert serve(*web(number), site()) is not DeployAction.NOTHING
        engine.follow_files()
        assert is_as_on_disk(engine)
        assert serve(*web(number), site()) is DeployAction.NOTHING
        assert not engine.have_files_changed()
    path = engine.service.folder / "current" / "maps" / "hosts.map"
    path.write_text("# what others wrote\n")
    assert engine.have_files_changed()
    serve(*web(2), site())
    assert "# what others wrote" not in path.read_text()
    engine.follow_files(ends=True)


SLOW = ingress("slow", rule("slow.test"), annotations={"proxy-read-timeout": "7"})
"""An Ingress that needs a reload."""


@pytest.fixture
def late(engine) -> HaproxyEngine:
    """Return the engine; the reload before never delays the next one."""
    times = itertools.count(100, 100)
    engine.clock = lambda: float(next(times))
    return engine


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Have HAProxy not waited for long."""
    for function in (status.ask, status.serves, status.worker_serves):
        monkeypatch.setitem(function.__kwdefaults__, "timeout_s", 0.3)


def master(engine: HaproxyEngine) -> int:
    known = process_list.master(HAPROXY.processes(engine.service.folder))
    assert known is not None
    return known.pid


@pytest.mark.usefixtures("impatient")
def test_a_stopped_master_delays_only_what_needs_a_reload(serve, late):
    serve(*web(1), site())
    stopped, before = master(late), workers(late)
    os.kill(stopped, signal.SIGSTOP)
    assert (late.is_serving, late.hindrance) == (True, HANGS)
    waiting = late.deploy(late.check(world(*web(2), site(), SLOW), late.observe()))
    assert (waiting.action, waiting.again_s) == (DeployAction.UPDATED, HINDERED_S)
    assert answers() == {POD.format(2)}
    assert ask("slow.test")[0] == 404
    with pytest.raises(HinderedError, match="what needs a reload waits"):
        serve(*web(2), site(whitelist_source_range="192.0.2.0/24"), SLOW)
    assert serve(*web(3), site(), SLOW) is DeployAction.UPDATED
    assert answers() == {POD.format(3)}
    assert (master(late), workers(late)) == (stopped, before)
    os.kill(stopped, signal.SIGCONT)
    assert soon(lambda: not late.hindrance, 10)
    assert serve(*web(3), site(), SLOW) is DeployAction.RELOADED
    assert [ask("slow.test")[0], *answers()] == [200, POD.format(3)]
    assert is_as_on_disk(late)


WRAPPER = """#!/bin/bash
case " $* " in *" -c "*) ;; *) while [ -e {flag} ]; do sleep 0.05; done ;; esac
exec -a "$0" {haproxy} "$@"
"""
"""HAProxy starts itself again by the name that it was started with."""


@pytest.mark.usefixtures("impatient", "pods")
def test_a_master_that_hangs_within_a_reload_loses_no_worker(folder, tmp_path):
    """It starts itself again, which hangs. A supervisor that starts meanwhile does not start a second HAProxy."""
    flag, wrapper = tmp_path / "hangs", tmp_path / "haproxy-wrapped"
    wrapper.write_text(WRAPPER.format(flag=flag, haproxy=shutil.which("haproxy")))
    wrapper.chmod(0o755)
    host = HttpHost(user="haproxy haproxy", http_port=HTTP, https_port=HTTPS, ipv6=False)
    wrapped = HaproxyService(folder, run, binary=str(wrapper), confirm_s=1)
    engine = HaproxyEngine(wrapped, options(host=host))
    engine.deploy(engine.check(world(*web(1), site()), None))
    served, before = engine.service.releases.live(), workers(engine)
    flag.touch()
    wanted = engine.check(world(*web(1), site(), SLOW), engine.observe())
    engine.reloaded_at = -math.inf
    with pytest.raises(ApplyError, match=f"release {served} is served as before; {HANGS}"):
        engine.deploy(wanted)
    assert (engine.is_serving, engine.hindrance, workers(engine)) == (True, HANGS, before)
    hanging = master(engine)
    os.kill(supervision.supervisor_pid(folder), signal.SIGKILL)
    assert soon(lambda: supervision.ensure(folder, str(wrapper), HAPROXY), 10)
    assert soon(lambda: f"haproxy {hanging} is already running" in (folder / "logs/keeper.log").read_text(), 10)
    assert answers() == {POD.format(1)}
    assert (master(engine), workers(engine)) == (hanging, before)
    flag.unlink()
    assert soon(lambda: not engine.hindrance, 10)
    assert engine.deploy(wanted).action is DeployAction.RELOADED
    assert [ask("slow.test")[0], *answers(), master(engine)] == [200, POD.format(1), hanging]


def test_what_the_socket_does_not_mend_a_reload_does(serve, engine, monkeypatch):
    objects = (*web(1, 2), site())
    serve(*objects)
    on_socket(engine.service.folder, "clear map maps/prefix.map")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "change", lambda *_: None)
        assert serve(*objects) is DeployAction.RELOADED
    assert answers() == {POD.format(1), POD.format(2)}
    assert is_as_on_disk(engine)
    assert serve(*objects) is DeployAction.NOTHING


def test_a_killed_agent_between_the_files_and_the_socket_is_repaired(serve, engine, monkeypatch):
    serve(*web(1), site())
    chosen = engine.check(world(*web(2), site()), engine.observe())
    with monkeypatch.context() as patch:
        patch.setattr(worker, "change", lambda *_: os.close(-1))
        patch.setattr(type(engine.service), "apply", lambda *_, **__: pytest.fail("a reload"))
        with pytest.raises(pytest.fail.Exception):
            engine.deploy(chosen)
    assert answers() == {POD.format(1)}

    assert engine.deploy(chosen).action is DeployAction.UPDATED
    assert answers() == {POD.format(2)}
    assert supervision.supervisor_pid(engine.service.folder)
