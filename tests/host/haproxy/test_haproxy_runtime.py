"""A running HAProxy takes changes of endpoints, hosts and certificates over its socket; its files say the same."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from dataclasses import replace

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.host.haproxy import worker
from rulegen.host.proxy.processes import supervision
from rulegen.kube.objects.kinds import KubeObject
from rulegen.languages.haproxy.commands import changes
from rulegen.languages.haproxy.runtime import state_of
from tests.host.haproxy.running import (
    HTTP,
    POD,
    PORTS,
    answers,
    ask,
    is_as_on_disk,
    on_socket,
    presented,
    restart,
    web,
    workers,
)
from tests.languages.test_haproxy_changes import HOSTILE
from tests.rights import needs_root
from tests.strategies.ingresses import endpoints, ingress, rule, service, site, tls, tls_secret, world
from tests.strategies.ingresses import path as route

pytestmark = [pytest.mark.slow, needs_root]


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
        assert worker.held(link).state.maps["maps/hosts.map"] == tuple(sorted(entries))


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
